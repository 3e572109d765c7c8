"""Losses of pair scorers whose order is a path: the sum of the weights of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.losses.group import ScoredGroup, check, need, precise
from rank_rl.losses.targets import Target, check_target, judged, levels
from rank_rl.losses.weights import weigh_group

if TYPE_CHECKING:
    import torch

Matrix = list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TspMargin:
    """Margin between the right path and the best other path (Li et al., 2024: TSPRank).

    A step from document i to the next one, j, weighs ``group.pairs[i, j]``. With W the sum of the
    weights of a path's steps and E the number of its wrong steps, the loss is the greatest
    W(path) + ``margin`` E(path) over all paths, less W of the right one, over the n - 1 steps: 0 as
    soon as the right path leads every other by ``margin`` a wrong step. A step is right within a
    level of tied documents and from a level to the next, so a path without wrong steps is an order
    that the target allows; of these the right path is the heaviest. Paths are found by
    ``strategies.aggregate.hamiltonian``: the best one up to 12 documents, a good one above (some
    0.1 s for 12 documents and for 40, 1.5 s for 100). A group with one level contributes 0.

    Raises:
        RecipeError: ``margin`` below 0, or an unknown ``target``.
    """

    margin: float = 1.0
    target: Target = "auto"

    def __post_init__(self) -> None:
        check("tsp_margin", "margin", self.margin, least=0)
        check_target("tsp_margin", self.target)

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        """Mean over steps.

        Raises:
            RecipeError: the group has no weights of pairs.
        """
        import torch

        from rank_rl.strategies.aggregate import hamiltonian

        pairs = precise(need(group, "tsp_margin", "pairs", "a scorer of pairs"))
        docs = judged(group, "tsp_margin", self.target)
        pairs = pairs[docs.kept][:, docs.kept]
        pairs = pairs.masked_fill(torch.eye(len(pairs), device=pairs.device).bool(), 0)
        level = levels(docs.values).tolist()
        if not docs.better.any():
            return docs.nothing() + pairs.sum() * 0

        weights: Matrix = pairs.detach().double().tolist()
        right = right_path(weights, level)
        raised = [
            [w + self.margin * (not _allowed(level[i], level[j])) for j, w in enumerate(row)]
            for i, row in enumerate(weights)
        ]
        found = hamiltonian(raised)
        wrong = sum(
            not _allowed(level[i], level[j]) for i, j in zip(found, found[1:], strict=False)
        )
        lead = pairs[right[:-1], right[1:]].sum() - pairs[found[:-1], found[1:]].sum()
        # Below 0 only where the search missed the right path itself.
        loss = (self.margin * wrong - lead).relu() / (len(level) - 1)
        return weigh_group(loss, docs.weights)


def right_path(weights: Matrix, level: list[int]) -> list[int]:
    """The heaviest order of the documents, best level first, that the search finds.

    Args:
        weights: (n, n) weight of the step from a row to a column.
        level: (n,) level of each document, from 0 for the best.
    """
    from rank_rl.strategies.aggregate import hamiltonian

    # A step that is not allowed costs more than all others together can bring.
    free = [w for i, row in enumerate(weights) for j, w in enumerate(row) if i != j]
    cost = (max(free) - min(free) + 1) * len(level)
    path = hamiltonian(
        [
            [w if _allowed(level[i], level[j]) else w - cost for j, w in enumerate(row)]
            for i, row in enumerate(weights)
        ]
    )
    if [level[i] for i in path] == sorted(level):
        return path
    # The search of a large group may miss every such order: then each level by itself.
    path = []
    for one in sorted(set(level)):
        members = [i for i, its in enumerate(level) if its == one]
        among = [[weights[i][j] for j in members] for i in members]
        path += [members[place] for place in hamiltonian(among)]
    return path


def _allowed(here: int, there: int) -> bool:
    """Whether a right path may step from one level to another."""
    return there - here in (0, 1)
