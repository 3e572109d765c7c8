"""What every loss of the table promises, whatever it computes.

Groups are ragged, there is no padding: what stands for it are documents that a teacher did not
judge, which must not matter at all.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from rank_rl import losses
from rank_rl.losses.group import ScoredGroup
from rank_rl.specs import LossSpec

every_loss = pytest.mark.parametrize("name", sorted(losses.TABLE))

# They follow a teacher where there is one, and documents that it did not judge are out.
TAUGHT = ["adr_mse", "kl", "list_mle", "listnet", "margin", "margin_mse", "rank_list", "ranknet"]
TAUGHT += ["tsp_margin"]
taught = pytest.mark.parametrize("name", TAUGHT)

# Losses that look at neighbours in the right order only: putting one pair right may part another.
NEIGHBOURS = ["rank_list", "tsp_margin"]

# Losses with a target of their own for every document, whatever the others are.
POINTWISE = ["bce", "label_ce", "lm"]


def group(scores: torch.Tensor, grades: list[int], teacher: list[float] | None = None):
    """Everything that a scorer may offer, made from the scores.

    Label slots: yes/no logits around 0, in a vocabulary with one other word. Pairs: the
    log-probability that the document of the row is better. Teacher, if not given: 4 a grade.
    """
    count = len(scores)
    logits = torch.stack([-scores / 2, scores / 2], dim=1)
    rest = torch.zeros(count, 1, dtype=scores.dtype)
    wanted = [4.0 * grade for grade in grades] if teacher is None else teacher
    whole = torch.cat([logits, rest], 1)
    return ScoredGroup(
        texts=torch.nn.functional.cross_entropy(
            whole, torch.tensor(grades).clamp(max=1), reduction="none"
        ),
        logits=logits,
        mass=logits.logsumexp(-1) - torch.cat([logits, rest], 1).logsumexp(-1),
        scores=scores,
        grades=torch.tensor(grades, dtype=torch.float32),
        targets=torch.tensor(grades).clamp(max=1),
        teacher=torch.tensor(wanted, dtype=torch.float32),
        pairs=torch.nn.functional.logsigmoid(scores[:, None] - scores[None, :]),
    )


def measured(name: str, given: ScoredGroup, scores: torch.Tensor, **params) -> tuple[float, list]:
    loss = losses.one(LossSpec(name=name, params=params))(given)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, scores, retain_graph=True)
    return loss.item(), gradient.tolist()


def loss_and_gradient(name: str, values: list[float], grades: list[int]) -> tuple[float, list]:
    scores = torch.tensor(values, requires_grad=True)
    return measured(name, group(scores, grades), scores)


@every_loss
def test_the_right_order_costs_less_than_a_wrong_one(name):
    right, _ = loss_and_gradient(name, [3.0, -2.0, -3.0], [1, 0, 0])
    wrong, _ = loss_and_gradient(name, [-3.0, -2.0, 3.0], [1, 0, 0])
    assert 0 <= right < wrong


@every_loss
@pytest.mark.parametrize("grades", [[3, 2, 1, 0], [1, 1, 0, 0], [2, 1, 0, 0]])
def test_every_exchange_towards_the_perfect_order_helps(name, grades):
    """From the reversed order to the perfect one, one pair of neighbours after the other."""
    values = [-1.5, -0.5, 0.5, 1.5]
    before, _ = loss_and_gradient(name, values, grades)
    first = before
    for _ in range(3):
        for i in range(3):
            if values[i] < values[i + 1]:
                values[i], values[i + 1] = values[i + 1], values[i]
                after, _ = loss_and_gradient(name, values, grades)
                if name not in NEIGHBOURS and grades[i] != grades[i + 1]:
                    assert after <= before + 1e-6, values
                before = after
    assert values == [1.5, 0.5, -0.5, -1.5] and before < first
    orders = itertools.permutations(values)
    assert before == pytest.approx(min(loss_and_gradient(name, [*o], grades)[0] for o in orders))


@every_loss
def test_a_step_down_the_gradient_lifts_what_is_relevant(name):
    _, gradient = loss_and_gradient(name, [0.1, 0.2, 0.3, 0.0], [0, 1, 0, 1])
    if name == "tsp_margin":  # a path touches the ends of its steps only
        assert gradient[1] + gradient[3] < 0 < gradient[0] + gradient[2]
        return
    assert all(g < 0 for g in (gradient[1], gradient[3]))
    assert all(g > 0 for g in (gradient[0], gradient[2]))


@every_loss
@pytest.mark.parametrize("grades", [[0, 0, 0], [1, 1, 1], [2, 2, 2]])
def test_groups_without_a_difference_give_numbers(name, grades):
    loss, gradient = loss_and_gradient(name, [0.5, -40.0, 40.0], grades)
    assert loss >= 0 and all(abs(g) < 100 for g in [loss, *gradient])


@pytest.mark.parametrize("name", sorted(set(losses.TABLE) - {*POINTWISE, "kl"}))
def test_losses_over_the_order_are_zero_where_nothing_is_relevant(name):
    scores = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    given = group(scores, [0, 0, 0])
    if name not in ("margin_mse",):
        given = replace(given, teacher=None)
    assert measured(name, given, scores) == (0.0, [0.0, 0.0, 0.0])


@taught
def test_a_teacher_that_judged_nothing_or_one_document_teaches_nothing(name):
    for judged in ([math.nan] * 3, [math.nan, 3.0, math.nan]):
        scores = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
        given = group(scores, [0, 0, 0], teacher=judged)
        loss, gradient = measured(name, given, scores)
        assert (loss, gradient) == (0.0, [0.0, 0.0, 0.0])


@every_loss
def test_one_document_alone_is_no_accident(name):
    for grade in (0, 1):
        loss, gradient = loss_and_gradient(name, [0.3], [grade])
        assert loss >= 0 and abs(gradient[0]) < 1


@every_loss
@pytest.mark.parametrize("values", [[1e4, -1e4, 1e4, 0.0], [-1e4, 1e4, 1e4, 1e4], [1e4] * 4])
def test_extreme_scores_give_finite_numbers(name, values):
    for grades in ([1, 0, 2, 0], [0, 0, 0, 1], [0, 0, 0, 0]):
        loss, gradient = loss_and_gradient(name, values, grades)
        assert loss >= 0 and all(math.isfinite(x) for x in [loss, *gradient])


@every_loss
def test_the_order_shown_does_not_matter(name):
    values, grades = [0.4, -1.0, 2.0, 0.0, 0.7], [1, 0, 0, 2, 0]
    loss, gradient = loss_and_gradient(name, values, grades)
    for places in itertools.permutations(range(5)):
        turned, back = loss_and_gradient(
            name, [values[i] for i in places], [grades[i] for i in places]
        )
        assert turned == pytest.approx(loss)
        assert back == pytest.approx([gradient[i] for i in places], abs=1e-6)


@every_loss
def test_the_order_shown_does_not_break_ties(name):
    values, grades = [0.4, 0.4, 2.0, 0.4], [1, 0, 0, 2]
    loss, _ = loss_and_gradient(name, values, grades)
    turned, _ = loss_and_gradient(name, values[::-1], grades[::-1])
    assert turned == pytest.approx(loss)


@every_loss
def test_following_the_gradient_ranks_the_group(name):
    scores = torch.tensor([0.5, 0.4, 0.3, -0.2], requires_grad=True)
    loss = losses.one(LossSpec(name=name))
    for _ in range(200):
        (gradient,) = torch.autograd.grad(loss(group(scores, [0, 0, 1, 1])), scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_()
    assert sorted(scores.argsort(descending=True).tolist()[:2]) == [2, 3]


@every_loss
@pytest.mark.parametrize("weighed", [False, True])
def test_gradients_are_those_of_finite_differences(name, weighed):
    weights = torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float64) if weighed else None
    loss = losses.one(LossSpec(name=name))
    scores = torch.tensor([0.35, -0.7, 1.1, 0.45], dtype=torch.float64, requires_grad=True)

    def value(given: torch.Tensor) -> torch.Tensor:
        judged = group(given, [1, 0, 0, 2], teacher=[0.9, 0.1, -0.7, 2.3])
        return loss(replace(judged, weights=weights))

    assert value(scores).dtype == torch.float64
    assert torch.autograd.gradcheck(value, (scores,), eps=1e-6, atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_cost_what_they_would_in_float32(name, dtype):
    values = torch.tensor([3.0, -20.0, 90.0, 0.5, 2.0])
    grades = [1, 0, 0, 2, 0]
    loss = losses.one(LossSpec(name=name))
    wanted = loss(group(values, grades)).item()
    scores = values.to(dtype).requires_grad_()
    whole = group(scores.float(), grades)
    half = replace(whole, scores=scores, logits=whole.logits.to(dtype), pairs=whole.pairs.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        found = loss(half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted, rel=1e-2)
    (gradient,) = torch.autograd.grad(found, scores)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@taught
def test_documents_that_the_teacher_did_not_judge_do_not_matter(name):
    scores = torch.tensor([0.4, -1.0, 2.0, 0.1, 0.7], requires_grad=True)
    nan = math.nan
    whole = group(scores, [1, 0, 2, 0, 0], teacher=[2.0, nan, 1.0, 0.5, nan])
    loss, gradient = measured(name, whole, scores)
    few = torch.tensor([0.4, 2.0, 0.1], requires_grad=True)
    alone, rest = measured(name, group(few, [1, 2, 0], teacher=[2.0, 1.0, 0.5]), few)
    assert loss == pytest.approx(alone) and loss > 0
    assert gradient == pytest.approx([rest[0], 0.0, rest[1], rest[2], 0.0])


@pytest.mark.parametrize("name", sorted({*TAUGHT} - {"kl", "margin_mse"}))
def test_a_target_is_the_teacher_where_there_is_one_unless_the_recipe_says_otherwise(name):
    scores = torch.tensor([0.4, -1.0, 2.0, 0.1], requires_grad=True)
    both = group(scores, [3, 2, 1, 0], teacher=[0.0, 1.0, 2.0, 3.0])
    grades = replace(both, teacher=None)
    asked, told, auto = (
        measured(name, both, scores, target=target) for target in ("grades", "teacher", "auto")
    )
    assert auto == told and asked == measured(name, grades, scores) and asked != told


@every_loss
def test_losses_are_proportional_to_weights(name):
    scores = torch.tensor([0.4, -1.0, 2.0, 0.0], requires_grad=True)
    plain = group(scores, [1, 0, 0, 2])
    loss, gradient = measured(name, plain, scores)
    for factor in (0.0, 1.0, 0.5):
        weights = torch.full((4,), factor)
        part, slope = measured(name, replace(plain, weights=weights), scores)
        assert part == pytest.approx(factor * loss)
        assert slope == pytest.approx([factor * g for g in gradient])


@every_loss
def test_weights_decide_how_much_a_document_counts(name):
    scores = torch.tensor([0.4, -1.0, 2.0, 0.0], requires_grad=True)
    plain = group(scores, [1, 0, 0, 2])
    light = replace(plain, weights=torch.tensor([1.0, 1.0, 1.0, 0.1]))
    assert measured(name, light, scores)[0] < measured(name, plain, scores)[0]


@pytest.mark.parametrize("name", POINTWISE)
def test_a_document_of_weight_zero_does_not_matter_to_losses_of_single_documents(name):
    weights = torch.tensor([1.0, 0.0, 1.0])
    found = []
    for other in (-3.0, 5.0):
        scores = torch.tensor([0.4, other, 2.0], requires_grad=True)
        given = replace(group(scores, [1, 0, 0]), weights=weights)
        found.append(measured(name, given, scores))
    assert found[0] == found[1] and found[0][1][1] == 0
