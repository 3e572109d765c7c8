"""Losses over the whole group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import SlotGroup


def listnet(group: SlotGroup, *, temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy between softmax(scores / temperature) and the grades' shares (Cao et al., 2007).

    A group without a relevant document has no target distribution and contributes 0.
    """
    total = group.grades.sum()
    if total <= 0:
        return group.scores.sum() * 0
    share = group.grades / total
    return -(share * (group.scores / temperature).log_softmax(0)).sum()
