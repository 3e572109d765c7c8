"""Plans that run side by side, and strategies that a recipe puts inside another one."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from rank_rl.errors import RecipeError
from rank_rl.records import Outcome, View
from rank_rl.specs import StrategySpec
from rank_rl.strategies import make
from rank_rl.strategies.base import Strategy

T = TypeVar("T")
Step: TypeAlias = Generator[list[View], list[Outcome], T]


def together(steps: Sequence[Step[T]]) -> Step[list[T]]:
    """Run several plans, or parts of one, in lockstep: as deep as the deepest of them.

    Yields in one batch what all of them ask, hands each its own outcomes and returns what each
    returned, in their order.
    """
    returned: dict[int, T] = {}
    asking: dict[int, list[View]] = {}

    def advance(i: int, outcomes: list[Outcome] | None) -> None:
        try:
            views = next(steps[i]) if outcomes is None else steps[i].send(outcomes)
            while not views:  # Nothing to ask must not hold the others up.
                views = steps[i].send([])
            asking[i] = views
        except StopIteration as stop:
            asking.pop(i, None)
            returned[i] = stop.value

    for i in range(len(steps)):
        advance(i, None)
    while asking:
        outcomes = iter((yield [view for views in asking.values() for view in views]))
        for i, views in list(asking.items()):
            advance(i, list(islice(outcomes, len(views))))
    return [returned[i] for i in range(len(steps))]


def inner(given: StrategySpec | Mapping[str, Any], *, holder: str, seed: int) -> Strategy:
    """The strategy that a recipe gives as ``{name, params}`` to another one.

    Args:
        given: its name and parameters.
        holder: name of the strategy that holds it, for messages.
        seed: for a parameter ``seed`` that the recipe does not set.

    Raises:
        RecipeError: no such mapping, or as ``strategies.make``.
    """
    if isinstance(given, StrategySpec):
        return make(given, seed=seed)
    known = isinstance(given, Mapping) and "name" in given and set(given) <= {"name", "params"}
    params = (given.get("params") or {}) if known else None
    if not known or not isinstance(given["name"], str) or not isinstance(params, Mapping):
        raise RecipeError(
            f"the inner strategy is {given!r}",
            where=f"strategy {holder!r}",
            expected="a mapping with name and, if any, params",
        )
    return make(StrategySpec(name=given["name"], params=dict(params)), seed=seed)


def costs_fixed(strategies: Sequence[Strategy]) -> bool:
    """Whether all of them ask the same number of questions whatever is answered."""
    return all(getattr(strategy, "fixed_cost", False) for strategy in strategies)
