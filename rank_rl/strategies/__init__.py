"""Strategies: which views of the candidates are asked, and how outcomes become one ranking."""

from __future__ import annotations

from rank_rl.registry import build
from rank_rl.specs import StrategySpec
from rank_rl.strategies.base import Plan, Strategy

__all__ = ["TABLE", "Plan", "Strategy", "make"]

TABLE: dict[str, str] = {
    "by_score": "rank_rl.strategies.by_score:ByScore",
    "groups": "rank_rl.strategies.groups:Groups",
    "single": "rank_rl.strategies.single:Single",
    "sliding": "rank_rl.strategies.sliding:Sliding",
}


def make(spec: StrategySpec) -> Strategy:
    """Return the strategy that a recipe describes.

    Raises:
        RecipeError: unknown name, unknown parameter or a value out of range.
    """
    strategy: Strategy = build("strategy", spec.name, spec.params, TABLE)
    return strategy
