"""Split a completion into ``<think>…</think><answer>…</answer>``.

Policy: an answer is read from the *last complete* answer block that lies outside the reasoning
(``second_answer`` when there are several), from an unclosed one if there is no other
(``truncated``), from the text after the reasoning if there is none (``no_answer_tag``). Nothing is
ever read from the reasoning. What was prefilled counts as part of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

_TAG = re.compile(r"[<＜]\s{0,3}(/?)\s{0,3}(think|answer)\s{0,3}[>＞]", re.I | re.A)
_TAG_ASCII = re.compile(r"<\s{0,3}(/?)\s{0,3}(think|answer)\s{0,3}[>＞]", re.I | re.A)
_ORDER = ["think", "/think", "answer", "/answer"]

# What can be wrong about tags; no other part of a format uses these names beside tags.
ISSUES: frozenset[str] = frozenset(
    {
        "leading_text",
        "no_answer_tag",
        "no_think",
        "no_think_close",
        "no_think_open",
        "repeated_think",
        "second_answer",
        "stray_tag",
        "tag_spelling",
        "text_between",
        "trailing_text",
        "truncated",
        "unexpected_tags",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """A completion taken apart.

    ``start`` is the offset of ``answer`` in prefill + text; ``marked`` says that the answer stood
    between answer tags (or that its format has no tags), so that all of it is meant as answer.
    """

    reasoning: str
    answer: str
    issues: tuple[str, ...]
    start: int
    marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    name: str
    start: int
    end: int
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The text between answer tags; ``open_think`` says that a ``<think>`` before it is open."""

    start: int
    end: int
    open_think: bool


def has_tags(text: str) -> bool:
    """Whether any think or answer tag, however spelled, occurs."""
    return ("<" in text or "＜" in text) and _tag(text).search(text) is not None


def harmless(text: str) -> str:
    """The text with its think and answer tags written in round brackets."""
    return _tag(text).sub(lambda m: f"({m[1]}{m[2]})", text)


def _tag(text: str) -> re.Pattern[str]:
    """The pattern of a tag; without full-width brackets the search is several times faster."""
    return _TAG if "＜" in text else _TAG_ASCII


def split(text: str, prefill: str = "") -> Tagged:
    """Take a completion apart; ``issues`` is empty only when both tags are right and there once."""
    whole = prefill + text
    return _faultless(whole) or _general(whole, list(_tag(whole).finditer(whole)))


def _faultless(whole: str) -> Tagged | None:
    """What ``_general`` makes of a text with four tags and no other bracket; None for others."""
    if whole.count("<") != 4 or "＜" in whole:
        return None
    before, opened, rest = whole.partition("<think>")
    reasoning, closed, rest = rest.partition("</think>")
    between, begun, rest = rest.partition("<answer>")
    answer, ended, after = rest.partition("</answer>")
    if not (opened and closed and begun and ended):
        return None
    if before.strip() or between.strip() or after.strip():
        return None
    start = len(whole) - len(answer) - len(ended) - len(after)
    return Tagged(reasoning=reasoning.strip(), answer=answer, issues=(), start=start, marked=True)


def _general(whole: str, found: Sequence[re.Match[str]]) -> Tagged:
    """Take any text apart, given its tags."""
    marks = [
        _Mark(
            name=m[1] + m[2].lower(),
            start=m.start(),
            end=m.end(),
            exact=m[0] == f"<{m[1]}{m[2].lower()}>",
        )
        for m in found
    ]
    issues = _issues(whole, marks)
    block = _answer_block(whole, marks)
    thinks = [m for m in marks if m.name == "think"]
    limit = block.start if block else len(whole)
    closes = [m for m in marks if m.name == "/think" and m.end <= limit]
    begin = thinks[0].end if thinks else 0
    if block is not None:
        first = next((m.start for m in reversed(marks) if m.end == block.start), block.start)
        stop = closes[-1].start if closes and not block.open_think else first
        has_reasoning = bool(thinks or closes)
        answer, start = whole[block.start : block.end], block.start
    elif closes and not _still_thinking(marks):
        stop, has_reasoning = closes[-1].start, True
        answer, start = whole[closes[-1].end :], closes[-1].end
    elif thinks:
        stop, has_reasoning, answer, start = len(whole), True, "", len(whole)
        issues.append("truncated")
    else:
        stop, has_reasoning, answer, start = 0, False, whole, 0
    return Tagged(
        reasoning=whole[begin:stop].strip() if has_reasoning and begin <= stop else "",
        answer=answer,
        issues=tuple(dict.fromkeys(issues)),
        start=start,
        marked=block is not None,
    )


def _still_thinking(marks: list[_Mark]) -> bool:
    depth = 0
    for mark in marks:
        if mark.name == "think":
            depth += 1
        elif mark.name == "/think":
            depth = max(0, depth - 1)
    return depth > 0


def _answer_block(whole: str, marks: list[_Mark]) -> _Block | None:
    """The block that counts, by the policy above; a ``<think>`` inside a block breaks it."""
    blocks: list[_Block] = []
    opened: _Block | None = None
    depth, closes = 0, 0
    for mark in marks:
        if mark.name == "think":
            depth += 1
            opened = None
        elif mark.name == "/think":
            if depth == closes == 0:
                # The beginning of the reasoning is missing: all up to here was reasoning.
                blocks, opened = [], None
            blocks = [b for b in blocks if not b.open_think]
            opened = None if opened and opened.open_think else opened
            depth, closes = max(0, depth - 1), closes + 1
        elif mark.name == "answer":
            opened = _Block(start=mark.end, end=len(whole), open_think=depth > 0)
        elif opened is not None:
            blocks.append(replace(opened, end=mark.start))
            opened = None
    outside = [b for b in blocks if not b.open_think]
    if outside:
        return outside[-1]
    if opened is not None:
        return None if opened.open_think else opened
    # A reasoning that was never closed, but a complete answer block ends the text.
    if blocks and marks[-1].name == "/answer" and not whole[marks[-1].end :].strip():
        return blocks[-1]
    return None


def _issues(whole: str, marks: list[_Mark]) -> list[str]:
    """Every departure from one think block followed by one answer block, by name."""
    names = [m.name for m in marks]
    counts = Counter(names)
    issues: list[str] = []
    if not counts["think"]:
        issues.append("no_think_open" if counts["/think"] else "no_think")
    elif not counts["/think"]:
        issues.append("no_think_close")
    if max(counts["think"], counts["/think"]) > 1:
        issues.append("repeated_think")
    if not counts["answer"]:
        issues.append("no_answer_tag")
    elif counts["answer"] > counts["/answer"]:
        issues.append("truncated")
    if max(counts["answer"], counts["/answer"]) > 1:
        issues.append("second_answer")
    if any(not m.exact for m in marks):
        issues.append("tag_spelling")
    if marks and whole[: marks[0].start].strip() and names[0] in ("think", "answer"):
        issues.append("leading_text")
    for mark, following in pairwise(marks):
        gap = whole[mark.end : following.start].strip()
        if gap and mark.name == "/think" and following.name == "answer":
            issues.append("text_between")
    if names[-1:] == ["/answer"] and whole[marks[-1].end :].strip():
        issues.append("trailing_text")
    if names != _ORDER and not issues:
        issues.append("stray_tag")
    return issues
