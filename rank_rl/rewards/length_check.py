"""Whether the length of an answer can outweigh how well it ranks; used by ``lint``.

``lint`` pays all answers at one length, which hides what rewards for length do: a group's answers
have many lengths. So each valid answer is also paid at no tokens at all and at very many, and every
better answer at its worst length is held against each worse one at its best. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rank_rl.records import Grades, View
from rank_rl.rewards.adversaries import Answered
from rank_rl.rewards.compose import Composite, Part

EPSILON = 1e-6
# Lengths in completion tokens; the longer one is beyond every bound that a recipe could name.
LENGTHS = (0, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """What one answer earns by its length alone.

    Attributes:
        low: the least total over ``LENGTHS``.
        high: the greatest.
        parts: names of the rewards that pay the lengths differently, whatever their gates.
    """

    low: float
    high: float
    parts: frozenset[str]


class PaidAnswer(Protocol):
    """An answer, what it earns where all have the same length, and what its length can change."""

    @property
    def answered(self) -> Answered:
        """The answer."""
        ...

    @property
    def total(self) -> float:
        """What it earns."""
        ...

    @property
    def lengths(self) -> Lengths:
        """What it earns at other lengths."""
        ...


def lengths(composite: Composite, view: View, grades: Grades, answered: Answered) -> Lengths:
    """Pay one answer to one view at both ends of ``LENGTHS``."""
    said = [replace(answered.completion, completion_tokens=n) for n in LENGTHS]
    totals = [composite(answered.outcome, view, grades, c).total for c in said]
    if abs(totals[0] - totals[1]) <= EPSILON:
        return Lengths(low=min(totals), high=max(totals), parts=frozenset())
    names = {
        p.name
        for p in composite.parts
        if len({p.reward(answered.outcome, view, grades, c) for c in said}) > 1
    }
    return Lengths(low=min(totals), high=max(totals), parts=frozenset(names))


def outweighed(
    composite: Composite, pairs: Sequence[tuple[PaidAnswer, PaidAnswer]]
) -> Iterable[str]:
    """A warning where length can turn the order of some answers round, else nothing.

    Args:
        composite: the rewards.
        pairs: a worse and a better valid answer to the same view.
    """
    gains = [(high.total - low.total, low, high) for low, high in pairs]
    # What earns no more at the same length is for the other checks to judge.
    real = [(gain, low, high) for gain, low, high in gains if gain > EPSILON]
    turned = [x for x in real if x[2].lengths.low < x[1].lengths.high - EPSILON]
    if turned:
        yield from _line(composite, turned, len(real))


def _line(
    composite: Composite, turned: Sequence[tuple[float, PaidAnswer, PaidAnswer]], of: int
) -> Iterator[str]:
    gain, low, high = max(turned, key=lambda x: x[0])
    least = min(turned, key=lambda x: x[0])
    names = sorted({n for _, a, b in turned for n in a.lengths.parts | b.lengths.parts})
    parts = [p for p in composite.parts if p.name in names]
    told = " and ".join(f"{p.name!r} (weight {p.weight:g})" for p in parts)
    spread = low.lengths.high - high.lengths.low + gain
    verb = "pays" if len(parts) == 1 else "pay"
    yield (
        f"{told} {verb} for length up to {spread:.3f}, which can outweigh a gain of {gain:.3f} "
        f"({high.answered.name!r} instead of {low.answered.name!r}): in {len(turned)} of {of} "
        "comparisons a better answer of another length can earn less than a worse one; "
        f"{_remedy(composite, parts, least)}"
    )


def _remedy(
    composite: Composite, parts: Sequence[Part], least: tuple[float, PaidAnswer, PaidAnswer]
) -> str:
    """What keeps even the smallest gain above what length pays."""
    names = {p.name for p in parts}
    gated = [p.name for p in composite.parts if p.gate in names]
    if gated:
        return f"leave out the gate of {gated[0]!r}"
    gain, low, high = least
    factor = gain / (low.lengths.high - high.lengths.low + gain)
    below = " and ".join(f"{p.name!r} below {p.weight * factor:.2g}" for p in parts)
    return f"the smallest gain ({gain:.3f}) needs the weight of {below}"
