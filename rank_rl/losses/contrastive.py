"""Losses of relevant documents against all others, those of other queries included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.losses.group import ScoredGroup, check, precise
from rank_rl.losses.targets import judged
from rank_rl.losses.weights import weigh

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoNce:
    """Cross-entropy of picking each relevant document among the others (van den Oord et al., 2018).

    The negatives are the documents of grade 0 and ``group.others`` (documents of other queries).
    Other relevant documents are no negatives. A group without a relevant document, or without a
    negative, contributes 0.

    Raises:
        RecipeError: ``temperature`` below 0.001.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check("info_nce", "temperature", self.temperature, least=0.001)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over relevant documents, in nats."""
        import torch
        from torch.nn.functional import softplus

        docs = judged(group, "info_nce", "grades")
        relevant = docs.values > 0
        negatives = docs.scores[~relevant]
        if group.others is not None:
            negatives = torch.cat([negatives, precise(group.others).to(negatives.dtype)])
        if not len(negatives):
            return docs.nothing()
        lead = docs.scores[relevant] / self.temperature
        lead = lead - (negatives / self.temperature).logsumexp(0)
        weights = None if docs.weights is None else docs.weights[relevant]
        return weigh(softplus(-lead), weights).sum() / relevant.sum().clamp(min=1)
