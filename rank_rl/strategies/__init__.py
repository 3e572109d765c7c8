"""Strategies: which views of the candidates are asked, and how outcomes become one ranking."""

from __future__ import annotations

import inspect

from rank_rl.registry import build, resolve
from rank_rl.specs import StrategySpec
from rank_rl.strategies.base import Plan, Strategy

__all__ = ["TABLE", "Plan", "Strategy", "make"]

TABLE: dict[str, str] = {
    "by_score": "rank_rl.strategies.by_score:ByScore",
    "elimination": "rank_rl.strategies.elimination:Elimination",
    "groups": "rank_rl.strategies.groups:Groups",
    "pairs": "rank_rl.strategies.pairs:Pairs",
    "refine": "rank_rl.strategies.refine:Refine",
    "repeated": "rank_rl.strategies.repeated:Repeated",
    "setwise": "rank_rl.strategies.setwise:Setwise",
    "single": "rank_rl.strategies.single:Single",
    "sliding": "rank_rl.strategies.sliding:Sliding",
    "tournament": "rank_rl.strategies.tournament:Tournament",
}


def make(spec: StrategySpec, *, seed: int | None = None) -> Strategy:
    """Return the strategy that a recipe describes.

    Args:
        spec: its name and parameters.
        seed: run seed, for a strategy with a parameter ``seed`` that the recipe does not set.

    Raises:
        RecipeError: unknown name, unknown parameter or a value out of range.
    """
    params = dict(spec.params)
    if seed is not None:
        made_by = resolve("strategy", spec.name, TABLE)
        if "seed" in inspect.signature(made_by).parameters:
            params.setdefault("seed", seed)
    strategy: Strategy = build("strategy", spec.name, params, TABLE)
    return strategy
