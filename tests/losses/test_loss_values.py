"""Each loss by hand: literal values, groups that teach nothing, and parameters out of range."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rank_rl import losses
from rank_rl.errors import RecipeError
from rank_rl.losses.group import ScoredGroup
from rank_rl.specs import LossSpec


def group(scores: list[float], grades: list[int], others: float = -20.0) -> ScoredGroup:
    """Yes/no logits of -s/2 and s/2; ``others`` is the logit of the rest of the vocabulary."""
    s = torch.tensor(scores, requires_grad=True)
    logits = torch.stack([-s / 2, s / 2], dim=1)
    rest = torch.full((len(scores), 1), others)
    return ScoredGroup(
        logits=logits,
        mass=logits.logsumexp(-1) - torch.cat([logits, rest], 1).logsumexp(-1),
        scores=s,
        grades=torch.tensor(grades, dtype=torch.float32),
        targets=torch.tensor(grades).clamp(max=1),
    )


def value(name: str, g: ScoredGroup, **params: Any) -> float:
    return losses.one(LossSpec(name=name, params=params))(g).item()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bce_is_the_mean_over_documents():
    # -log sigmoid(2) for the relevant one, -log(1 - sigmoid(1)) for the other.
    assert value("bce", group([2.0, 1.0], [3, 0])) == pytest.approx(
        (softplus(-2) + softplus(1)) / 2
    )


def test_listnet_compares_shares_of_the_grades():
    e = [math.exp(s) for s in (1.0, 0.0, -1.0)]
    p = [x / sum(e) for x in e]
    expected = -(2 / 3 * math.log(p[0]) + 1 / 3 * math.log(p[2]))
    assert value("listnet", group([1.0, 0.0, -1.0], [2, 0, 1])) == pytest.approx(expected)
    flat = value("listnet", group([1.0, 0.0, -1.0], [2, 0, 1]), temperature=1e6)
    assert flat == pytest.approx(math.log(3), abs=1e-5)


def test_listnet_of_the_grades_own_shares_is_their_entropy():
    scores = [math.log(2), 0.0, -1e9]
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert value("listnet", group(scores, [2, 1, 0])) == pytest.approx(entropy, abs=1e-6)


def test_ranknet_is_the_mean_over_pairs_of_different_grades():
    expected = (softplus(-(0.5 - 2.0)) + softplus(-(0.5 + 1.0)) + softplus(-(-1.0 - 2.0))) / 3
    assert value("ranknet", group([0.5, 2.0, -1.0], [2, 0, 1])) == pytest.approx(expected)
    halved = (softplus(0.75) + softplus(-0.75) + softplus(1.5)) / 3
    assert value("ranknet", group([0.5, 2.0, -1.0], [2, 0, 1]), temperature=2) == pytest.approx(
        halved
    )


def test_label_ce_is_the_cross_entropy_among_the_labels():
    expected = (softplus(-2) + softplus(1)) / 2
    assert value("label_ce", group([2.0, 1.0], [1, 0], others=9.0)) == pytest.approx(expected)


def test_label_ce_with_vocabulary_one_is_the_cross_entropy_over_everything():
    g = group([2.0, -1.0], [1, 1], others=0.5)
    logits = torch.cat([g.logits, torch.full((2, 1), 0.5)], dim=1)
    expected = torch.nn.functional.cross_entropy(logits, g.targets)
    assert value("label_ce", g, vocabulary=1.0) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("others", [-200.0, -20.0, 20.0, 200.0])
def test_label_ce_has_sound_gradients_however_sure_the_model_is(others):
    g = group([60.0, -60.0], [1, 1], others)
    loss = losses.one(LossSpec(name="label_ce", params={"vocabulary": 1.0}))(g)
    (gradient,) = torch.autograd.grad(loss, g.scores)
    assert math.isfinite(loss.item()) and torch.isfinite(gradient).all()


def test_saying_another_word_costs_what_it_should():
    sure, unsure = (group([1.0, 1.0], [1, 1], others) for others in (-30.0, 1.0))
    assert value("label_ce", sure, vocabulary=1.0) == pytest.approx(value("label_ce", sure))
    assert value("label_ce", unsure, vocabulary=1.0) > value("label_ce", unsure) + 0.5


def test_the_sum_is_weighted():
    g = group([2.0, 1.0], [1, 0])
    total = losses.make([LossSpec(name="bce", weight=2.0), LossSpec(name="ranknet", weight=0.5)])
    expected = 2 * value("bce", g) + 0.5 * value("ranknet", g)
    assert total(g).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], r"losses: no loss; expected some of adr_mse, bce, .*, ranknet, tsp_margin"),
        ([{"name": "listnett"}], r"unknown loss 'listnett'.*nearest: listnet"),
        ([{"name": "bce", "params": {"temperature": 2}}], r"loss 'bce': .*'temperature'"),
        (
            [{"name": "ranknet", "params": {"temperature": 0}}],
            r"'ranknet': temperature 0;",
        ),
        ([{"name": "listnet", "params": {"temperature": "hot"}}], r"temperature 'hot'"),
        ([{"name": "label_ce", "params": {"vocabulary": -1}}], r"'label_ce': vocabulary -1"),
        ([{"name": "bce", "weight": -1}], r"loss 'bce': weight -1.0; expected at least 0"),
    ],
)
def test_wrong_losses_are_one_line(specs, message):
    with pytest.raises(RecipeError, match=message) as error:
        losses.make([LossSpec.model_validate(spec) for spec in specs])
    assert "\n" not in str(error.value)
