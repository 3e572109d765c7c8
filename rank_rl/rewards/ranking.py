"""Rewards for the order of an answer: nDCG, its gain over the input, recall, MRR and overlap.

All take the ideal of the documents shown, pay tied scores the expected value over their orders,
do not apply (None) where nothing shown is relevant, and pay ``malformed`` for any text that broke
its format. That is the low bound unless a recipe sets less; ``format`` in the composite is what
keeps a malformed text strictly under the worst valid one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache

from rank_rl import metrics
from rank_rl.records import Completion, Grades, Order, Outcome, TeacherScores, View
from rank_rl.rewards.base import UpToOne, check, is_count, is_number, payable, tiers, valid
from rank_rl.rewards.gold import Gold
from rank_rl.rewards.teacher import order as teacher_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Ndcg(UpToOne):
    """nDCG@k within the view, in [0, 1]; Ndcg(k=10) pays the best order 1.0.

    Raises:
        RecipeError: ``k`` below 1, or ``malformed`` above 0.
    """

    k: int = 10
    malformed: float = 0.0
    name: str = "ndcg"

    def __post_init__(self) -> None:
        ok = is_count(self.k) and payable(self.malformed, 0)
        check(self.name, ok, "k >= 1 and malformed <= 0", k=self.k, malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return nDCG@k, or None where nothing shown is relevant."""
        gold = Gold.of(view, grades)
        if not gold.found:
            return None
        return gold.quality(outcome, self.k) if valid(outcome) else self.malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class NdcgGain(UpToOne):
    """Gain over the order shown, (N - N0) / (N* - N0) cut to [-1, 1] (Rearank, 2025, 2505.20046).

    N, N0 and N* are nDCG@k of the answer, of the order shown and of the best order of the view.
    Keeping the order shown earns 0, the best order 1. The fraction has no lower bound (N 0.2 and
    N0 0.95 give -15), so it is cut at -1: event ``clipped``. Where the order shown is already the
    best it is undefined: the value is then N - N0, 0 for an order as good and less for a worse
    one: event ``undefined``.

    Raises:
        RecipeError: ``k`` below 1, or ``malformed`` above -1.
    """

    k: int = 10
    malformed: float = -1.0
    name: str = "ndcg_gain"

    def __post_init__(self) -> None:
        ok = is_count(self.k) and payable(self.malformed, -1)
        check(self.name, ok, "k >= 1 and malformed <= -1", k=self.k, malformed=self.malformed)

    def _gain(self, outcome: Outcome, gold: Gold) -> tuple[float, bool]:
        """The uncut value, and whether the fraction is defined."""
        best, shown = 1.0, gold.shown_ndcg(self.k)
        change = gold.quality(outcome, self.k) - shown
        defined = best - shown > 1e-9
        return (change / (best - shown) if defined else change), defined

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the bounded gain, or None where nothing shown is relevant."""
        gold = Gold.of(view, grades)
        if not gold.found:
            return None
        if not valid(outcome):
            return self.malformed
        return max(-1.0, min(1.0, self._gain(outcome, gold)[0]))

    def events(self, outcome: Outcome, view: View, grades: Grades) -> tuple[str, ...]:
        """``clipped`` where the fraction fell under -1, ``undefined`` where N0 = N*."""
        gold = Gold.of(view, grades)
        if not gold.found or not valid(outcome):
            return ()
        # No answer of at least the quality shown is cut, so most need no second look.
        if gold.quality(outcome, self.k) >= gold.shown_ndcg(self.k) < 1.0 - 1e-6:
            return ()
        gain, defined = self._gain(outcome, gold)
        if not defined:
            return ("undefined",)
        return ("clipped",) if gain < -1 else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall(UpToOne):
    """Share of the view's relevant documents within the first ``k``, in [0, 1].

    Does not apply (None) to a view of at most ``k`` documents, where it is always 1. A tie across
    the cut counts by the share of it that fits.

    Raises:
        RecipeError: ``k`` below 1, or ``malformed`` above 0.
    """

    k: int = 10
    malformed: float = 0.0
    name: str = "recall"

    def __post_init__(self) -> None:
        ok = is_count(self.k) and payable(self.malformed, 0)
        check(self.name, ok, "k >= 1 and malformed <= 0", k=self.k, malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return recall@k, or None where it would be constant."""
        gold = Gold.of(view, grades)
        if self.k >= len(view.docids) or not gold.found:
            return None
        if not valid(outcome):
            return self.malformed
        return gold.recalled(outcome, self.k) / gold.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Mrr(UpToOne):
    """1 / rank of the first relevant document, 0 where it comes after ``k``, in [0, 1].

    Tied scores earn the expected value over their orders.

    Raises:
        RecipeError: ``k`` below 1, or ``malformed`` above 0.
    """

    k: int = 10
    malformed: float = 0.0
    name: str = "mrr"

    def __post_init__(self) -> None:
        ok = is_count(self.k) and payable(self.malformed, 0)
        check(self.name, ok, "k >= 1 and malformed <= 0", k=self.k, malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the reciprocal rank, or None where nothing shown is relevant."""
        gold = Gold.of(view, grades)
        if not gold.found:
            return None
        if not valid(outcome):
            return self.malformed
        above = 0
        for tier in gold.tied(outcome):
            relevant = sum(g > 0 for g in tier)
            if relevant:
                return _expected_reciprocal(above, len(tier), relevant, self.k)
            above += len(tier)
        return 0.0


@lru_cache(maxsize=65536)
def _expected_reciprocal(above: int, tier: int, relevant: int, k: int) -> float:
    """Mean of 1 / rank, 0 after ``k``, of the first of ``relevant`` among ``tier`` tied ones."""
    places = range(1, min(k - above, tier - relevant + 1) + 1)
    ways = (math.comb(tier - place, relevant - 1) / (above + place) for place in places)
    return sum(ways) / math.comb(tier, relevant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbo(UpToOne):
    """Rank-biased overlap with an order, in [0, 1] (Webber et al., 2010).

    ``of: grades`` is the order of the grades, ties broken by first-stage rank; tied scores earn the
    expected value over their orders, except that documents of equal grade are not held against one
    another. ``of: teacher`` is a teacher's order (ReasonRank, 2025, 2508.07050), and does not apply
    to a query that the teacher has not ranked; as long as no teacher is known (``lint-rewards``)
    the grades stand in for it.

    Raises:
        RecipeError: ``p`` outside (0, 1) (at 1 the measure is plain overlap, not RBO),
            ``malformed`` above 0, or another ``of``.
    """

    p: float = 0.9
    of: str = "grades"
    malformed: float = 0.0
    name: str = "rbo"
    teacher: TeacherScores = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        ok = is_number(self.p) and 0 < self.p < 1 and payable(self.malformed, 0)
        check(self.name, ok, "0 < p < 1 and malformed <= 0", p=self.p, malformed=self.malformed)
        check(self.name, self.of in ("grades", "teacher"), "of: grades or teacher", of=self.of)

    @property
    def follows_teacher(self) -> bool:
        """Whether the order is a teacher's."""
        return self.of == "teacher"

    def taught(self, scores: TeacherScores) -> Rbo:
        """The reward with the scores of a teacher."""
        made = copy(self)
        object.__setattr__(made, "teacher", scores)
        return made

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return RBO, or None where nothing shown is relevant or the teacher said nothing."""
        gold = Gold.of(view, grades)
        best, levels = gold.best, gold.graded
        if self.follows_teacher and self.teacher:
            known = self.teacher.get(view.query.qid, {})
            best = teacher_order(view, known)
            levels = {d: -i for i, d in enumerate(best)}
            if not any(d in known for d in best):
                return None
        elif not gold.found:
            return None
        if not valid(outcome):
            return self.malformed
        if isinstance(outcome.answer, Order):
            return metrics.rbo(gold.order(outcome), best, self.p)
        ranked = tiers(outcome, view)
        if all(len(tier) == 1 for tier in ranked):
            return metrics.rbo([d for (d,) in ranked], best, self.p)
        return _expected_rbo(ranked, best, levels, self.p)


def _expected_rbo(
    ranked: Sequence[Sequence[str]], teacher: Sequence[str], graded: dict[str, int], p: float
) -> float:
    """RBO expected over the orders of each tier that keep documents of equal grade in place.

    RBO is linear in the overlap at each depth, and that in the chance of each document to be
    ranked within the depth, so expectation is exact without drawing orders.
    """
    size = len(teacher)
    within = _chances(ranked, teacher, graded)
    total = overlap = 0.0
    for depth in range(1, size + 1):
        overlap = sum(within[d][depth] for d in teacher[:depth]) / depth
        total += p ** (depth - 1) * overlap
    return max(0.0, min(1.0, (1 - p) * total + overlap * p**size))


def _chances(
    ranked: Sequence[Sequence[str]], teacher: Sequence[str], graded: dict[str, int]
) -> dict[str, list[float]]:
    """For each document the chance to be ranked within depth 0, 1, … n."""
    size = len(teacher)
    place = {d: i for i, d in enumerate(teacher)}
    chances: dict[str, list[float]] = {}
    above = 0
    for tier in ranked:
        for docid in tier:
            alike = [d for d in tier if graded[d] == graded[docid]]
            turn = 1 + sum(place[d] < place[docid] for d in alike)
            chances[docid] = [
                _at_least(turn, len(tier), len(alike), depth - above) for depth in range(size + 1)
            ]
        above += len(tier)
    return chances


@lru_cache(maxsize=65536)
def _at_least(turn: int, tier: int, alike: int, drawn: int) -> float:
    """Chance that ``drawn`` of ``tier`` items hold at least ``turn`` of the ``alike`` ones."""
    drawn = max(0, min(tier, drawn))
    ways = sum(
        math.comb(alike, hit) * math.comb(tier - alike, drawn - hit)
        for hit in range(turn, min(alike, drawn) + 1)
    )
    return ways / math.comb(tier, drawn)
