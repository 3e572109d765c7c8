"""What the weights of documents do to a loss: one rule for each kind of loss.

- A term of one document is multiplied by its weight (bce, label_ce, lm, list_mle, adr_mse; info_nce
  by that of the relevant document).
- A term of a pair by the mean of the two weights (margin, margin_mse, ranknet, lambda_loss). A
  curriculum weighs the relevant document D and the other 1 - D, so the mean is the difficulty of
  the pair (MacAvaney et al., 2020).
- A loss that does not fall into such terms by the mean weight of its documents (listnet, kl,
  rank_list, tsp_margin).

Nothing is divided by the sum of the weights: a group of difficult documents counts for less. So
every loss is proportional to the weights, and weights of 1 change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def weigh(terms: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Terms (n,) of one document each, times its weight."""
    return terms if weights is None else terms * weights


def pair_weights(weights: torch.Tensor) -> torch.Tensor:
    """(n, n) weights of pairs: the mean of those of the two documents."""
    return (weights[:, None] + weights[None, :]) / 2


def pair_mean(
    terms: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Weighted mean over pairs; 0 where there are none.

    Args:
        terms: (p,) one of each chosen pair, in the order of ``chosen``.
        chosen: (n, n) which pairs these are, p in all.
        weights: (n,) weights of the documents.
    """
    if weights is not None:
        terms = terms * pair_weights(weights)[chosen]
    # A sum over no pairs is 0 with a gradient of 0, its mean would be NaN.
    return terms.sum() / chosen.sum().clamp(min=1)


def weigh_group(loss: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """A loss of the whole group, times the mean weight of its documents."""
    return loss if weights is None or not len(weights) else loss * weights.mean()
