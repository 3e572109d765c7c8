"""Rewards for one choice: the best document of a view, or the one to leave out.

Made for answers that name one document, they pay any other answer for the same choice: an order by
its first or last document, scores by their highest or lowest tier, of which each document is
equally likely to be taken. Neither applies (None) where all documents shown have the same grade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import UpToOne, check, is_number, payable, valid
from rank_rl.rewards.gold import Gold

# Issues of a text that is wrong in naming no document of the view only: as a pick, as a list.
_OUTSIDE = (frozenset({"out_of_range", "no_choice"}), frozenset({"out_of_range", "no_list"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PickMatch(UpToOne):
    """1 for choosing a document of the highest grade shown, else 0 (Rank-R1, 2025, 2503.06034).

    ``graded`` pays the grade of what was chosen as a part of the highest one.

    Raises:
        RecipeError: ``malformed`` above 0.
    """

    graded: bool = False
    malformed: float = 0.0
    name: str = "pick_match"

    def __post_init__(self) -> None:
        check(self.name, payable(self.malformed, 0), "malformed <= 0", malformed=self.malformed)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return what the first choice earns, or None where every choice is as good."""
        gold = Gold.of(view, grades)
        if not gold.varied:
            return None
        if not valid(outcome):
            return self.malformed
        return _worth(gold.tied(outcome)[0], gold.top, graded=self.graded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived(UpToOne):
    """1 for leaving out a document that is not of the highest grade, 0 for one that is.

    After IRanker (2025, 2506.21638), where the document of the highest grade must survive every
    elimination: a text that keeps the form and names nothing but a document outside the view earns
    ``out_of_pool``, any other malformed one ``malformed``. ``graded`` pays 1 less the grade left
    out as a part of the highest.

    Raises:
        RecipeError: unless malformed <= out_of_pool <= 0.
    """

    graded: bool = False
    out_of_pool: float = -0.5
    malformed: float = -1.0
    name: str = "survived"

    def __post_init__(self) -> None:
        levels = is_number(self.malformed) and is_number(self.out_of_pool)
        check(
            self.name,
            levels and self.malformed <= self.out_of_pool <= 0,
            "malformed <= out_of_pool <= 0",
            malformed=self.malformed,
            out_of_pool=self.out_of_pool,
        )

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return what the document left out earns, or None where it could be any."""
        gold = Gold.of(view, grades)
        if not gold.varied:
            return None
        if not valid(outcome):
            outside = outcome.answer is None and frozenset(outcome.issues) in _OUTSIDE
            return self.out_of_pool if outside else self.malformed
        return 1.0 - _worth(gold.tied(outcome)[-1], gold.top, graded=self.graded)


def _worth(tied: Sequence[int], top: int, *, graded: bool) -> float:
    """Share of documents of grade ``top``, or mean grade as a part of it, in [0, 1]."""
    return fmean(grade / top if graded else float(grade == top) for grade in tied)
