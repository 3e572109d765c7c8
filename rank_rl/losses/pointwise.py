"""Losses that look at one document at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.losses.group import ScoredGroup, check, need, precise
from rank_rl.losses.weights import weigh

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Bce:
    """Binary cross-entropy of the score against relevant (grade above 0) or not."""

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over documents."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        scores = precise(group.scores)
        relevant = (group.grades > 0).to(scores.dtype)
        if group.weights is None:
            return binary_cross_entropy_with_logits(scores, relevant)
        terms = binary_cross_entropy_with_logits(scores, relevant, reduction="none")
        return (terms * group.weights).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCe:
    """Cross-entropy of the label that the grade calls for, among the labels.

    ``vocabulary`` is the weight of the cross-entropy for saying any label at all instead of some
    other word, so that greedy decoding stays within the labels; at 1 the sum is the cross-entropy
    over the whole vocabulary.

    Raises:
        RecipeError: ``vocabulary`` below 0.
    """

    vocabulary: float = 0.0

    def __post_init__(self) -> None:
        check("label_ce", "vocabulary", self.vocabulary, least=0)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over documents."""
        from torch.nn.functional import cross_entropy

        logits = precise(need(group, "label_ce", "logits", "a format with label slots"))
        targets = need(group, "label_ce", "targets", "a format with label slots")
        if group.weights is None:
            loss = cross_entropy(logits, targets)
        else:
            loss = (cross_entropy(logits, targets, reduction="none") * group.weights).mean()
        if not self.vocabulary:
            return loss
        mass = need(group, "label_ce", "mass", "a format with label slots")
        return loss - self.vocabulary * weigh(mass, group.weights).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lm:
    """Language-model term: cross-entropy of each document's ideal text, label and reasoning.

    Beside ranking losses it makes a model that still explains its labels (ReasoningRank,
    2410.05168; RRADistill, 2410.18097).
    """

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over documents, each the mean over its tokens, in nats."""
        texts = precise(need(group, "lm", "texts", "format slots in stage score"))
        return weigh(texts, group.weights).mean()
