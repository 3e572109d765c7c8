"""Losses of the ``score`` stage: functions of one group's label logits, scores and grades.

Each takes a ``SlotGroup`` and returns a scalar tensor; ``make`` turns the ``losses`` section of a
recipe into one weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rank_rl.errors import RecipeError
from rank_rl.registry import resolve
from rank_rl.specs import LossSpec

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import SlotGroup

__all__ = ["TABLE", "make"]

Loss = Callable[..., "torch.Tensor"]

TABLE: dict[str, str] = {
    "bce": "rank_rl.losses.pointwise:bce",
    "label_ce": "rank_rl.losses.pointwise:label_ce",
    "listnet": "rank_rl.losses.listwise:listnet",
    "ranknet": "rank_rl.losses.pairwise:ranknet",
}


def make(specs: Sequence[LossSpec]) -> Callable[[SlotGroup], torch.Tensor]:
    """Return the weighted sum of the losses named in a recipe.

    Raises:
        RecipeError: none given, an unknown name or an unknown parameter.
    """
    if not specs:
        raise RecipeError("no loss", where="losses", expected=f"some of {', '.join(TABLE)}")
    parts: list[tuple[float, Loss, dict[str, Any]]] = []
    for spec in specs:
        function = resolve("loss", spec.name, TABLE)
        known = set(function.__kwdefaults__ or {})
        unknown = set(spec.params) - known
        if unknown:
            raise RecipeError(
                f"unknown parameter {sorted(unknown)[0]!r}",
                where=f"loss {spec.name!r}",
                expected=", ".join(sorted(known)) or "no parameters",
            )
        parts.append((spec.weight, function, spec.params))

    def total(group: SlotGroup) -> torch.Tensor:
        first, *rest = (weight * loss(group, **params) for weight, loss, params in parts)
        return sum(rest, start=first)

    return total
