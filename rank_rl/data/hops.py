"""MuSiQue's question decompositions: single hops, and which document answers which hop.

A decomposition reads ``1) Van Hook Township >> capital => Stanley; 2) who founded #1 => …``:
numbered hops, each a question or ``subject >> relation``, ``=>`` its answer; ``#1`` stands for the
answer of hop 1 (Trivedi et al., 2022). Text of any other form gives no hops.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rank_rl.data.words import contains, words
from rank_rl.records import Candidate, RankingTask

# No decomposition has more hops; beyond it trying all assignments takes too long.
MOST = 4
_FILLER = frozenset(
    {
        "a",
        "an",
        "and",
        "at",
        "by",
        "during",
        "for",
        "from",
        "in",
        "is",
        "of",
        "on",
        "the",
        "to",
        "was",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One hop with references replaced: its question (or relation), subject and answer."""

    number: int
    question: str
    subject: str
    answer: str

    @property
    def text(self) -> str:
        """Question and answer in one phrase, without a full stop at the end."""
        return f"{self.question.rstrip(' ?')}: {self.answer}".rstrip(" .:")


def parse(decomposition: str) -> tuple[Hop, ...]:
    """Read the hops of a decomposition; empty when it does not have the form above."""
    answers: dict[int, str] = {}
    parsed: list[Hop] = []
    for number, body in _numbered(decomposition):
        question, arrow, answer = body.rpartition("=>")
        if not arrow:
            question, answer = body, ""
        subject, relation, rest = question.partition(">>")
        subject = _replaced(subject, answers) if relation else ""
        parsed.append(
            Hop(
                number=number,
                question=f"{subject}, {rest.strip()}" if relation else _replaced(question, answers),
                subject=subject,
                answer=answer.strip(),
            )
        )
        answers[number] = answer.strip()
    return tuple(parsed)


def assign(hops: Sequence[Hop], task: RankingTask) -> dict[str, int]:
    """Hop number by docid of the relevant candidates, as far as that is certain.

    Grade 2 marks the document of the last hop. Every other relevant document is matched with an
    earlier hop by the hop's answer and subject; the best assignment counts where it is unique.
    """
    grades = {d: g for d, g in (task.grades or {}).items() if g > 0}
    if not hops or not grades:
        return {}
    relevant = [c for c in task.candidates if c.docid in grades]
    last = [c.docid for c in relevant if grades[c.docid] >= 2]
    earlier = [c for c in relevant if grades[c.docid] < 2]
    assigned = dict.fromkeys(last, hops[-1].number)
    open_hops = hops[:-1] if any(g >= 2 for g in grades.values()) else hops
    assigned |= _match(earlier, open_hops)
    left = [c.docid for c in earlier if c.docid not in assigned]
    free = [h.number for h in open_hops if h.number not in assigned.values()]
    # One paragraph was annotated for each hop: the last pair is certain by elimination.
    if len(grades) == len(hops) == len(relevant) and len(left) == len(free) == 1:
        assigned[left[0]] = free[0]
    return assigned


def _match(candidates: Sequence[Candidate], hops: Sequence[Hop]) -> dict[str, int]:
    """The assignment of highest total evidence; pairs that equally good ones disagree on go."""
    if not candidates or not hops or max(len(candidates), len(hops)) > MOST:
        return {}
    places: list[Hop | None] = [*hops, *[None] * len(candidates)]
    best, agreed = 0, None
    table = {(c.docid, h.number): _evidence(c, h) for c in candidates for h in hops}
    for choice in set(itertools.permutations(places, len(candidates))):
        pairs = {(c.docid, h.number) for c, h in zip(candidates, choice, strict=True) if h}
        if any(table[pair] == 0 for pair in pairs):
            continue
        total = sum(table[pair] for pair in pairs)
        if total > best:
            best, agreed = total, pairs
        elif total == best and agreed is not None:
            agreed = agreed & pairs
    return dict(agreed or ())


def _evidence(candidate: Candidate, hop: Hop) -> int:
    """How well a document answers a hop: 0 without the answer; the subject in the title counts.

    An integer, so that equally good assignments have equal sums.
    """
    title, content = words(candidate.title), words(candidate.content)
    answer = tuple(w for w in words(hop.answer) if w not in _FILLER) or words(hop.answer)
    if not contains(content, answer):
        return 0
    asked = {w for w in words(hop.subject or hop.question) if w not in _FILLER}
    overlap = len(asked & set(content)) / len(asked) if asked else 0.0
    in_title = len(asked & set(title)) / len(title) if title else 0.0
    return round(1000 * (1 + overlap + in_title))


def _numbered(text: str) -> list[tuple[int, str]]:
    """Split at ``1) ``, ``; 2) `` …: only the next number in turn starts a hop."""
    starts: list[tuple[int, int]] = []
    position = 0
    while match := re.compile(rf"(?:^|;)\s*{len(starts) + 1}\)\s*").search(text, position):
        starts.append((match.start(), match.end()))
        position = match.end()
    ends = [*(start for start, _ in starts[1:]), len(text)][: len(starts)]
    return [
        (i, text[start:end].strip(" ;"))
        for i, ((_, start), end) in enumerate(zip(starts, ends, strict=True), 1)
    ]


def _replaced(text: str, answers: Mapping[int, str]) -> str:
    filled = re.sub(r"#(\d+)", lambda m: answers.get(int(m[1]), m[0]), text)
    return re.sub(r"\s+(['’?,.])", r"\1", filled).strip()
