"""Rewards: pure, bounded functions of an outcome, its view and the grades; see ``base``."""

from __future__ import annotations

from collections.abc import Sequence

from rank_rl.registry import build
from rank_rl.rewards.base import Reward
from rank_rl.rewards.compose import Composite, Part, Scored
from rank_rl.specs import RewardSpec

__all__ = ["TABLE", "Composite", "Part", "Reward", "Scored", "make"]

TABLE: dict[str, str] = {
    "format": "rank_rl.rewards.shape:FormatReward",
    "length": "rank_rl.rewards.shape:Length",
    "ndcg": "rank_rl.rewards.ranking:Ndcg",
    "ndcg_gain": "rank_rl.rewards.ranking:NdcgGain",
    "overlong": "rank_rl.rewards.overlong:Overlong",
    "rbo": "rank_rl.rewards.ranking:Rbo",
    "recall": "rank_rl.rewards.ranking:Recall",
    "score_distribution": "rank_rl.rewards.scores:ScoreDistribution",
}


def make(specs: Sequence[RewardSpec]) -> Composite:
    """Return the composite that the ``rewards`` section of a recipe describes.

    Raises:
        RecipeError: unknown name, unknown parameter, a value out of range, a repeated name or an
            unknown gate.
    """
    return Composite(
        parts=tuple(
            Part(reward=one(spec), weight=spec.weight, gate=spec.gate, gate_min=spec.gate_min)
            for spec in specs
        )
    )


def one(spec: RewardSpec) -> Reward:
    """Return a single reward by its spec.

    Raises:
        RecipeError: unknown name, unknown parameter or a value out of range.
    """
    reward: Reward = build("reward", spec.name, spec.params, TABLE)
    return reward
