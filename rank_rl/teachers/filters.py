"""Reasons to drop an answer, by name; each says what is wrong, or nothing.

A filter of scope ``answer`` sees one lesson, one of scope ``unit`` all that was answered about a
query: the latter drops the unit's labels too. Filters run in the order of the recipe; the first
that objects is the one counted. Filters that need grades pass what cannot be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rank_rl.data.lessons import Lesson
from rank_rl.metrics import kendall, ndcg
from rank_rl.records import Order, Outcome, Scores
from rank_rl.specs import FilterSpec
from rank_rl.teachers.choosing import agreement
from rank_rl.teachers.params import checked
from rank_rl.teachers.units import UNFINISHED, Answered

Scope = Literal["answer", "unit"]

TABLE: dict[str, str] = {
    "agreement": "rank_rl.teachers.filters:Agreement",
    "copied": "rank_rl.teachers.filters:Copied",
    "explained": "rank_rl.teachers.filters:Explained",
    "first_relevant": "rank_rl.teachers.filters:FirstRelevant",
    "length": "rank_rl.teachers.filters:Length",
    "quality": "rank_rl.teachers.filters:Quality",
    "readable": "rank_rl.teachers.filters:Readable",
    "repeats": "rank_rl.teachers.filters:Repeats",
    "spread": "rank_rl.teachers.filters:Spread",
    "stable": "rank_rl.teachers.filters:Stable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A lesson with how it was read; ``answered`` is None for imported lessons."""

    lesson: Lesson
    outcome: Outcome
    finish: str = "stop"
    answered: Answered | None = None


class Filter(Protocol):
    """One reason to drop; ``name`` is what the report calls it."""

    scope: Scope

    def __call__(self, item: Item) -> str:
        """What is wrong with an item; empty when nothing is."""
        ...


def make(spec: FilterSpec) -> Filter:
    """Build the filter that a recipe names.

    Raises:
        RecipeError: an unknown name or parameter.
    """
    built: Filter = checked("filter", spec.name, spec.params, TABLE)
    return built


@dataclass(frozen=True, kw_only=True)
class Readable:
    """The answer could be read, was not cut off, and leaves no document out.

    Args:
        repaired: keep answers that broke a rule of their format and could be read nevertheless.
        incomplete: keep answers that leave documents out; those follow in first-stage order.
    """

    repaired: bool = True
    incomplete: bool = False
    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Failed, cut off, or repaired where that does not suffice."""
        if item.outcome.status == "failed":
            return "unreadable: " + ", ".join(item.outcome.issues)
        if item.finish == "length":
            return "cut off at max_tokens"
        if not self.incomplete and UNFINISHED & set(item.outcome.issues):
            return "incomplete: " + ", ".join(item.outcome.issues)
        if item.outcome.status == "repaired" and not self.repaired:
            return "repaired: " + ", ".join(item.outcome.issues)
        return ""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """nDCG@10 of the teacher's order by people's grades is at least ``least``.

    ReasonRank keeps lists from 0.4 on (2025, arXiv 2508.07050).
    """

    least: float = 0.4
    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Checked where a document shown is relevant."""
        grades = known_grades(item.lesson)
        if grades is None:
            return ""
        value = ndcg(complete_order(item.lesson), grades)
        return f"nDCG@10 {value:.3f} below {self.least}" if value < self.least else ""


@dataclass(frozen=True, kw_only=True)
class FirstRelevant:
    """The first choice is a document that people judged relevant."""

    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Checked where some but not all documents shown are relevant."""
        grades = known_grades(item.lesson)
        if grades is None or all(grades.get(d, 0) > 0 for d in item.lesson.view.docids):
            return ""
        first = complete_order(item.lesson)[0]
        return "" if grades.get(first, 0) > 0 else f"first choice {first} is not relevant"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two questions about the same query agree (ReasonRank's consistency, 2508.07050).

    ``ndcg`` takes the scores of the first question as grades for the order of the second, ``tau``
    is Kendall's tau of the two orders.

    Args:
        questions: two names.
        least: smallest agreement that is kept.
        measure: ``ndcg`` or ``tau``.

    Raises:
        ValueError: not two questions, or another measure.
    """

    questions: Sequence[str]
    least: float = 0.4
    measure: Literal["ndcg", "tau"] = "ndcg"
    scope: Scope = field(default="unit", init=False)

    def __post_init__(self) -> None:
        if len(self.questions) != 2 or self.measure not in ("ndcg", "tau"):
            raise ValueError("agreement needs two questions and measure ndcg or tau")

    def __call__(self, item: Item) -> str:
        """Checked where both questions were asked; disagreement by failure counts."""
        if item.answered is None:
            return ""
        first, second = (item.answered.first(name) for name in self.questions)
        if first is None or second is None:
            return ""
        if not (first.readable and second.readable):
            return "one of the two answers cannot be read"
        if self.measure == "tau":
            value = kendall(first.ranking.docids, second.ranking.docids)
        else:
            value = ndcg(second.ranking.docids, _as_grades(first.ranking.docids, item, first))
        names = " and ".join(self.questions)
        return f"{names} agree to {value:.3f} only" if value < self.least else ""


