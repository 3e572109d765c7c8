"""Read an ordered list of labels, ``[3] > [1] > [2]``, out of an answer.

Strictly, the answer is that list and nothing else. Leniently, the *longest chain* of bracketed
labels counts (the last one where several are as long), then labels scattered in an answer that is
meant as answer, then bare numbers joined by ``>`` or alone on their line with commas. Numbers in
prose are never a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rank_rl.formats.labels import ascii_form, id_pattern

_STRICT = re.compile(r"\[[0-9A-Za-z]+\](?:[ \t\r\n]*>[ \t\r\n]*\[[0-9A-Za-z]+\])*")
_TIED = re.compile(_STRICT.pattern.replace(">", "[>=]"))
_BLANK = " \t\r\n"
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_BETWEEN = re.compile(r"[\s,>;=|*\"'-]*(?:\d{1,3}[.)]\s*)?[*\"']*")
_UNFINISHED = re.compile(r"(?:>|,|\[-?\w*)\s*\Z")


class _Group(NamedTuple):
    """One pair of brackets that holds nothing but labels."""

    start: int
    end: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpan:
    """The characters that write one place of a list, ``start`` to ``end`` (exclusive).

    The separator before a label belongs to it; ``label`` is where the label itself begins, behind
    its bracket, and the closing bracket is the last character.
    """

    start: int
    label: int
    end: int


def list_spans(answer: str) -> list[LabelSpan]:
    """What of an answer writes each place of its list; empty unless it is strictly a list."""
    if not _STRICT.fullmatch(answer.strip(_BLANK)):
        return []
    spans: list[LabelSpan] = []
    for match in _BRACKETS.finditer(answer):
        start = spans[-1].end if spans else match.start()
        spans.append(LabelSpan(start=start, label=match.start(1), end=match.end()))
    return spans


def tied_tiers(answer: str) -> list[list[str]]:
    """The tiers of a list that says some labels are equal, ``[3] > [2] = [1]``, as written.

    Of several lists the longest counts, the last one of those; empty when it has no ``=``.
    """
    plain = ascii_form(answer)
    if "=" not in plain:
        return []
    written = [m[0] for m in _TIED.finditer(plain)]
    longest = max(reversed(written), key=lambda text: text.count("["), default="")
    if "=" not in longest:
        return []
    return [_BRACKETS.findall(tier) for tier in longest.split(">")]


def untied(answer: str) -> str:
    """An answer that is strictly a list with ``=`` in it, as one without; any other as it is."""
    whole = _TIED.fullmatch(ascii_form(answer).strip(_BLANK))
    return answer.replace("=", ">") if whole else answer


def read_list(answer: str, labels: Sequence[str], *, prose: bool) -> tuple[list[str], list[str]]:
    """Return the labels an answer lists, as written, and its issues.

    Args:
        answer: the answer part of a completion.
        labels: the labels shown; they decide what can be a label at all.
        prose: whether labels scattered in prose count; only where all of ``answer`` is answer.

    Returns:
        ids: labels best first, unchecked: they may repeat or belong to no document.
        issues: ``non_ascii``, ``text_before``, ``text_after``, ``bad_list``, ``prose``,
            ``unfinished``; empty when the answer is strictly a list.
    """
    plain = ascii_form(answer).strip(_BLANK)
    issues = [] if plain == answer.strip(_BLANK) else ["non_ascii"]
    plainest = _faultless(plain)
    if plainest is not None:
        return plainest, issues
    if _STRICT.fullmatch(plain):
        return _BRACKETS.findall(plain), issues
    if _UNFINISHED.search(plain[-40:]):
        issues.append("unfinished")
    pattern = id_pattern(labels)
    groups = _groups(plain, re.compile(pattern))
    chain = _longest(_chains(plain, groups))
    if len(_ids(chain)) > 1 or (len(groups) == 1 and (prose or _is_all(plain, chain))):
        text = plain[chain[0].start : chain[-1].end]
        around = _around(plain, chain[0].start, chain[-1].end)
        is_list = _STRICT.fullmatch(text) is not None
        return _ids(chain), [*issues, *around, *([] if is_list and around else ["bad_list"])]
    if groups and prose:
        return _ids(groups), [*issues, "prose"]
    bare = _bare_list(plain, pattern)
    if bare is None:
        return [], issues
    issues += _around(plain, bare.start(), bare.end())
    return re.findall(pattern, bare[0]), [*issues, "bad_list"]


def _faultless(plain: str) -> list[str] | None:
    """The labels of a list written just as the ideal answer is, None for any other text."""
    if plain[:1] != "[" or plain[-1:] != "]":
        return None
    found = plain[1:-1].split("] > [")
    joined = "".join(found)
    return found if joined.isalnum() and joined.isascii() and "" not in found else None


def _groups(plain: str, one: re.Pattern[str]) -> list[_Group]:
    found = []
    for match in _BRACKETS.finditer(plain):
        if one.fullmatch(match[1]):
            found.append(_Group(match.start(), match.end(), (match[1],)))
            continue
        items = [part.strip("\"'") for part in re.split(r"[\s,>;=]+", match[1].strip())]
        if all(one.fullmatch(item) for item in items):
            found.append(_Group(start=match.start(), end=match.end(), ids=tuple(items)))
    return found


def _chains(plain: str, groups: Sequence[_Group]) -> list[list[_Group]]:
    """Runs of groups with nothing but separators (or the numbers of a numbered list) between."""
    chains: list[list[_Group]] = []
    for group in groups:
        if chains and _BETWEEN.fullmatch(plain, chains[-1][-1].end, group.start):
            chains[-1].append(group)
        else:
            chains.append([group])
    return chains


def _longest(chains: Sequence[list[_Group]]) -> list[_Group]:
    return max(reversed(chains), key=lambda chain: len(_ids(chain)), default=[])


def _ids(groups: Iterable[_Group]) -> list[str]:
    return [label for group in groups for label in group.ids]


def _is_all(plain: str, chain: Sequence[_Group]) -> bool:
    return chain[0].start == 0 and chain[-1].end == len(plain)


def _around(plain: str, start: int, end: int) -> list[str]:
    """Names for text before and after a list; the brackets of a JSON list are no text."""
    issues = ["text_before"] if plain[:start].strip(" \t\r\n[\"'") else []
    return [*issues, "text_after"] if plain[end:].strip(" \t\r\n]\"'.") else issues


def _bare_list(plain: str, pattern: str) -> re.Match[str] | None:
    """Two labels or more without brackets: joined by ``>``, or by commas alone on a line."""
    one = f"(?:{pattern})"
    ranked = re.search(rf"(?<![\w.\[-]){one}(?:[ \t]*>[ \t]*{one})+(?!\w)", plain)
    if ranked:
        return ranked
    return re.search(rf"^[ \t]*{one}(?:[ \t]*,[ \t]*{one})+(?=[ \t]*\.?[ \t]*$)", plain, re.M)
