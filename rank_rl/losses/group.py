"""What a loss sees of one group of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGroup:
    """One group of n documents with K labels.

    Attributes:
        logits: (n, K) logits of the labels, worst label first.
        others: (n,) log-probability of everything that is no label; at most 0.
        scores: (n,) label logits weighted by centred label values.
        grades: (n,) grades, 0 or more.
        targets: (n,) index of the label that a grade calls for.
    """

    logits: torch.Tensor
    others: torch.Tensor
    scores: torch.Tensor
    grades: torch.Tensor
    targets: torch.Tensor
