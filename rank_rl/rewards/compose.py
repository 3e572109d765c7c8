"""Several rewards as one: weights, gates, and the parts kept apart for logging.

A part that does not apply (None) is left out of the sum. A part behind a closed gate pays its low
bound, at most 0, so that a gate never helps: a gain of -1 is not forgiven for a broken format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from rank_rl.errors import RecipeError
from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import Eventful, Reward, is_number
from rank_rl.rewards.gold import Gold


@dataclass(frozen=True, kw_only=True)  # no slots: facts about a part are kept
class Part:
    """One reward of a composite.

    ``gate`` names another reward of the composite; this one pays only while the value of that one
    is at least ``gate_min``. A gate that does not apply is open.
    """

    reward: Reward
    weight: float = 1.0
    gate: str | None = None
    gate_min: float = 0.5

    @cached_property
    def name(self) -> str:
        """Name of the reward."""
        return self.reward.name

    @cached_property
    def eventful(self) -> Eventful | None:
        """The reward, if it can say what was special about a value."""
        return self.reward if isinstance(self.reward, Eventful) else None

    @property
    def closed(self) -> float:
        """What the part pays behind a closed gate."""
        return min(0.0, self.reward.bounds[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A composite's value: ``total`` is the weighted sum of ``parts`` (after gates, unweighted).

    ``events`` name what was special, as ``<reward>_<event>``.
    """

    total: float
    parts: Mapping[str, float | None]
    events: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """Weighted sum of gated rewards.

    Keeps malformed < worse than the input < copy < better whenever ``format`` is one of its parts
    with a weight above 0, because all other rewards pay a malformed text their low bound.

    Raises:
        RecipeError: no reward, a repeated name, an unknown gate, a weight that is negative or not
            a number, or no weight above 0.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names:
            raise RecipeError("no reward", where="rewards", expected="at least one")
        for part in self.parts:
            where = f"reward {part.name!r}"
            if names.count(part.name) > 1:
                raise RecipeError(
                    "named twice", where=where, remedy="give one of them params: {name: …}"
                )
            if part.gate is not None and (part.gate == part.name or part.gate not in names):
                others = ", ".join(n for n in names if n != part.name) or "none here"
                raise RecipeError(
                    f"gate {part.gate!r}", where=where, expected=f"another reward: {others}"
                )
            if not is_number(part.weight) or part.weight < 0:
                raise RecipeError(f"weight {part.weight!r}", where=where, expected="at least 0")
        if not any(part.weight for part in self.parts):
            raise RecipeError("every weight is 0", where="rewards", expected="one above 0")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rewards, in order."""
        return tuple(part.name for part in self.parts)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the rewards, in order."""
        return tuple(part.weight for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest total; a part that does not apply counts 0."""
        low = sum(part.weight * part.closed for part in self.parts)
        high = sum(part.weight * max(0.0, part.reward.bounds[1]) for part in self.parts)
        return (low, high)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> Scored:
        """Return the total and the parts of one answer."""
        gold = Gold.of(view, grades)  # all parts look at the same view and grades
        raw = {p.name: p.reward(outcome, view, gold, completion) for p in self.parts}
        gated = any(p.gate is not None for p in self.parts)
        paid = {p.name: _gated(p, raw) for p in self.parts} if gated else raw
        total = sum([p.weight * (paid[p.name] or 0.0) for p in self.parts])
        events = [
            f"{p.name}_{event}"
            for p in self.parts
            if p.eventful is not None
            for event in p.eventful.events(outcome, view, gold)
        ]
        return Scored(total=total, parts=paid, events=tuple(events))


def _gated(part: Part, raw: Mapping[str, float | None]) -> float | None:
    """A part's value after its gate, which looks at values before any gate."""
    value = raw[part.name]
    key = raw[part.gate] if part.gate is not None else None
    if value is None or key is None or key >= part.gate_min:
        return value
    return part.closed
