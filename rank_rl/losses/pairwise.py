"""Losses over pairs of documents of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.losses.group import ScoredGroup, check

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNet:
    """Logistic loss of every pair with different grades (Burges et al., 2005).

    A group without such a pair contributes 0.

    Raises:
        RecipeError: ``temperature`` below 0.01.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check("ranknet", "temperature", self.temperature, least=0.01)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over pairs."""
        from torch.nn.functional import softplus

        better = group.grades[:, None] > group.grades[None, :]
        margin = (group.scores[:, None] - group.scores[None, :]) / self.temperature
        # A sum over no pairs is 0 with a gradient of 0, its mean would be NaN.
        return softplus(-margin[better]).sum() / better.sum().clamp(min=1)
