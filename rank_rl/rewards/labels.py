"""Rewards for scores as they are: is the label that of the grade, and how far are scores off.

Orders and picks have no scores, so neither applies to them (None). Both apply whether or not
anything shown is relevant: that nothing is can be said in scores, and a view of one document has a
label though it has no order. ``max`` is the top of the answers' scale and ``grade_max`` the grade
that it stands for; higher ones count as these. A document without a score is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rank_rl.records import Completion, Grades, Outcome, Scores, View
from rank_rl.rewards.base import UpToOne, check, clean, is_count, is_number, payable, valid
from rank_rl.rewards.gold import Gold

Measure = Literal["brier", "absolute", "ece"]
Pair = tuple[float, float]


class _OnScale(UpToOne):
    """A reward that looks at scores as they are, on a scale of its own."""

    __slots__ = ()
    max: float
    grade_max: int

    @property
    def scale(self) -> tuple[float, int]:
        """Top of the scores, and the grade it stands for."""
        return (self.max, self.grade_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAgree(_OnScale):
    """Share of documents whose label is that of their grade, in [0, 1] (ProRank, 2025, 2506.03487).

    Labels are the whole numbers 0 … ``max``; a score between two is rounded. The label of a grade
    is ``max * grade / grade_max``, rounded as the formats' ideal answers are.

    Args:
        max: best label.
        grade_max: grade that calls for it.
        within: how far a label may be from that of the grade.

    Raises:
        RecipeError: values out of range, or ``malformed`` above 0.
    """

    max: int = 1
    grade_max: int = 1
    within: int = 0
    malformed: float = 0.0
    name: str = "label_agree"

    def __post_init__(self) -> None:
        whole = isinstance(self.within, int) and not isinstance(self.within, bool)
        check(
            self.name,
            is_count(self.max)
            and is_count(self.grade_max)
            and (whole and 0 <= self.within < self.max)
            and payable(self.malformed, 0),
            "max >= 1, grade_max >= 1, 0 <= within < max and malformed <= 0",
            max=self.max,
            grade_max=self.grade_max,
            within=self.within,
            malformed=self.malformed,
        )

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the share of right labels, or None for an answer without labels."""
        if not isinstance(outcome.answer, Scores | None):
            return None
        if not valid(outcome) or outcome.answer is None:
            return self.malformed
        given, graded = clean(outcome.answer, view), Gold.of(view, grades).graded
        return fmean(
            given[d] > -math.inf
            and abs(_label(given[d], self.max) - self._wanted(graded[d])) <= self.within
            for d in given
        )

    def _wanted(self, grade: int) -> int:
        return _label(self.max * min(grade, self.grade_max) / self.grade_max, self.max)


def _label(score: float, most: int) -> int:
    """The label nearest to a score, halves up."""
    return int(min(max(score, 0.0), float(most)) + 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(_OnScale):
    """1 less the error of scores against grades, both scaled to 0 … 1, in [0, 1].

    ``brier``: mean squared difference (Brier, 1950). ``absolute``: mean difference. ``ece``:
    expected calibration error over the documents shown (Naeini et al., 2015): they are put into
    ``bins`` of equal width by score, and mean score and mean grade of each are compared. The last
    one alone can be earned by giving every document the share of relevant ones.

    Raises:
        RecipeError: values out of range, or ``malformed`` above 0.
    """

    measure: Measure = "brier"
    max: float = 1.0
    grade_max: int = 1
    bins: int = 10
    malformed: float = 0.0
    name: str = "calibration"

    def __post_init__(self) -> None:
        check(
            self.name,
            self.measure in ("brier", "absolute", "ece")
            and (is_number(self.max) and self.max > 0)
            and is_count(self.grade_max)
            and is_count(self.bins)
            and payable(self.malformed, 0),
            "measure brier, absolute or ece, max > 0, grade_max >= 1, bins >= 1, malformed <= 0",
            measure=self.measure,
            max=self.max,
            grade_max=self.grade_max,
            bins=self.bins,
            malformed=self.malformed,
        )

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return 1 less the error, or None for an answer without scores."""
        if not isinstance(outcome.answer, Scores | None):
            return None
        if not valid(outcome) or outcome.answer is None:
            return self.malformed
        given, graded = clean(outcome.answer, view), Gold.of(view, grades).graded
        wanted = {d: min(g, self.grade_max) / self.grade_max for d, g in graded.items()}
        missing = [d for d, score in given.items() if score == -math.inf]
        pairs = [
            (min(max(given[d] / self.max, 0.0), 1.0), wanted[d]) for d in given if d not in missing
        ]
        error = self._error(pairs) * len(pairs) + len(missing)
        return max(0.0, 1.0 - error / len(given))

    def _error(self, pairs: list[Pair]) -> float:
        """Mean error over the documents that have a score."""
        if self.measure == "brier":
            return _mean((score - grade) ** 2 for score, grade in pairs)
        if self.measure == "absolute":
            return _mean(abs(score - grade) for score, grade in pairs)
        binned: dict[int, list[Pair]] = {}
        for pair in pairs:
            binned.setdefault(min(int(pair[0] * self.bins), self.bins - 1), []).append(pair)
        off = (abs(sum(score - grade for score, grade in same)) for same in binned.values())
        return sum(off) / len(pairs) if pairs else 0.0


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return fmean(known) if known else 0.0
