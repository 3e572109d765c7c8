"""What every reward shares: its protocol, what counts as valid, and tiers of tied documents.

A reward is a pure, bounded function. Whether it applies (a number) or not (None) depends on the
view and its grades, or on the kind of answer, never on how good the answer is. Only a text that
kept every rule of its format is paid for its content: any other earns the reward's low bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from rank_rl.errors import RecipeError
from rank_rl.records import Completion, Grades, Order, Outcome, Pick, Scores, View


class Reward(Protocol):
    """A pure, bounded function of what a model answered."""

    @property
    def name(self) -> str:
        """Unique within a composite; metrics and gates use it."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value."""
        ...

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Value within ``bounds``, or None where the reward does not apply."""
        ...


class UpToOne:
    """Bounds of a reward that pays a malformed text ``malformed`` and the best answer 1."""

    __slots__ = ()
    malformed: float

    @property
    def bounds(self) -> tuple[float, float]:
        """``malformed`` to 1."""
        return (self.malformed, 1.0)


@runtime_checkable
class Eventful(Protocol):
    """A reward that can say what was special about a value (clipped, undefined), for counting."""

    def events(self, outcome: Outcome, view: View, grades: Grades) -> tuple[str, ...]:
        """Names of what happened; empty when nothing did."""
        ...


@runtime_checkable
class GroupReward(Reward, Protocol):
    """A reward of an answer beside the other answers of its group.

    Called with one answer, as every reward, it does not apply (None).
    """

    def among(
        self, outcomes: Sequence[Outcome], views: Sequence[View], grades: Grades
    ) -> list[float | None]:
        """What each answer of a group earns.

        Args:
            outcomes: of the answers to one prompt.
            views: what each was shown: the same documents, in one order or in several.
            grades: of those documents.
        """
        ...


@runtime_checkable
class Absolute(Protocol):
    """A reward of scores as they are, which an order alone does not decide."""

    @property
    def scale(self) -> tuple[float, int]:
        """Top of the scores, and the grade that it stands for."""
        ...


def valid(outcome: Outcome) -> bool:
    """Whether an outcome is paid for its content: its text kept every rule and says something."""
    if outcome.status != "ok":
        return False
    if isinstance(outcome.answer, Order):
        return bool(outcome.answer.docids)
    if isinstance(outcome.answer, Pick):
        return True
    return isinstance(outcome.answer, Scores) and bool(outcome.answer.values)


def relevant(view: View, grades: Grades) -> bool:
    """Whether any document shown is relevant; if not, no order is better than another."""
    return any(view.grades(grades).values())


def clean(answer: Scores, view: View) -> dict[str, float]:
    """A score for every document shown and no other; missing and NaN scores come last."""
    given = answer.values
    values = {d: float(given[d]) if d in given else -math.inf for d in view.docids}
    # Of all numbers only NaN differs from itself.
    return {d: v if v == v else -math.inf for d, v in values.items()}


def tiers(outcome: Outcome, view: View) -> list[list[str]]:
    """The documents shown, best first, tied ones together; an order has one document a tier.

    A pick leaves all other documents tied.
    """
    if isinstance(outcome.answer, Pick) and outcome.answer.docid in view.docids:
        others = [d for d in view.by_first_stage() if d != outcome.answer.docid]
        both = (
            [others, [outcome.answer.docid]]
            if outcome.answer.worst
            else [[outcome.answer.docid], others]
        )
        return [tier for tier in both if tier]
    if not isinstance(outcome.answer, Scores):
        return [[d] for d in outcome.as_order(view)]
    tied: dict[float, list[str]] = {}
    for docid, score in clean(outcome.answer, view).items():
        tied.setdefault(score, []).append(docid)
    return [tied[score] for score in sorted(tied, reverse=True)]


def check(reward: str, passed: bool, expected: str, /, **values: object) -> None:
    """Refuse parameters of a reward unless they ``passed``.

    Raises:
        RecipeError: naming the reward, its parameters and what was expected.
    """
    if not passed:
        given = ", ".join(f"{name} {value!r}" for name, value in values.items())
        raise RecipeError(given, where=f"reward {reward!r}", expected=expected)


def is_count(value: object) -> bool:
    """Whether a parameter is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    """Whether a parameter is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def payable(malformed: object, low: float) -> bool:
    """Whether what a malformed text earns is a number no greater than a reward's ``low``."""
    return isinstance(malformed, int | float) and is_number(malformed) and malformed <= low


def share(ratings: Mapping[str, float]) -> dict[str, float]:
    """Ratings as parts of their sum; negative ones count 0, an all-zero rating stays all-zero."""
    kept = {d: max(0.0, v) for d, v in ratings.items()}
    total = sum(kept.values())
    return {d: v / total for d, v in kept.items()} if total > 0 else kept
