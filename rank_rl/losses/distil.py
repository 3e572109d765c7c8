"""Losses that copy a teacher's scores, not only its order; documents it did not judge are left out.

A teacher's order alone is what ``ranknet``, ``adr_mse``, ``list_mle`` and others follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rank_rl.losses.group import ScoredGroup, check, check_choice
from rank_rl.losses.targets import judged
from rank_rl.losses.weights import pair_mean, weigh_group

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginMse:
    """Squared difference of score margins and the teacher's (Hofstätter et al., 2020).

    ``pairs`` are those of different grades (``graded``, as in the paper: relevant against not) or
    ``all``. A group without such a pair contributes 0.

    Raises:
        RecipeError: unknown ``pairs``.
    """

    pairs: Literal["graded", "all"] = "graded"

    def __post_init__(self) -> None:
        check_choice("margin_mse", "pairs", self.pairs, ("graded", "all"))

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over pairs.

        Raises:
            RecipeError: the group has no teacher.
        """
        import torch

        docs = judged(group, "margin_mse", "teacher")
        error = docs.margins - (docs.values[:, None] - docs.values[None, :])
        if self.pairs == "graded":
            chosen = docs.grades[:, None] > docs.grades[None, :]
        else:
            chosen = torch.ones_like(error, dtype=torch.bool).triu(1)
        return pair_mean(error[chosen].square(), chosen, docs.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kl:
    """KL divergence of softmax(scores / temperature) from softmax(teacher / teacher_temperature).

    In nats, 0 where the two agree; a group in which the teacher judged fewer than two documents
    contributes 0.

    Raises:
        RecipeError: a temperature below 0.01.
    """

    temperature: float = 1.0
    teacher_temperature: float = 1.0

    def __post_init__(self) -> None:
        check("kl", "temperature", self.temperature, least=0.01)
        check("kl", "teacher_temperature", self.teacher_temperature, least=0.01)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Sum over documents of p log(p / q), p the teacher's share.

        Raises:
            RecipeError: the group has no teacher.
        """
        docs = judged(group, "kl", "teacher")
        ours = (docs.scores / self.temperature).log_softmax(0)
        theirs = (docs.values / self.teacher_temperature).log_softmax(0)
        return weigh_group((theirs.exp() * (theirs - ours)).sum(), docs.weights)