@dataclass(frozen=True, kw_only=True)
class Stable:
    """The samples of a question agree: mean Kendall's tau of the chosen one with the others.

    Args:
        of: the question.
        least: smallest mean tau that is kept.
    """

    of: str
    least: float = 0.5
    scope: Scope = field(default="unit", init=False)

    def __call__(self, item: Item) -> str:
        """Checked where several samples could be read."""
        answered = item.answered
        trail = answered.first(self.of) if answered else None
        if answered is None or trail is None:
            return ""
        value = agreement(trail, answered.drawn[self.of])
        return f"samples agree to {value:.3f} only" if value < self.least else ""


@dataclass(frozen=True, kw_only=True)
class Length:
    """The reasoning has at least ``least`` and at most ``most`` words."""

    least: int = 0
    most: int | None = None
    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Explicit and comparison reasoning count where there is no other."""
        lesson = item.lesson
        parts = [lesson.reasoning] if lesson.reasoning else []
        parts = parts or [*lesson.notes.values(), *lesson.comparisons.values()]
        words = sum(len(part.split()) for part in parts)
        if words < self.least:
            return f"reasoning of {words} words"
        return f"reasoning of {words} words" if self.most and words > self.most else ""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """So large a share of the documents has explicit (``notes``) and comparison reasoning."""

    explicit: float = 1.0
    comparison: float = 0.0
    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Shares of the documents shown."""
        lesson, count = item.lesson, len(item.lesson.view.docids)
        for name, notes, least in (
            ("explicit", lesson.notes, self.explicit),
            ("comparison", lesson.comparisons, self.comparison),
        ):
            if len(notes) < least * count:
                return f"{name} reasoning for {len(notes)} of {count} documents"
        return ""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Not the same reason for most documents: at least this share of the notes is different."""

    least: float = 0.6
    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Checked for answers that explain two documents or more."""
        notes = [" ".join(n.lower().split()) for n in item.lesson.notes.values()]
        if len(notes) < 2 or len(set(notes)) >= self.least * len(notes):
            return ""
        return f"{len(set(notes))} different reasons for {len(notes)} documents"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The order is not just the order shown (three documents or more)."""

    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Orders only: equal scores are the business of ``spread``."""
        lesson = item.lesson
        shown = lesson.view.docids
        same = isinstance(lesson.answer, Order) and complete_order(lesson) == shown
        return "the order shown, repeated" if same and len(shown) > 2 else ""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Scores of two documents or more are not all equal."""

    scope: Scope = field(default="answer", init=False)

    def __call__(self, item: Item) -> str:
        """Scores only."""
        answer = item.lesson.answer
        if not isinstance(answer, Scores) or len(answer.values) < 2:
            return ""
        return "all scores are equal" if len(set(answer.values.values())) == 1 else ""


def known_grades(lesson: Lesson) -> dict[str, int] | None:
    """People's grades of the documents shown; None unless one of them is relevant."""
    grades = {d: g for d, g in (lesson.grades or {}).items() if d in lesson.view.docids}
    return grades if any(g > 0 for g in grades.values()) else None


def complete_order(lesson: Lesson) -> tuple[str, ...]:
    """The lesson's order of all documents shown; those it leaves out by first-stage rank."""
    return Outcome(status="ok", answer=lesson.answer).as_order(lesson.view)


def _as_grades(docids: Sequence[str], item: Item, trail: object) -> dict[str, int]:
    """Scores of a question as grades, or places where it gave an order."""
    from rank_rl.teachers.labels import ScoreLabels, to_grades

    name = getattr(trail, "question", "")
    scores = ScoreLabels(question=name)(item.answered) if item.answered else None
    if scores is None:
        return {d: len(docids) - i for i, d in enumerate(docids)}
    return to_grades(scores, None)
