"""What every loss of the table promises, whatever it computes."""

from __future__ import annotations

import pytest
import torch

from rank_rl import losses
from rank_rl.losses.group import ScoredGroup
from rank_rl.specs import LossSpec

every_loss = pytest.mark.parametrize("name", sorted(losses.TABLE))


def group(scores: torch.Tensor, grades: list[int]) -> ScoredGroup:
    """Yes/no logits around 0 for scores, in a vocabulary with one other word."""
    logits = torch.stack([-scores / 2, scores / 2], dim=1)
    rest = torch.zeros(len(scores), 1)
    return ScoredGroup(
        logits=logits,
        mass=logits.logsumexp(-1) - torch.cat([logits, rest], 1).logsumexp(-1),
        scores=scores,
        grades=torch.tensor(grades, dtype=torch.float32),
        targets=torch.tensor(grades).clamp(max=1),
    )


def loss_and_gradient(name: str, values: list[float], grades: list[int]) -> tuple[float, list]:
    scores = torch.tensor(values, requires_grad=True)
    loss = losses.one(LossSpec(name=name))(group(scores, grades))
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, scores)
    return loss.item(), gradient.tolist()


@every_loss
def test_the_right_order_costs_less_than_a_wrong_one(name):
    right, _ = loss_and_gradient(name, [3.0, -2.0, -3.0], [1, 0, 0])
    wrong, _ = loss_and_gradient(name, [-3.0, -2.0, 3.0], [1, 0, 0])
    assert 0 <= right < wrong


@every_loss
def test_a_step_down_the_gradient_lifts_what_is_relevant(name):
    _, gradient = loss_and_gradient(name, [0.1, 0.2, 0.3, 0.0], [0, 1, 0, 1])
    assert all(g < 0 for g in (gradient[1], gradient[3]))
    assert all(g > 0 for g in (gradient[0], gradient[2]))


@every_loss
@pytest.mark.parametrize("grades", [[0, 0, 0], [1, 1, 1], [2, 2, 2]])
def test_groups_without_a_difference_give_numbers(name, grades):
    loss, gradient = loss_and_gradient(name, [0.5, -40.0, 40.0], grades)
    assert loss >= 0 and all(abs(g) < 100 for g in [loss, *gradient])


@pytest.mark.parametrize("name", ["listnet", "ranknet"])
def test_losses_over_the_order_are_zero_where_nothing_is_relevant(name):
    assert loss_and_gradient(name, [0.5, -1.0, 2.0], [0, 0, 0]) == (0.0, [0.0, 0.0, 0.0])


@every_loss
def test_one_document_alone_is_no_accident(name):
    for grade in (0, 1):
        loss, gradient = loss_and_gradient(name, [0.3], [grade])
        assert loss >= 0 and abs(gradient[0]) < 1


@every_loss
def test_the_order_shown_does_not_matter(name):
    values, grades = [0.4, -1.0, 2.0, 0.0], [1, 0, 0, 2]
    loss, gradient = loss_and_gradient(name, values, grades)
    turned, back = loss_and_gradient(name, values[::-1], grades[::-1])
    assert turned == pytest.approx(loss) and back[::-1] == pytest.approx(gradient)


@every_loss
def test_following_the_gradient_ranks_the_group(name):
    scores = torch.tensor([0.5, 0.4, 0.3, -0.2], requires_grad=True)
    loss = losses.one(LossSpec(name=name))
    for _ in range(200):
        (gradient,) = torch.autograd.grad(loss(group(scores, [0, 0, 1, 1])), scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_()
    assert sorted(scores.argsort(descending=True).tolist()[:2]) == [2, 3]
