"""What a loss sees of one group of documents, and what every loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rank_rl.errors import RecipeError
from rank_rl.rewards.base import is_number

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGroup:
    """One group of n documents with K labels.

    Attributes:
        logits: (n, K) logits of the labels, worst label first.
        mass: (n,) log-probability of saying any label at all, under the whole vocabulary.
        scores: (n,) label logits weighted by centred label values.
        grades: (n,) grades, 0 or more.
        targets: (n,) index of the label that a grade calls for.
    """

    logits: torch.Tensor
    mass: torch.Tensor
    scores: torch.Tensor
    grades: torch.Tensor
    targets: torch.Tensor


class Loss(Protocol):
    """A function of one group; parameters are the fields of its class."""

    def __call__(self, group: SlotGroup) -> torch.Tensor:
        """Scalar, 0 where the group has nothing to teach."""
        ...


def check(loss: str, name: str, value: float, *, least: float) -> None:
    """Refuse a parameter of a loss that is not a number of at least ``least``.

    Raises:
        RecipeError: naming the loss and the parameter.
    """
    if not is_number(value) or value < least:
        raise RecipeError(
            f"{name} {value!r}", where=f"loss {loss!r}", expected=f"a number of at least {least:g}"
        )
