"""Reward for the scores themselves: how near their distribution is to that of the grades."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rank_rl.records import Completion, Grades, Order, Outcome, Scores, View
from rank_rl.rewards.base import UpToOne, check, clean, payable, share, valid
from rank_rl.rewards.gold import Gold


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDistribution(UpToOne):
    """1 - JS(P, Q) to base 2, in [0, 1] (GroupRank, 2025, arXiv 2511.11653).

    P and Q are the predicted scores and the grades of the documents shown, each divided by its
    sum; negative scores count 0. Scores that are all zero put everything on "none of them", which
    overlaps with no relevant document, so they earn 0 instead of being undefined. Does not apply
    (None) where nothing shown is relevant, nor to an answer that is an order.

    Raises:
        RecipeError: ``malformed`` above 0.
    """

    malformed: float = 0.0
    name: str = "score_distribution"

    def __post_init__(self) -> None:
        check(self.name, payable(self.malformed, 0), "malformed <= 0", malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return 1 - JS, or None where it does not apply."""
        gold = Gold.of(view, grades)
        if not gold.found or isinstance(outcome.answer, Order):
            return None
        if not valid(outcome) or not isinstance(outcome.answer, Scores):
            return self.malformed
        given = clean(outcome.answer, view)
        # An infinite score cannot be divided by its sum; the largest finite number can.
        capped = {d: min(v, 1e100) for d, v in given.items()}
        predicted = share(capped)
        if not any(predicted.values()):
            return 0.0
        return max(0.0, min(1.0, 1.0 - jensen_shannon(predicted, gold.shares)))


def jensen_shannon(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Jensen-Shannon divergence to base 2 of two distributions over the same keys, in [0, 1]."""
    total = 0.0
    for key, p in first.items():
        q = second[key]
        if p > 0:
            total += p * math.log2(2 * p / (p + q)) / 2
        if q > 0:
            total += q * math.log2(2 * q / (p + q)) / 2
    return total
