"""One label a document, out of all that was answered about a unit.

Labels are real numbers, higher is better; ``to_grades`` makes them the integers that a ranking
task holds. A unit whose answers cannot be read, are cut off or leave documents out, or in which a
call failed, gets none: a document that nobody judged must not look irrelevant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rank_rl.records import Scores
from rank_rl.specs import LabelSpec
from rank_rl.teachers.params import checked
from rank_rl.teachers.units import Answered, Trail

Gold = dict[str, float]

TABLE: dict[str, str] = {
    "auto": "rank_rl.teachers.labels:Auto",
    "fusion": "rank_rl.teachers.labels:Fusion",
    "rank": "rank_rl.teachers.labels:Rank",
    "scores": "rank_rl.teachers.labels:ScoreLabels",
    "shortlist": "rank_rl.teachers.labels:Shortlist",
}


class Labels(Protocol):
    """Labels of a unit's documents by docid; None where it cannot be labelled."""

    def __call__(self, answered: Answered) -> Gold | None:
        """Label a unit."""
        ...


def make(spec: LabelSpec) -> Labels:
    """Build the labels that a recipe names.

    Raises:
        RecipeError: an unknown name or parameter.
    """
    labels: Labels = checked("labels", spec.name, spec.params, TABLE)
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Place in a question's ranking: n - 1 for the first of n, 0 for the last.

    Args:
        question: whose ranking; the first one asked when None.
        top: only so many best documents get a label above 0.
    """

    question: str | None = None
    top: int | None = None

    def __call__(self, answered: Answered) -> Gold | None:
        """n - rank, or top - rank + 1 and 0 below that."""
        trail = _trail(answered, self.question)
        if trail is None:
            return None
        # The last one gets 0: stages that train draw relevant documents and others.
        most = self.top or len(trail.order) - 1
        return {d: float(max(0, most - i)) for i, d in enumerate(trail.order)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLabels:
    """Mean score of a document over the views that showed it; for formats that score.

    Args:
        question: whose scores; the first one asked when None.
    """

    question: str | None = None

    def __call__(self, answered: Answered) -> Gold | None:
        """Mean scores; None where a document got none."""
        trail = _trail(answered, self.question)
        return None if trail is None else _means(trail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """``scores`` where the first question's answers score every document, else its ``rank``."""

    def __call__(self, answered: Answered) -> Gold | None:
        """As ``ScoreLabels`` or ``Rank``."""
        return ScoreLabels()(answered) or Rank()(answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Ranks of several questions fused: minus the weighted sum of their logarithms.

    After GroupRank (2025, arXiv 2511.11653), which fuses pointwise and listwise ranks with equal
    weights.

    Args:
        questions: whose rankings.
        weights: one a question; equal when None.

    Raises:
        ValueError: weights and questions differ in number.
    """

    questions: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.questions) < 2:
            raise ValueError("fusion needs two questions or more")
        if self.weights is not None and len(self.weights) != len(self.questions):
            raise ValueError(f"{len(self.weights)} weights for {len(self.questions)} questions")

    def __call__(self, answered: Answered) -> Gold | None:
        """Labels of at most 0: 0 for a document that is first everywhere.

        Only documents that every ranking holds get one: a rank that is not there would otherwise
        count like the first.
        """
        trails = [_trail(answered, name) for name in self.questions]
        weights = self.weights or (1 / len(trails),) * len(trails)
        gold = dict.fromkeys(answered.unit.task.docids, 0.0)
        for trail, weight in zip(trails, weights, strict=True):
            if trail is None:
                return None
            ranks = {docid: rank for rank, docid in enumerate(trail.order, 1)}
            gold = {d: g - weight * math.log(ranks[d]) for d, g in gold.items() if d in ranks}
        return gold or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortlist:
    """A short list in order, and judgements of the documents that it leaves out.

    After RRADistill (2024, arXiv 2410.18097): what the list leaves out is read again; what is then
    judged irrelevant is a hard negative (0), the rest stands below the list (1).

    Args:
        listed: question whose first ``size`` documents are the list.
        judged: question about the documents left out, which scores.
        size: length of the list.
        relevant: least score that counts as relevant.
    """

    listed: str
    judged: str
    size: int
    relevant: float = 1.0

    def __call__(self, answered: Answered) -> Gold | None:
        """size + 1 for the first of the list … 2 for its last, then 1 or 0."""
        trail = _trail(answered, self.listed)
        if trail is None:
            return None
        kept = trail.order[: self.size]
        gold = {d: float(self.size + 1 - i) for i, d in enumerate(kept)}
        left = [d for d in answered.unit.task.docids if d not in gold]
        judged = _trail(answered, self.judged) if left else None
        scores = _means(judged) if judged else {}
        if left and (not scores or set(left) - set(scores)):
            return None
        return gold | {d: float(scores[d] >= self.relevant) for d in left if scores}


def to_grades(gold: Mapping[str, float], levels: int | None) -> dict[str, int]:
    """Integer grades: labels scaled to 0 … ``levels``, or kept apart as they are.

    Without ``levels`` whole numbers from 0 on are kept; other labels become the number of
    documents with a lower label.
    """
    values = list(gold.values())
    low, high = min(values), max(values)
    if levels is not None:
        span = high - low
        return {d: int(levels * (g - low) / span + 0.5) if span else 0 for d, g in gold.items()}
    if low >= 0 and all(float(g).is_integer() for g in values):
        return {d: int(g) for d, g in gold.items()}
    return {d: sum(other < g for other in values) for d, g in gold.items()}


def _trail(answered: Answered, question: str | None) -> Trail | None:
    """The chosen trail of a question where every answer of it is whole."""
    name = question if question is not None else next(iter(answered.chosen), None)
    trail = answered.first(name) if name is not None else None
    return trail if trail is not None and trail.complete else None


def _means(trail: Trail) -> Gold | None:
    given: dict[str, list[float]] = {}
    for answer in trail.answers:
        if not isinstance(answer.outcome.answer, Scores):
            return None
        for docid, score in answer.outcome.answer.values.items():
            given.setdefault(docid, []).append(score)
    if set(trail.order) - set(given):
        return None
    return {d: sum(given[d]) / len(given[d]) for d in trail.order}
