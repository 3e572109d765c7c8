"""Losses of the ``score`` stage: functions of one group's scores, grades and what else it has.

``make`` turns the ``losses`` section of a recipe into one weighted sum. Ranking metrics as rewards
are in ``rank_rl.rewards``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rank_rl.errors import RecipeError
from rank_rl.losses.group import Loss
from rank_rl.registry import build
from rank_rl.rewards.base import is_number
from rank_rl.specs import LossSpec

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import ScoredGroup

__all__ = ["TABLE", "Loss", "make", "one"]

TABLE: dict[str, str] = {
    "adr_mse": "rank_rl.losses.listwise:AdrMse",
    "bce": "rank_rl.losses.pointwise:Bce",
    "info_nce": "rank_rl.losses.contrastive:InfoNce",
    "kl": "rank_rl.losses.distil:Kl",
    "label_ce": "rank_rl.losses.pointwise:LabelCe",
    "lambda_loss": "rank_rl.losses.pairwise:LambdaLoss",
    "list_mle": "rank_rl.losses.listwise:ListMle",
    "listnet": "rank_rl.losses.listwise:ListNet",
    "lm": "rank_rl.losses.pointwise:Lm",
    "margin": "rank_rl.losses.pairwise:Margin",
    "margin_mse": "rank_rl.losses.distil:MarginMse",
    "rank_list": "rank_rl.losses.listwise:RankList",
    "ranknet": "rank_rl.losses.pairwise:RankNet",
    "tsp_margin": "rank_rl.losses.paths:TspMargin",
}


def make(specs: Sequence[LossSpec]) -> Loss:
    """Return the weighted sum of the losses named in a recipe.

    Raises:
        RecipeError: none given, no weight above 0, an unknown name or parameter, or a value out of
            range.
    """
    if not specs:
        raise RecipeError("no loss", where="losses", expected=f"some of {', '.join(TABLE)}")
    parts = [(spec.weight, one(spec)) for spec in specs]
    if not any(weight for weight, _ in parts):
        raise RecipeError("every weight is 0", where="losses", expected="one above 0")

    def total(group: ScoredGroup) -> torch.Tensor:
        first, *rest = (weight * loss(group) for weight, loss in parts)
        return sum(rest, start=first)

    return total


def one(spec: LossSpec) -> Loss:
    """Return a single loss by its spec, without its weight.

    Raises:
        RecipeError: an unknown name or parameter, or a value out of range.
    """
    if not is_number(spec.weight) or spec.weight < 0:
        where = f"loss {spec.name!r}"
        raise RecipeError(f"weight {spec.weight!r}", where=where, expected="at least 0")
    loss: Loss = build("loss", spec.name, spec.params, TABLE)
    return loss
