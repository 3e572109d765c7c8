"""Losses that look at one document at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import SlotGroup


def bce(group: SlotGroup) -> torch.Tensor:
    """Binary cross-entropy of the score against relevant (grade above 0) or not; mean over n."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(group.scores, (group.grades > 0).float())


def label_ce(group: SlotGroup, *, vocabulary: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the label that the grade calls for; mean over n.

    Args:
        group: one group.
        vocabulary: weight of the cross-entropy for saying any label at all instead of some other
            word, so that greedy decoding stays within the labels.
    """
    from torch.nn.functional import cross_entropy

    loss = cross_entropy(group.logits, group.targets)
    if vocabulary:
        # log p(any label) = log(1 - p(others)); expm1 keeps it exact near 0.
        loss = loss - vocabulary * (-(group.others.clamp(max=-1e-6)).expm1()).log().mean()
    return loss
