"""Reasoning in two sections, a line a document: how it addresses the query, why it stands there.

After ReasoningRank (Ji et al., 2024, arXiv 2410.05168). ``compose`` writes such a text, ``read``
reads it back leniently::

    Explicit:
    [1] says who wrote it
    [2] is about the play's stage
    Comparison:
    [1] above [2] because it names him
    [2] last

Text before the first heading is free. Nothing here is an answer; orders are read elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rank_rl.formats.labels import ascii_form, id_pattern
from rank_rl.formats.tags import harmless
from rank_rl.records import View

EXPLICIT, COMPARISON = "explicit", "comparison"
HEADINGS = {EXPLICIT: "Explicit:", COMPARISON: "Comparison:"}

_HEADING = re.compile(
    r"[\s#*_>-]*(?:\d{1,2}[.)]\s*)?(?P<kind>explicit|comparison)s?(?:[ \t]+reasoning)?"
    r"(?:[ \t]*\([^()]{0,80}\))?[*_]*[ \t]*(?::[\s*_]*(?P<rest>.*))?",
    re.IGNORECASE,
)
_PREFIX = r"[\s*_>•+–—-]*(?:\d{1,3}[.)][\s*_]*)?(?:(?:passage|document|doc)s?\b[.\s*_]*)?"
_LEADING = re.compile(r"(?:[\s*_,&:]|[-–—]+(?=\s))+")

Blocks = list[tuple[str, list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """What a text says in sections.

    Attributes:
        free: the text before the first heading.
        found: kind of section → docid → its line; a kind without a heading is absent.
        issues: ``bad_section`` (headings or lines not as asked for), and with the kind before
            them ``_unknown_label`` (a line about no document shown), ``_repeated``.
    """

    free: str
    found: Mapping[str, Mapping[str, str]]
    issues: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line that begins with labels: which, what follows, and whether it is as asked for."""

    labels: tuple[str, ...]
    text: str
    exact: bool


def compose(
    view: View,
    notes: Mapping[str, str],
    comparisons: Mapping[str, str],
    order: Sequence[str],
) -> str:
    """Write reasoning in sections; only documents that have a line, no section without lines.

    Args:
        view: the documents; notes stand in the order shown.
        notes: explicit reasoning by docid.
        comparisons: comparison reasoning by docid.
        order: docids best first, the order of the comparisons; those not in it follow.
    """
    ranked = dict.fromkeys([*(d for d in order if d in view.docids), *view.docids])
    lines: list[str] = []
    for kind, said, docids in ((EXPLICIT, notes, view.docids), (COMPARISON, comparisons, ranked)):
        plain = {d: _plain(harmless(said.get(d, ""))) for d in docids}
        written = [f"[{view.label(d)}] {text}" for d, text in plain.items() if text]
        lines += [HEADINGS[kind], *written] if written else []
    return "\n".join(lines)


def sections(text: str, view: View) -> tuple[dict[str, str], dict[str, str]]:
    """Explicit and comparison reasoning by docid, as ``read`` finds them."""
    found = read(text, view).found
    return dict(found.get(EXPLICIT, {})), dict(found.get(COMPARISON, {}))


def has_heading(text: str) -> bool:
    """Whether any line is the heading of a section."""
    return any(_HEADING.fullmatch(ascii_form(line)) for line in _lines(text))


def read(text: str, view: View) -> Sections:
    """Read reasoning in sections.

    Headings and labels may be decorated (``**Explicit**``, ``- Document [1]:``), several lines
    about a document are joined, and where a heading comes again its last section counts. A text
    without headings whose every line begins with a label is explicit reasoning.
    """
    free, blocks, exact = _blocks(text)
    issues = [] if exact else ["bad_section"]
    if not blocks and free and all(_line(line, view.labels) for line in free):
        free, blocks, issues = [], [(EXPLICIT, free)], ["bad_section"]
    found: dict[str, dict[str, str]] = {}
    for kind, lines in blocks:
        notes, wrong = _notes(kind, lines, view)
        issues += wrong
        issues += ["bad_section"] if kind in found else []
        if notes or kind not in found:
            found[kind] = notes
    if list(found) == [COMPARISON, EXPLICIT]:
        issues.append("bad_section")
    return Sections(free="\n".join(free), found=found, issues=tuple(dict.fromkeys(issues)))


def _blocks(text: str) -> tuple[list[str], Blocks, bool]:
    """Free lines, kind and lines of every section, and whether all headings are as asked for."""
    free: list[str] = []
    blocks: Blocks = []
    exact = True
    for line in _lines(text):
        match = _HEADING.fullmatch(ascii_form(line))
        if match:
            kind = match["kind"].lower()
            exact = exact and line.strip() == HEADINGS[kind]
            blocks.append((kind, [line[match.start("rest") :]] if match["rest"] else []))
        elif blocks:
            blocks[-1][1].append(line)
        elif line.strip():
            free.append(line)
    return free, blocks, exact


def _notes(kind: str, lines: Sequence[str], view: View) -> tuple[dict[str, str], list[str]]:
    """What the lines of one section say, by docid, and what is wrong with them."""
    said: dict[str, list[str]] = {}
    issues: list[str] = []
    current: list[str] = []
    for line in lines:
        read_line = _line(line, view.labels)
        if not line.strip():
            current = []
        elif read_line is None:
            # Goes on with the line above; behind an empty line it belongs to no document.
            issues.append("bad_section")
            for docid in current:
                said[docid].append(line)
        else:
            known = [view.docid(label) for label in read_line.labels]
            current = [docid for docid in known if docid is not None]
            issues += [] if None not in known else [f"{kind}_unknown_label"]
            issues += [] if read_line.exact else ["bad_section"]
            issues += [f"{kind}_repeated"] if said.keys() & set(current) else []
            for docid in current:
                said.setdefault(docid, []).append(read_line.text)
    notes = {docid: _plain(" ".join(texts)) for docid, texts in said.items()}
    return {docid: note for docid, note in notes.items() if note}, issues


def _line(line: str, labels: Sequence[str]) -> _Line | None:
    """A line that begins with a label in brackets, or with several and a colon."""
    one = rf"(?:{id_pattern(labels)})"
    group = rf"\[\s?{one}(?:\s?,\s?{one})*\s?\]"
    several = rf"{group}(?:\s?(?:,\s?(?:and\s)?|&\s?){group})+(?=[*_]{{0,3}}\s?:)"
    plain = ascii_form(line)
    match = re.match(rf"{_PREFIX}(?P<labels>{several}|{group})", plain, re.IGNORECASE)
    if match is None:
        return None
    found = re.findall(rf"(?<![\w-]){one}(?!\w)", match["labels"])
    rest = line[match.end() :]
    exact = line.startswith(f"[{found[0]}]") and len(found) == 1
    return _Line(labels=tuple(dict.fromkeys(found)), text=rest, exact=exact)


def _plain(text: str) -> str:
    """A note on one line, without the separator that may stand between a label and it."""
    folded = " ".join(text.split())
    leading = _LEADING.match(folded)
    return folded[leading.end() :] if leading else folded


def _lines(text: str) -> list[str]:
    return text.replace("\r", "\n").split("\n")
