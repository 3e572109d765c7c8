"""The margin between paths, against every path of small groups written out."""

from __future__ import annotations

import itertools

import pytest
import torch

from rank_rl import losses
from rank_rl.losses.group import ScoredGroup
from rank_rl.losses.paths import right_path
from rank_rl.specs import LossSpec

NAN = float("nan")


def cost(pairs: torch.Tensor, grades: list[int], margin: float = 1.0) -> torch.Tensor:
    grade = torch.tensor(grades, dtype=torch.float32)
    loss = losses.one(LossSpec(name="tsp_margin", params={"margin": margin}))
    return loss(ScoredGroup(scores=grade * 0, grades=grade, pairs=pairs))


def every_path(pairs: torch.Tensor, grades: list[int], margin: float) -> float:
    """By the definition: all orders, and which of them the grades allow."""
    place = sorted(set(grades), reverse=True)
    level = [place.index(grade) for grade in grades]

    def weight(path: tuple[int, ...]) -> float:
        return sum(pairs[i, j].item() for i, j in itertools.pairwise(path))

    def wrong(path: tuple[int, ...]) -> int:
        return sum(level[j] - level[i] not in (0, 1) for i, j in itertools.pairwise(path))

    paths = list(itertools.permutations(range(len(grades))))
    right = [p for p in paths if [level[i] for i in p] == sorted(level)]
    assert [p for p in paths if wrong(p) == 0] == right
    best = max(weight(p) + margin * wrong(p) for p in paths)
    return (best - max(map(weight, right))) / (len(grades) - 1)


def test_by_hand():
    # Right: 0, 1, 2 of weight 1 + 2 = 3. Best with its margins: 2, 0, 1 of 4 + 1 and one wrong step
    # (2 to 0), 6; 1, 2, 0 of 2 + 4 and one wrong step, 7; 2, 1, 0 of 0.5 and two wrong steps, 2.5.
    pairs = torch.tensor([[NAN, 1.0, 0.0], [0.0, NAN, 2.0], [4.0, 0.5, NAN]], requires_grad=True)
    loss = cost(pairs, [2, 1, 0])
    assert loss.item() == pytest.approx((7 - 3) / 2)
    (gradient,) = torch.autograd.grad(loss, pairs)
    # The step from 1 to 2 is on both paths.
    assert gradient.tolist() == [[0, -0.5, 0], [0, 0, 0], [0.5, 0, 0]]


@pytest.mark.parametrize("grades", [[3, 2, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 2, 1, 2]])
def test_against_every_path(grades):
    for seed in range(5):
        pairs = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        for margin in (0.0, 1.0, 3.0):
            expected = every_path(pairs, grades, margin)
            assert cost(pairs, grades, margin).item() == pytest.approx(expected, abs=1e-5)


def test_nothing_to_learn_once_the_right_path_leads_by_the_margin():
    pairs = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = cost(pairs, [2, 1, 0])
    (gradient,) = torch.autograd.grad(loss, pairs)
    assert loss.item() == 0 and not gradient.any()
    assert cost(pairs, [0, 1, 2]).item() > 9


def test_the_diagonal_means_nothing():
    pairs = torch.tensor([[NAN, 1.0], [2.0, NAN]], requires_grad=True)
    for grades, expected in (([1, 1], 0.0), ([1, 0], 2.0), ([0, 1], 0.0)):
        loss = cost(pairs, grades)
        (gradient,) = torch.autograd.grad(loss, pairs)
        assert loss.item() == expected and torch.isfinite(gradient).all()


def test_following_the_gradient_makes_the_right_path_the_heaviest():
    pairs = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for _ in range(100):
        (gradient,) = torch.autograd.grad(cost(pairs, [0, 4, 2, 3, 1]), pairs)
        pairs = (pairs - 0.5 * gradient).detach().requires_grad_()
    paths = itertools.permutations(range(5))
    best = max(paths, key=lambda p: sum(pairs[i, j].item() for i, j in itertools.pairwise(p)))
    assert best == (1, 3, 2, 4, 0)


def test_a_right_path_of_a_large_group_keeps_its_levels():
    weights = torch.randn(40, 40, generator=torch.Generator().manual_seed(1)).tolist()
    level = [i % 3 for i in range(40)]
    path = right_path(weights, level)
    assert sorted(path) == list(range(40))
    assert [level[i] for i in path] == sorted(level)
