"""Losses over pairs of documents of a group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rank_rl.losses.group import ScoredGroup, check, check_choice, check_whole
from rank_rl.losses.targets import Judged, Target, check_target, judged, order
from rank_rl.losses.weights import pair_mean

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNet:
    """Logistic loss of every pair with different targets (Burges et al., 2005).

    A group without such a pair contributes 0.

    Raises:
        RecipeError: ``temperature`` below 0.01, or an unknown ``target``.
    """

    temperature: float = 1.0
    target: Target = "auto"

    def __post_init__(self) -> None:
        check("ranknet", "temperature", self.temperature, least=0.01)
        check_target("ranknet", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over pairs."""
        from torch.nn.functional import softplus

        docs = judged(group, "ranknet", self.target)
        leads = (docs.margins / self.temperature)[docs.better]
        return pair_mean(softplus(-leads), docs.better, docs.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Hinge loss of every pair with different targets (Herbrich et al., 2000).

    A pair costs nothing once the better document leads by ``margin``; a group without such a pair
    contributes 0.

    Raises:
        RecipeError: ``margin`` below 0, or an unknown ``target``.
    """

    margin: float = 1.0
    target: Target = "auto"

    def __post_init__(self) -> None:
        check("margin", "margin", self.margin, least=0)
        check_target("margin", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over pairs."""
        docs = judged(group, "margin", self.target)
        lacking = (self.margin - docs.margins[docs.better]).relu()
        return pair_mean(lacking, docs.better, docs.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaLoss:
    """Logistic loss of pairs, weighed by what they are worth in nDCG (Wang et al., 2018).

    With positions i, j in the order of the scores, D(i) = log2(1 + i) and gains G over those of the
    perfect order, a pair costs -w log2 sigmoid(sigma (s_i - s_j)), w = |G_i - G_j| times

    - ``lambdarank``: rho = |1 / D(i) - 1 / D(j)|;
    - ``ndcg_loss2``: delta = 1 / D(|i - j|) - 1 / D(|i - j| + 1);
    - ``ndcg_loss2pp``: rho + ``mu`` delta.

    ``k`` keeps the pairs with a document among the first k, and the perfect order's first k in its
    gain; ``gains`` are the grades (as in this package's nDCG) or 2^grade - 1 (as in the paper).
    Documents of equal score stand worst grade first, then in first-stage order. Only grades say
    what a swap is worth, so a teacher is not asked. Without pairs of different grades it is 0.

    Raises:
        RecipeError: an unknown ``weighing`` or ``gains``, or a number out of range.
    """

    weighing: Literal["lambdarank", "ndcg_loss2", "ndcg_loss2pp"] = "ndcg_loss2pp"
    k: int | None = None
    sigma: float = 1.0
    mu: float = 10.0
    gains: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        name = "lambda_loss"
        check_choice(name, "weighing", self.weighing, ("lambdarank", "ndcg_loss2", "ndcg_loss2pp"))
        check_choice(name, "gains", self.gains, ("linear", "exponential"))
        check(name, "sigma", self.sigma, least=0.01)
        check(name, "mu", self.mu, least=0)
        if self.k is not None:
            check_whole(name, "k", self.k, least=1)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over pairs."""
        from torch.nn.functional import softplus

        docs = judged(group, "lambda_loss", "grades")
        worth, chosen = self._worth(docs)
        chosen &= docs.better
        cost = softplus(-self.sigma * docs.margins[chosen]) / math.log(2)
        return pair_mean(worth[chosen] * cost, chosen, docs.weights)

    def _worth(self, docs: Judged) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, m) worth of each pair in nDCG, and which pairs reach the first k."""
        import torch

        count = len(docs.scores)
        places = torch.arange(1, count + 1, device=docs.scores.device)
        place = torch.empty_like(places)
        place[order(-docs.scores.detach(), docs.values, docs.ranks)] = places
        gain = docs.values if self.gains == "linear" else docs.values.exp2() - 1
        first = places[: self.k]
        ideal = (gain.sort(descending=True).values[: self.k] / (1 + first).log2()).sum()
        gain = gain / ideal.clamp(min=1e-10)

        near = place <= (self.k or count)
        step = (place[:, None] - place[None, :]).abs()
        # 1 / D(0) is infinite; only the diagonal is 0 steps apart.
        apart = step.clamp(min=1).to(gain.dtype)
        delta = 1 / (1 + apart).log2() - 1 / (2 + apart).log2()
        discount = 1 / (1 + place.to(gain.dtype)).log2()
        rho = (discount[:, None] - discount[None, :]).abs()
        scale = {"lambdarank": rho, "ndcg_loss2": delta, "ndcg_loss2pp": rho + self.mu * delta}
        worth = scale[self.weighing] * (gain[:, None] - gain[None, :]).abs()
        return worth, near[:, None] | near[None, :]
