"""Losses over the whole group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rank_rl.losses.group import ScoredGroup, check, check_choice, check_whole, need
from rank_rl.losses.targets import Target, check_target, judged, levels, mean_ranks, order
from rank_rl.losses.weights import weigh, weigh_group

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNet:
    """Cross-entropy of softmax(scores / temperature) with the target's shares (Cao et al., 2007).

    The shares are the grades over their sum, or softmax(teacher / teacher_temperature). A group
    without a relevant document has no target distribution by grades and contributes 0.

    Raises:
        RecipeError: a temperature below 0.01, or an unknown ``target``.
    """

    temperature: float = 1.0
    target: Target = "auto"
    teacher_temperature: float = 1.0

    def __post_init__(self) -> None:
        check("listnet", "temperature", self.temperature, least=0.01)
        check("listnet", "teacher_temperature", self.teacher_temperature, least=0.01)
        check_target("listnet", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Cross-entropy in nats; its least value is the entropy of the target's shares."""
        docs = judged(group, "listnet", self.target)
        if docs.by_teacher:
            share = (docs.values / self.teacher_temperature).softmax(0)
        else:
            share = docs.values / docs.values.sum().clamp(min=1)
        loss = -(share * (docs.scores / self.temperature).log_softmax(0)).sum()
        return weigh_group(loss, docs.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMle:
    """Negative log-likelihood of the target's order, drawn best first (Xia et al., 2008).

    A term -log(e^{s_i} / sum_j e^{s_j}) for each document i, j over i and all that do not stand
    above it. Ties: with ``levels`` tied documents are drawn against each other and all below, and
    the lowest level, which nothing is below, has no terms: without ties this is the paper's loss,
    and a group with one level contributes 0. With ``ranks`` the first-stage order breaks ties.
    ``discount: exponential`` weighs rank i of n by 2^(n - i) - 1, weights that sum to 1 (Lan et
    al., 2014: p-ListMLE).

    Raises:
        RecipeError: an unknown ``target``, ``ties`` or ``discount``.
    """

    target: Target = "auto"
    ties: Literal["levels", "ranks"] = "levels"
    discount: Literal["none", "exponential"] = "none"

    def __post_init__(self) -> None:
        check_target("list_mle", self.target)
        check_choice("list_mle", "ties", self.ties, ("levels", "ranks"))
        check_choice("list_mle", "discount", self.discount, ("none", "exponential"))

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Sum over documents, in nats.

        Raises:
            RecipeError: ``ties`` is ``ranks`` and the group has no first-stage ranks.
        """
        import torch

        if self.ties == "ranks":
            need(group, "list_mle", "ranks", "candidates with first-stage ranks, or ties: levels")
        docs = judged(group, "list_mle", self.target)
        values = docs.values
        if not len(values):
            return docs.nothing()
        if self.ties == "ranks":
            values = torch.empty_like(values)
            values[order(-docs.values, docs.ranks)] = -torch.arange(
                float(len(values)), device=values.device, dtype=values.dtype
            )
        below = values[None, :] <= values[:, None]
        rest = docs.scores[None, :].masked_fill(~below, -torch.inf).logsumexp(1)
        terms = (rest - docs.scores) * (values > values.min())
        if self.discount == "exponential":
            # 2^(n - i) overflows; divided by 2^n it does not, and the sum takes care of the rest.
            rank, count = mean_ranks(values), len(values)
            share = ((-rank).exp2() - 2.0**-count) * (values > values.min())
            terms = terms * share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        return weigh(terms, docs.weights).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdrMse:
    """Squared difference of smooth ranks and target ranks (Schlatt et al., 2024: Rank-DistiLLM).

    mean_i (r_i - t_i)^2 / log2(t_i + 1), with r_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T) and
    t_i the rank from 1 by the target; tied documents share their mean rank. A group with one level
    contributes 0.

    Raises:
        RecipeError: ``temperature`` below 0.01, or an unknown ``target``.
    """

    temperature: float = 1.0
    target: Target = "auto"

    def __post_init__(self) -> None:
        check("adr_mse", "temperature", self.temperature, least=0.01)
        check_target("adr_mse", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over documents, in squared ranks."""
        docs = judged(group, "adr_mse", self.target)
        if not docs.better.any():
            return docs.nothing()
        wanted = mean_ranks(docs.values)
        # A document's own sigmoid is 1/2, so 1 + the sum over the others is 1/2 + the sum over all.
        smooth = 0.5 + (docs.margins / self.temperature).sigmoid().sum(0)
        terms = (smooth - wanted).square() / (wanted + 1).log2()
        return weigh(terms, docs.weights).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class RankList:
    """RankNet over lists: neighbours and documents d places apart (Naini et al., 2025: RankList).

    For each distance d = 1 ... ``skip``: log(1 + sum exp((s_j - s_i) / T)) over the pairs in which
    j should stand d places below i. That is the sum of RankNet's log(1 + exp) over these pairs, the
    log of a product, without the product's mixed terms. The loss is the mean over the distances
    that a group has, each weighing ``decay`` times the one before; the paper adds distances while
    training goes on, and may weigh them otherwise. Tied documents share a place, so that binary
    grades compare every relevant document with every other. A group with one level contributes 0.

    Raises:
        RecipeError: ``skip`` not a whole number from 1, ``decay`` below 0, ``temperature`` below
            0.01, or an unknown ``target``.
    """

    skip: int = 3
    decay: float = 0.5
    temperature: float = 1.0
    target: Target = "auto"

    def __post_init__(self) -> None:
        check_whole("rank_list", "skip", self.skip, least=1)
        check("rank_list", "decay", self.decay, least=0)
        check("rank_list", "temperature", self.temperature, least=0.01)
        check_target("rank_list", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Weighted mean over distances, in nats."""
        docs = judged(group, "rank_list", self.target)
        place = levels(docs.values)
        apart = place[None, :] - place[:, None]
        wrong = -docs.margins / self.temperature
        total, weight = docs.nothing(), 0.0
        for distance in range(1, self.skip + 1):
            pairs = wrong[apart == distance]
            if len(pairs):
                total = total + self.decay ** (distance - 1) * _softplus_of_sum(pairs)
                weight += self.decay ** (distance - 1)
        return weigh_group(total / (weight or 1.0), docs.weights)


def _softplus_of_sum(values: torch.Tensor) -> torch.Tensor:
    """log(1 + sum exp(values)), without overflow."""
    from torch.nn.functional import softplus

    return softplus(values.logsumexp(0))
