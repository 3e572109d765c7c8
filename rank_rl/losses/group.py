"""What a loss sees of one group of documents, and what every loss is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rank_rl.errors import RecipeError
from rank_rl.rewards.base import is_number

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """One query's group of n documents as a scorer sees it.

    Only ``scores`` and ``grades`` are always there; a loss that needs more says so with ``need``.

    Attributes:
        scores: (n,) scores, higher is better. Label slots: label logits weighted by centred label
            values.
        grades: (n,) grades, 0 or more.
        ranks: (n,) first-stage ranks, from 1; they break ties of grades and of teacher scores.
        teacher: (n,) a teacher's scores, NaN where it gave none; None without a teacher.
        weights: (n,) weight of each document's training signal, at least 0; None means 1. What a
            loss does with them is in ``rank_rl.losses.weights``.
        others: (m,) scores of this query with documents of other queries (in-batch negatives).
        pairs: (n, n) weight of placing document i right before document j, of a pair scorer; the
            diagonal means nothing.
        logits: (n, K) logits of the labels, worst label first, of label slots.
        mass: (n,) log-probability of saying any label at all, of label slots.
        targets: (n,) index of the label that a grade calls for, of label slots.
        texts: (n,) cross-entropy of each document's ideal text, the mean over its tokens, of label
            slots where loss lm is asked for.
    """

    scores: torch.Tensor
    grades: torch.Tensor
    ranks: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    others: torch.Tensor | None = None
    pairs: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    mass: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    texts: torch.Tensor | None = None


class Loss(Protocol):
    """A function of one group; parameters are the fields of its class."""

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
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


def check_whole(loss: str, name: str, value: int, *, least: int) -> None:
    """Refuse a parameter of a loss that is not a whole number of at least ``least``.

    Raises:
        RecipeError: naming the loss and the parameter.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RecipeError(
            f"{name} {value!r}", where=f"loss {loss!r}", expected=f"a whole number, {least} or more"
        )


def check_choice(loss: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a parameter of a loss that is none of the words it may be.

    Raises:
        RecipeError: naming the loss, the parameter and the choices.
    """
    if value not in choices:
        expected = f"one of {', '.join(choices)}"
        raise RecipeError(f"{name} {value!r}", where=f"loss {loss!r}", expected=expected)


def precise(values: torch.Tensor) -> torch.Tensor:
    """Half-precision values as float32: sums over exponentials overflow or round in less."""
    return values.float() if values.dtype.itemsize < 4 else values


# What a field is called where people read it.
_NAMES = {
    "teacher": "teacher scores",
    "logits": "label logits",
    "pairs": "weights of pairs",
    "texts": "ideal texts",
    "ranks": "first-stage ranks",
}


def need(group: ScoredGroup, loss: str, field: str, why: str) -> torch.Tensor:
    """A field of a group that a loss cannot do without.

    Raises:
        RecipeError: the group has none, for instance label logits of a cross-encoder.
    """
    found: torch.Tensor | None = getattr(group, field)
    if found is None:
        named = _NAMES.get(field, field)
        raise RecipeError(f"there are no {named}", where=f"loss {loss!r}", expected=why)
    return found
