"""The grades of one view, with what every reward asks of them worked out once.

A ``Gold`` is an ordinary mapping of grades, so that any reward can be called with one; rewards of
this package ask ``Gold.of`` for it and find the work of the answers before, and of the rewards
before them, done. It holds for one view and must not be changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from rank_rl import metrics
from rank_rl.records import Grades, Order, Outcome, Pick, Scores, View
from rank_rl.rewards.base import share, tiers


class Gold(dict[str, int]):
    """Grades by docid, bound to a view.

    Attributes:
        view: the view they are about.
        graded: grade of every document shown, as ``View.grades`` gives it.
    """

    def __init__(self, view: View, grades: Grades) -> None:
        super().__init__(grades)
        self.view = view
        self.graded = view.grades(grades)
        self._ideal: dict[int, float] = {}
        self._shown: dict[int, float] = {}
        # The last outcome is held, so that no other object can be taken for it.
        self._outcome: Outcome | None = None
        self._order: tuple[str, ...] = ()
        self._tiers: list[list[int]] = []
        self._quality: dict[int, float] = {}

    @classmethod
    def of(cls, view: View, grades: Grades) -> Gold:
        """The grades as they are if they are bound to this very view, else bound to it."""
        if isinstance(grades, Gold) and grades.view is view:
            return grades
        return cls(view, grades)

    @cached_property
    def found(self) -> int:
        """Number of relevant documents shown."""
        return sum(g > 0 for g in self.graded.values())

    @cached_property
    def top(self) -> int:
        """Highest grade shown."""
        return max(self.graded.values())

    @cached_property
    def varied(self) -> bool:
        """Whether two documents shown differ in grade."""
        return min(self.graded.values()) < self.top

    @cached_property
    def best(self) -> tuple[str, ...]:
        """The best order of the documents shown; equal grades stand in first-stage order."""
        return tuple(sorted(self.view.by_first_stage(), key=lambda d: -self.graded[d]))

    @cached_property
    def shares(self) -> dict[str, float]:
        """The grades as parts of their sum."""
        return share({d: float(g) for d, g in self.graded.items()})

    def ideal_dcg(self, k: int) -> float:
        """DCG@k of the best order."""
        if k not in self._ideal:
            gains = sorted((g for g in self.graded.values() if g > 0), reverse=True)
            self._ideal[k] = metrics.dcg(gains, k)
        return self._ideal[k]

    def shown_ndcg(self, k: int) -> float:
        """nDCG@k of the order shown."""
        if k not in self._shown:
            self._shown[k] = self.ndcg(self.view.docids, k)
        return self._shown[k]

    def ndcg(self, order: Sequence[str], k: int) -> float:
        """nDCG@k of an order of the documents shown, each once; 0 where nothing is relevant."""
        ideal = self.ideal_dcg(k)
        return metrics.dcg([self.graded[d] for d in order[:k]], k) / ideal if ideal else 0.0

    def order(self, outcome: Outcome) -> tuple[str, ...]:
        """The total order that an outcome says, see ``Outcome.as_order``."""
        self._turn_to(outcome)
        if not self._order:
            self._order = outcome.as_order(self.view)
        return self._order

    def quality(self, outcome: Outcome, k: int) -> float:
        """nDCG@k of an outcome, expected over tied scores (McSherry, Najork, 2008)."""
        self._turn_to(outcome)
        if k not in self._quality:
            self._quality[k] = self._measured(outcome, k)
        return self._quality[k]

    def recalled(self, outcome: Outcome, k: int) -> float:
        """Relevant documents within the first ``k``; a tie counts by the share of it that fits."""
        if isinstance(outcome.answer, Order):
            return float(sum([self.graded[d] > 0 for d in self.order(outcome)[:k]]))
        found, room = 0.0, k
        for tier in self.tied(outcome):
            if not room:
                break
            fits = min(room, len(tier))
            found += sum([g > 0 for g in tier]) * fits / len(tier)
            room -= fits
        return found

    def tied(self, outcome: Outcome) -> list[list[int]]:
        """Grades of the documents shown, best first, those of tied documents together."""
        self._turn_to(outcome)
        if not self._tiers and isinstance(outcome.answer, Scores):
            tied: dict[float, list[int]] = {}
            scores = self._scores(outcome.answer)
            for score, grade in zip(scores, self.graded.values(), strict=True):
                if score in tied:
                    tied[score].append(grade)
                else:
                    tied[score] = [grade]
            self._tiers = [tied[score] for score in sorted(tied, reverse=True)]
        elif not self._tiers:
            ranked = tiers(outcome, self.view)
            self._tiers = [[self.graded[d] for d in tier] for tier in ranked]
        return self._tiers

    def _scores(self, answer: Scores) -> list[float]:
        """Score of each document shown; missing and NaN ones come last, as in ``clean``."""
        given, last = answer.values, -math.inf
        found = [given.get(docid, last) for docid in self.graded]
        # Of all numbers only NaN differs from itself, and a sum of finite ones and -inf is none.
        total = sum(found)
        return found if total == total else [s if s == s else last for s in found]

    def _measured(self, outcome: Outcome, k: int) -> float:
        if not isinstance(outcome.answer, Scores | Pick):
            return self.ndcg(self.order(outcome), k)
        ideal = self.ideal_dcg(k)
        gains = metrics.expected_gains(self.tied(outcome), k)
        return min(1.0, metrics.dcg(gains, k) / ideal) if ideal else 0.0

    def _turn_to(self, outcome: Outcome) -> None:
        if outcome is not self._outcome:
            self._outcome, self._order, self._tiers, self._quality = outcome, (), [], {}
