"""Losses over the whole group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.losses.group import ScoredGroup, check

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNet:
    """Cross-entropy of softmax(scores / temperature) with the grades' shares (Cao et al., 2007).

    A group without a relevant document has no target distribution and contributes 0.

    Raises:
        RecipeError: ``temperature`` below 0.01.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check("listnet", "temperature", self.temperature, least=0.01)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Cross-entropy in nats; its least value is the entropy of the grades' shares."""
        share = group.grades / group.grades.sum().clamp(min=1)
        return -(share * (group.scores / self.temperature).log_softmax(0)).sum()
