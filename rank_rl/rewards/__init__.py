"""Rewards: pure, bounded functions of an outcome, its view and the grades; see ``base``."""

from __future__ import annotations

from collections.abc import Sequence

from rank_rl.registry import build
from rank_rl.rewards.base import Reward
from rank_rl.rewards.compose import Composite, Part, Scored
from rank_rl.rewards.teacher import follows, taught
from rank_rl.specs import RewardSpec

__all__ = [
    "TABLE",
    "Composite",
    "Part",
    "Reward",
    "Scored",
    "follows",
    "make",
    "taught",
]

TABLE: dict[str, str] = {
    "agreement": "rank_rl.rewards.agreement:Agreement",
    "calibration": "rank_rl.rewards.labels:Calibration",
    "format": "rank_rl.rewards.shape:FormatReward",
    "kendall": "rank_rl.rewards.pairwise:Kendall",
    "label_agree": "rank_rl.rewards.labels:LabelAgree",
    "length": "rank_rl.rewards.shape:Length",
    "mrr": "rank_rl.rewards.ranking:Mrr",
    "ndcg": "rank_rl.rewards.ranking:Ndcg",
    "ndcg_gain": "rank_rl.rewards.ranking:NdcgGain",
    "overlong": "rank_rl.rewards.overlong:Overlong",
    "pair_agree": "rank_rl.rewards.pairwise:PairAgree",
    "pick_match": "rank_rl.rewards.picks:PickMatch",
    "rbo": "rank_rl.rewards.ranking:Rbo",
    "recall": "rank_rl.rewards.ranking:Recall",
    "score_distribution": "rank_rl.rewards.scores:ScoreDistribution",
    "survived": "rank_rl.rewards.picks:Survived",
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
