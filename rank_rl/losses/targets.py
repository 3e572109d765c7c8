"""What a loss wants the scores to follow: the grades or a teacher's scores, and orders from them.

Documents without a target (a teacher's NaN: not judged) are left out of the loss altogether. Equal
targets are ties, which no loss compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rank_rl.losses.group import ScoredGroup, check_choice, need, precise

if TYPE_CHECKING:
    import torch

Target = Literal["auto", "grades", "teacher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The m documents of a group that have a target.

    Attributes:
        scores: (m,) scores of the model, at least float32.
        values: (m,) what they should follow, higher is better.
        grades: (m,) grades.
        kept: (n,) which documents of the group these are.
        by_teacher: whether the values are a teacher's scores.
        ranks, weights: (m,) as in the group.
    """

    scores: torch.Tensor
    values: torch.Tensor
    grades: torch.Tensor
    kept: torch.Tensor
    by_teacher: bool
    ranks: torch.Tensor | None
    weights: torch.Tensor | None

    @property
    def better(self) -> torch.Tensor:
        """(m, m) whether the document of the row should stand above that of the column."""
        return self.values[:, None] > self.values[None, :]

    @property
    def margins(self) -> torch.Tensor:
        """(m, m) score of the row's document minus that of the column's."""
        return self.scores[:, None] - self.scores[None, :]

    def nothing(self) -> torch.Tensor:
        """A loss of 0 with a gradient of 0."""
        return self.scores.sum() * 0


def check_target(loss: str, target: str) -> None:
    """Refuse a target that there is not.

    Raises:
        RecipeError: naming the loss and the choices.
    """
    check_choice(loss, "target", target, ("auto", "grades", "teacher"))


def judged(group: ScoredGroup, loss: str, target: Target = "auto") -> Judged:
    """The documents that have a target, with it.

    Args:
        group: one query's documents.
        loss: name of the loss, for the message.
        target: ``auto`` follows the teacher where the group has one that judged any document, else
            the grades.

    Raises:
        RecipeError: ``target`` is ``teacher`` and the group has none.
    """
    import torch

    teacher = group.teacher
    if target == "teacher":
        teacher = need(group, loss, "teacher", "data.teacher_run, or grades as the target")
    by_teacher = teacher is not None and (target == "teacher" or bool(teacher.isfinite().any()))
    if teacher is None or not by_teacher or target == "grades":
        by_teacher, values = False, group.grades
        kept = torch.ones_like(values, dtype=torch.bool)
    else:
        values, kept = teacher, teacher.isfinite()

    def pick(field: torch.Tensor | None) -> torch.Tensor | None:
        return None if field is None else field[kept]

    return Judged(
        scores=precise(group.scores)[kept],
        values=values[kept].to(precise(group.scores).dtype),
        grades=group.grades[kept],
        kept=kept,
        by_teacher=by_teacher,
        ranks=pick(group.ranks),
        weights=pick(group.weights),
    )


def levels(values: torch.Tensor) -> torch.Tensor:
    """(m,) level of each document, from 0 for the best; equal values share one."""
    import torch

    distinct, place = torch.unique(values, return_inverse=True)
    return len(distinct) - 1 - place


def mean_ranks(values: torch.Tensor) -> torch.Tensor:
    """(m,) ranks from 1 for the greatest value; equal values share the mean of their ranks."""
    above = (values[None, :] > values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return above + (equal.to(values.dtype) + 1) / 2


def order(*keys: torch.Tensor | None) -> torch.Tensor:
    """(m,) indices in ascending order of the first key, its ties by the next, and so on."""
    import torch

    given = [key for key in keys if key is not None]
    found = torch.arange(len(given[0]), device=given[0].device)
    for key in reversed(given):
        found = found[key[found].argsort(stable=True)]
    return found
