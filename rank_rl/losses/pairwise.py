"""Losses over pairs of documents of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import SlotGroup


def ranknet(group: SlotGroup, *, temperature: float = 1.0) -> torch.Tensor:
    """Logistic loss of every pair with different grades (Burges et al., 2005); mean over pairs.

    A group without such a pair contributes 0.
    """
    from torch.nn.functional import softplus

    better = group.grades[:, None] > group.grades[None, :]
    if not better.any():
        return group.scores.sum() * 0
    difference = (group.scores[:, None] - group.scores[None, :]) / temperature
    return softplus(-difference[better]).mean()
