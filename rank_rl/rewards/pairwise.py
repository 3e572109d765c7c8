"""Rewards for pairs of documents: how many an answer puts the right way round.

Both look at the pairs of documents shown whose grades differ, and do not apply (None) where there
are none. They differ in what a tie of the answer is worth: half a pair for ``pair_agree``, which is
its expected value over the orders of tied documents; for ``kendall`` (tau-b) a tied pair counts
neither for nor against, and fewer pairs are counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import UpToOne, check, payable, valid
from rank_rl.rewards.gold import Gold


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgree(UpToOne):
    """Share of pairs of different grade in the right order, ties half, in [0, 1].

    Raises:
        RecipeError: ``malformed`` above 0.
    """

    malformed: float = 0.0
    name: str = "pair_agree"

    def __post_init__(self) -> None:
        check(self.name, payable(self.malformed, 0), "malformed <= 0", malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the share of pairs, or None where no two grades differ."""
        gold = Gold.of(view, grades)
        if not gold.varied:
            return None
        if not valid(outcome):
            return self.malformed
        right, wrong, tied = counted(gold.tied(outcome))
        return (right + tied / 2) / (right + wrong + tied)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kendall(UpToOne):
    """Kendall's tau-b of answer and grades, in [-1, 1] (Kendall, 1945).

    Right less wrong pairs, divided by the geometric mean of the pairs that the answer tells apart
    and those that the grades do. Scores that tie exactly the documents of equal grade earn 1; an
    order tells every pair apart, so the best one earns the root of the share of pairs whose grades
    differ. An answer that ties all documents earns 0.

    Raises:
        RecipeError: ``malformed`` above -1.
    """

    malformed: float = -1.0
    name: str = "kendall"

    def __post_init__(self) -> None:
        check(self.name, payable(self.malformed, -1), "malformed <= -1", malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return tau-b, or None where no two grades differ."""
        gold = Gold.of(view, grades)
        if not gold.varied:
            return None
        if not valid(outcome):
            return self.malformed
        tiers = gold.tied(outcome)
        right, wrong, tied = counted(tiers)
        size = len(gold.graded)
        told = math.comb(size, 2) - sum(math.comb(len(tier), 2) for tier in tiers)
        if not told:
            return 0.0
        tau = (right - wrong) / math.sqrt(told * (right + wrong + tied))
        return max(-1.0, min(1.0, tau))


def counted(tiers: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """Pairs of different grade that stand the right way round, the wrong way round, and tied.

    Args:
        tiers: grades of the documents, best tier first, those of tied documents together.
    """
    right = wrong = tied = 0
    above: Counter[int] = Counter()
    for tier in tiers:
        here = Counter(tier)
        for grade, count in here.items():
            right += count * sum(n for g, n in above.items() if g > grade)
            wrong += count * sum(n for g, n in above.items() if g < grade)
            tied += count * sum(n for g, n in here.items() if g > grade)
        above += here
    return right, wrong, tied
