"""Several rewards as one: weights, gates, and the parts kept apart for logging.

A part that does not apply (None) is left out of the sum. A part behind a closed gate pays its low
bound, at most 0, so that a gate never helps: a gain of -1 is not forgiven for a broken format.
A reward that needs the other answers of a group (``base.GroupReward``) is worked out by ``among``;
without them it does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from rank_rl.errors import RecipeError
from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import Absolute, Eventful, GroupReward, Reward, is_number
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

    @cached_property
    def grouped(self) -> GroupReward | None:
        """The reward, if it looks at the other answers of a group."""
        return self.reward if isinstance(self.reward, GroupReward) else None

    @property
    def closed(self) -> float:
        """What the part pays behind a closed gate."""
        return min(0.0, self.reward.bounds[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A composite's value: ``total`` is the weighted sum of ``parts`` (after gates, unweighted).

    ``events`` name what was special, as ``<reward>_<event>``; ``raw`` are the parts before gates.
    """

    total: float
    parts: Mapping[str, float | None]
    events: tuple[str, ...] = field(default=())
    raw: Mapping[str, float | None] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)  # no slots: facts about its parts are kept
class Composite:
    """Weighted sum of gated rewards.

    Keeps malformed < worse than the input < copy < better whenever ``format`` is one of its parts
    with a weight above 0, because all other rewards pay a malformed text their low bound.

    Raises:
        RecipeError: no reward, a repeated name, an unknown gate, a weight that is negative or not
            a number, no weight above 0, or only those of rewards for agreeing with one's group.
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
        if all(part.grouped for part in self.parts if part.weight):
            raise RecipeError(
                "answers are paid for agreeing with one another alone, which any fixed rule does",
                where="rewards",
                expected="a reward for being right as well, such as ndcg",
            )

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

    @cached_property
    def grouped(self) -> tuple[Part, ...]:
        """The parts that look at the other answers of a group."""
        return tuple(part for part in self.parts if part.grouped)

    def among(
        self, outcomes: Sequence[Outcome], views: Sequence[View], grades: Grades
    ) -> list[dict[str, float | None]]:
        """What each answer of a group earns beside the others, by part; for ``beside``."""
        found: list[dict[str, float | None]] = [{} for _ in outcomes]
        for part in self.grouped:
            assert part.grouped is not None
            values = part.grouped.among(outcomes, views, grades)
            for own, value in zip(found, values, strict=True):
                own[part.name] = value
        return found

    @cached_property
    def absolute(self) -> tuple[Part, ...]:
        """The parts that look at scores as they are, not at the order they say."""
        return tuple(part for part in self.parts if isinstance(part.reward, Absolute))

    @cached_property
    def ordering(self) -> Composite:
        """The composite without its ``absolute`` parts, if anything else has a weight."""
        kept = [part for part in self.parts if part not in self.absolute]
        names = {part.name for part in kept}
        if len(kept) == len(self.parts) or not any(part.weight for part in kept):
            return self
        free = (p if p.gate in names else replace(p, gate=None) for p in kept)
        return Composite(parts=tuple(free))

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> Scored:
        """Return the total and the parts of one answer."""
        gold = Gold.of(view, grades)  # all parts look at the same view and grades
        raw = {p.name: p.reward(outcome, view, gold, completion) for p in self.parts}
        events = [
            f"{p.name}_{event}"
            for p in self.parts
            if p.eventful is not None
            for event in p.eventful.events(outcome, view, gold)
        ]
        return self._scored(raw, tuple(events))

    def beside(self, scored: Scored, among: Mapping[str, float | None]) -> Scored:
        """A value with what its answer earns beside the others of its group, see ``among``."""
        return self._scored({**scored.raw, **among}, scored.events)

    def _scored(self, raw: Mapping[str, float | None], events: tuple[str, ...]) -> Scored:
        """Gates and weights."""
        gated = any(p.gate is not None for p in self.parts)
        paid = {p.name: _gated(p, raw) for p in self.parts} if gated else raw
        total = sum([p.weight * (paid[p.name] or 0.0) for p in self.parts])
        return Scored(total=total, parts=paid, events=events, raw=raw)


def _gated(part: Part, raw: Mapping[str, float | None]) -> float | None:
    """A part's value after its gate, which looks at values before any gate."""
    value = raw[part.name]
    key = raw[part.gate] if part.gate is not None else None
    if value is None or key is None or key >= part.gate_min:
        return value
    return part.closed
