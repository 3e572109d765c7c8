"""Reward for agreeing with the other answers to the same documents, whatever the order shown.

With ``grpo.group_shuffle`` the answers of a group see the documents in different orders, so that
agreement is paid for what an answer says of the documents: copying the input, or naming the labels
in a fixed order, says something else of them each time and earns what chance does (tau 0). Without
it all answers see one order, copying it agrees perfectly, and the reward is plain consistency.
Either way agreement is not correctness: any fixed rule about documents (the first stage's rank,
where prompts show it; their length) agrees with itself. So it cannot be the only reward, and a
small weight beside ndcg is what it is for. After permutation self-consistency (Tang et al., 2023,
2310.07712).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import mul
from statistics import fmean
from typing import Literal

from rank_rl.records import Completion, Grades, Order, Outcome, View
from rank_rl.rewards.base import check, is_number, payable, tiers, valid

Measure = Literal["tau", "rbo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Mean rank correlation with the other valid answers of the group.

    ``tau``: Kendall's tau-b, in [-1, 1]; ``rbo``: rank-biased overlap with persistence ``p``,
    expected over tied documents, in [0, 1]. Documents that an answer leaves out are tied behind
    the others, so answers cannot agree by naming few; one that ties all documents has tau 0 with
    every other. A malformed text earns ``malformed``, by default the low end of the measure; a
    valid one without any other valid one beside it, or with a single document to rank, nothing
    (None).

    Raises:
        RecipeError: another measure, ``p`` outside (0, 1), or ``malformed`` above the low end.
    """

    measure: Measure = "tau"
    p: float = 0.9
    malformed: float | None = None
    name: str = "agreement"

    def __post_init__(self) -> None:
        ok = self.measure in ("tau", "rbo") and is_number(self.p) and 0 < self.p < 1
        check(
            self.name,
            ok and (self.malformed is None or payable(self.malformed, self._low)),
            "measure tau or rbo, 0 < p < 1, malformed <= -1 (tau) or 0 (rbo)",
            measure=self.measure,
            p=self.p,
            malformed=self.malformed,
        )

    @property
    def _low(self) -> float:
        return -1.0 if self.measure == "tau" else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """``malformed``, or the low end of the measure, to 1."""
        return (self._low if self.malformed is None else self.malformed, 1.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return None: one answer agrees with nothing."""
        return None

    def among(
        self, outcomes: Sequence[Outcome], views: Sequence[View], grades: Grades
    ) -> list[float | None]:
        """Return each answer's mean agreement with the others; see ``GroupReward``."""
        if len(views[0].docids) < 2:
            return [None] * len(outcomes)
        # A shared order of documents, so that what answers say can be compared place by place.
        docids = sorted(views[0].docids)
        said = {
            i: self._said(_told(outcome, view), docids)
            for i, (outcome, view) in enumerate(zip(outcomes, views, strict=True))
            if valid(outcome)
        }
        agreed: dict[int, list[float]] = {i: [] for i in said}
        for i, j in combinations(said, 2):
            value = self._agree(said[i], said[j])
            agreed[i].append(value)
            agreed[j].append(value)
        means = {i: fmean(values) if values else None for i, values in agreed.items()}
        return [means.get(i, self.bounds[0]) for i in range(len(outcomes))]

    def _said(self, ranked: Sequence[Sequence[str]], docids: Sequence[str]) -> list[float]:
        """An answer as a vector of length 1, whose product with another is their agreement (tau),
        or the chances that make it up (rbo)."""
        if self.measure == "tau":
            return _signs(ranked, docids)
        return _chances(ranked, docids)

    def _agree(self, one: Sequence[float], other: Sequence[float]) -> float:
        if self.measure == "tau":
            total: float = sum(map(mul, one, other))
            return max(-1.0, min(1.0, total))
        return _overlap(one, other, self.p)


def _told(outcome: Outcome, view: View) -> list[list[str]]:
    """Tiers of what an answer says; what an order leaves out is tied at its end."""
    ranked = tiers(outcome, view)
    if not isinstance(outcome.answer, Order):
        return ranked
    named = {*outcome.answer.docids}
    left_out = [d for (d,) in ranked if d not in named]
    return [t for t in ranked if t[0] in named] + ([left_out] if left_out else [])


def _signs(ranked: Sequence[Sequence[str]], docids: Sequence[str]) -> list[float]:
    """For each pair of documents 1, -1 or 0 for a tie, divided by the vector's length."""
    place = {d: i for i, tier in enumerate(ranked) for d in tier}
    places = [place[d] for d in docids]
    signs = [(b > a) - (a > b) for i, a in enumerate(places) for b in places[i + 1 :]]
    length = math.sqrt(sum(map(abs, signs))) or 1.0
    return [sign / length for sign in signs]


def _chances(ranked: Sequence[Sequence[str]], docids: Sequence[str]) -> list[float]:
    """Depth by depth, for each document the chance to be ranked within it."""
    span: dict[str, tuple[int, int]] = {}
    above = 0
    for tier in ranked:
        span |= dict.fromkeys(tier, (above, len(tier)))
        above += len(tier)
    return [
        min(1.0, max(0.0, (depth - span[d][0]) / span[d][1]))
        for depth in range(1, len(docids) + 1)
        for d in docids
    ]


def _overlap(one: Sequence[float], other: Sequence[float], p: float) -> float:
    """RBO, extrapolated, of two answers, their ties broken independently; see ``metrics.rbo``."""
    size = math.isqrt(len(one))
    total = share = 0.0
    for depth in range(1, size + 1):
        here = slice((depth - 1) * size, depth * size)
        share = sum(map(mul, one[here], other[here])) / depth
        total += p ** (depth - 1) * share
    return max(0.0, min(1.0, (1 - p) * total + share * p**size))
