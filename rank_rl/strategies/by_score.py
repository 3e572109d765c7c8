"""Rank by one absolute score a document: label logits, graded answers, pointwise scores.

Scores are compared across views as they are, so the format must give ``Scores``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rank_rl.errors import RecipeError
from rank_rl.records import RankingTask, numbered
from rank_rl.strategies.base import Plan, at_least, has_no_scores, parts, place, votes


@dataclass(frozen=True, slots=True, kw_only=True)
class ByScore:
    """Score every document once and sort, ties by first-stage rank.

    Documents of a failed view keep their first-stage positions.

    Args:
        size: most documents in a view; None shows all at once.

    Raises:
        RecipeError: ``size`` below 1; or, while running, an answer without scores although the
            candidates were split over several views.
    """

    fixed_cost: ClassVar[bool] = True

    size: int | None = None

    def __post_init__(self) -> None:
        at_least("by_score", 1, or_null=True, size=self.size)

    def plan(self, task: RankingTask) -> Plan:
        """Yield all views at once; ``ceil(n / size)`` calls, depth 1."""
        size = self.size or len(task.candidates)
        views = [numbered(task.query, part) for part in parts(task.candidates, size)]
        outcomes = yield views
        scores: dict[str, float] = {}
        for view, outcome in zip(views, outcomes, strict=True):
            if has_no_scores(outcome) and len(views) > 1:
                raise RecipeError(
                    "the format orders or picks documents: no scores to compare across views",
                    where="strategy 'by_score'",
                    expected="a format that scores documents",
                    remedy="use strategy sliding or groups",
                )
            scores |= votes(outcome, view) or {}
        return place(task, scores)
