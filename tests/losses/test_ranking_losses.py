"""Losses that follow an order or a teacher: values by hand, their parameters, and what they refuse.

The group by hand: scores 1, 2, 0 for grades 2, 1, 0, so that the first two are the wrong way round.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rank_rl import losses
from rank_rl.errors import RecipeError
from rank_rl.losses.group import ScoredGroup
from rank_rl.losses.targets import levels, mean_ranks, order
from rank_rl.specs import LossSpec

SCORES, GRADES = [1.0, 2.0, 0.0], [2, 1, 0]


def group(scores: list[float] = SCORES, grades: list[int] = GRADES, **fields: Any) -> ScoredGroup:
    others = {name: torch.tensor(values) for name, values in fields.items()}
    return ScoredGroup(
        scores=torch.tensor(scores, requires_grad=True),
        grades=torch.tensor(grades, dtype=torch.float32),
        **others,
    )


def value(name: str, g: ScoredGroup, **params: Any) -> float:
    return losses.one(LossSpec(name=name, params=params))(g).item()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_orders_of_values():
    values = torch.tensor([3.0, 5.0, 3.0, 1.0])
    assert levels(values).tolist() == [1, 0, 1, 2]
    assert mean_ranks(values).tolist() == [2.5, 1.0, 2.5, 4.0]
    assert order(-values).tolist() == [1, 0, 2, 3]
    assert order(-values, torch.tensor([4, 3, 2, 1])).tolist() == [1, 2, 0, 3]


def test_margin_is_the_mean_of_what_pairs_lack():
    # Leads -1, 1 and 2 lack 2, 0 and 0 of a margin of 1.
    assert value("margin", group()) == pytest.approx(2 / 3)
    # ... and 3, 1 and 0 of a margin of 2.
    assert value("margin", group(), margin=2) == pytest.approx(4 / 3)


def test_margin_mse_compares_leads():
    # The teacher's leads 3, 5 and 2 against -1, 1 and 2: errors 4, 4 and 0.
    g = group(teacher=[5.0, 2.0, 0.0])
    assert value("margin_mse", g) == pytest.approx((16 + 16 + 0) / 3)
    # The first against the two others, which are of one grade.
    g = group(grades=[1, 0, 0], teacher=[5.0, 2.0, 0.0])
    assert value("margin_mse", g) == pytest.approx((16 + 16) / 2)
    assert value("margin_mse", g, pairs="all") == pytest.approx((16 + 16 + 0) / 3)


def test_ranknet_and_listnet_follow_a_teacher():
    g = group(grades=[0, 0, 0], teacher=[5.0, 2.0, 0.0])
    assert value("ranknet", g) == pytest.approx((softplus(1) + softplus(-1) + softplus(-2)) / 3)
    assert value("ranknet", g, target="grades") == 0
    e, t = [math.exp(s) for s in SCORES], [math.exp(s / 2) for s in (5.0, 2.0, 0.0)]
    expected = -sum(b / sum(t) * math.log(a / sum(e)) for a, b in zip(e, t, strict=True))
    assert value("listnet", g, teacher_temperature=2) == pytest.approx(expected)


def test_kl_is_what_listnet_costs_above_the_teachers_entropy():
    g = group(teacher=[5.0, 2.0, 0.0])
    t = [math.exp(s) for s in (5.0, 2.0, 0.0)]
    p = [x / sum(t) for x in t]
    q = [math.exp(s / 2) for s in SCORES]
    expected = sum(a * math.log(a * sum(q) / b) for a, b in zip(p, q, strict=True))
    assert value("kl", g, temperature=2) == pytest.approx(expected)
    assert value("kl", group(teacher=[4.0, 5.0, 3.0])) == pytest.approx(0, abs=1e-6)
    assert value("kl", group(teacher=[2.0, 4.0, 0.0]), teacher_temperature=2) == pytest.approx(
        0, abs=1e-6
    )


def test_list_mle_draws_documents_one_after_the_other():
    e, e2 = math.e, math.e**2
    # First 1 of {1, 2, 0}, then 2 of {2, 0}; the last is certain.
    first, second = -math.log(e / (e + e2 + 1)), -math.log(e2 / (e2 + 1))
    assert value("list_mle", group()) == pytest.approx(first + second)
    # 2^2 - 1 and 2^1 - 1 over their sum.
    assert value("list_mle", group(), discount="exponential") == pytest.approx(
        3 / 4 * first + 1 / 4 * second
    )


def test_list_mle_with_ties():
    e, e2 = math.e, math.e**2
    tied = group(grades=[1, 1, 0], ranks=[2, 1, 3])
    # Either of the two against all three.
    first, second = -math.log(e / (e + e2 + 1)), -math.log(e2 / (e + e2 + 1))
    assert value("list_mle", tied) == pytest.approx(first + second)
    # The first-stage order is 2, 1, 0: 2 of {2, 1, 0}, then 1 of {1, 0}.
    assert value("list_mle", tied, ties="ranks") == pytest.approx(
        -math.log(e2 / (e + e2 + 1)) - math.log(e / (e + 1))
    )


def test_list_mle_of_a_long_list_does_not_overflow():
    scores = [float(-i) for i in range(200)]
    long = group(scores=scores, grades=list(range(200, 0, -1)))
    # Half of the weight is on the first, a quarter on the second ...: all but the last terms equal.
    assert value("list_mle", long, discount="exponential") == pytest.approx(
        -math.log(1 - math.exp(-1)), rel=1e-5
    )


def test_adr_mse_compares_ranks():
    # Smooth ranks of scores 1, 2, 0 against 1, 2, 3.
    r = [
        1 + sigmoid(1) + sigmoid(-1),
        1 + sigmoid(-1) + sigmoid(-2),
        1 + sigmoid(1) + sigmoid(2),
    ]
    terms = [(a - t) ** 2 / math.log2(t + 1) for a, t in zip(r, (1, 2, 3), strict=True)]
    assert value("adr_mse", group()) == pytest.approx(sum(terms) / 3)
    # Sharp ranks are 2, 1, 3.
    sharp = (1 / math.log2(2) + 1 / math.log2(3)) / 3
    assert value("adr_mse", group(), temperature=0.01) == pytest.approx(sharp)
    # Two tied documents share rank 1.5.
    tied = [(a - t) ** 2 / math.log2(t + 1) for a, t in zip(r, (1.5, 1.5, 3), strict=True)]
    assert value("adr_mse", group(grades=[4, 4, 0])) == pytest.approx(sum(tied) / 3)


def test_rank_list_compares_neighbours_and_documents_further_apart():
    near = math.log(1 + math.exp(1) + math.exp(-2))  # 2 over 1, and 0 over 2
    far = math.log(1 + math.exp(-1))  # 0 over 1
    assert value("rank_list", group(), skip=1) == pytest.approx(near)
    assert value("rank_list", group(), skip=2) == pytest.approx((near + 0.5 * far) / 1.5)
    # No documents are three apart.
    assert value("rank_list", group(), skip=3, decay=0.25) == pytest.approx(
        (near + 0.25 * far) / 1.25
    )
    halved = math.log(1 + math.exp(0.5) + math.exp(-1))
    assert value("rank_list", group(), skip=1, temperature=2) == pytest.approx(halved)
    # Two documents, no ties: RankNet. Tied documents share a place.
    two = group(scores=[1.0, 2.0], grades=[1, 0])
    assert value("rank_list", two) == pytest.approx(value("ranknet", two))
    tied = math.log(1 + math.exp(1) + math.exp(-1))
    assert value("rank_list", group(grades=[1, 0, 0])) == pytest.approx(tied)


def test_info_nce_of_each_relevant_document_without_the_others():
    # 1 against {0} and 2 against {0}.
    assert value("info_nce", group()) == pytest.approx((softplus(-1) + softplus(-2)) / 2)
    e = math.exp
    # A document of another query of score 3 is a negative of both.
    with_others = group(others=[3.0])
    terms = [-math.log(e(s) / (e(s) + 1 + e(3))) for s in (1, 2)]
    assert value("info_nce", with_others) == pytest.approx(sum(terms) / 2)
    cold = [-math.log(e(2 * s) / (e(2 * s) + 1)) for s in (1, 2)]
    assert value("info_nce", group(), temperature=0.5) == pytest.approx(sum(cold) / 2)
    # Relevant documents alone have something to learn only from other queries.
    assert value("info_nce", group(grades=[1, 1, 1])) == 0
    assert value("info_nce", group(grades=[1, 1, 1], others=[0.0])) > 0


# By scores the grades are 1, 2, 0; the perfect order's gain is 2 / log2(2) + 1 / log2(3).
D = [0.0, 1.0, math.log2(3), 2.0]
IDEAL = 2 / D[1] + 1 / D[2]
LOG = [softplus(x) / math.log(2) for x in (1, -2, -1)]  # 2 over 1, 1 over 0, 2 over 0
GAP = [1 / IDEAL, 1 / IDEAL, 2 / IDEAL]
RHO = [1 / D[1] - 1 / D[2], 1 / D[1] - 1 / D[3], 1 / D[2] - 1 / D[3]]
DELTA = [1 / D[1] - 1 / D[2], 1 / D[2] - 1 / D[3], 1 / D[1] - 1 / D[2]]


@pytest.mark.parametrize(
    ("weighing", "scale"),
    [
        ("lambdarank", RHO),
        ("ndcg_loss2", DELTA),
        ("ndcg_loss2pp", [r + 10 * d for r, d in zip(RHO, DELTA, strict=True)]),
    ],
)
def test_lambda_loss_weighs_pairs_by_their_worth(weighing, scale):
    terms = [w * g * c for w, g, c in zip(scale, GAP, LOG, strict=True)]
    assert value("lambda_loss", group(), weighing=weighing) == pytest.approx(sum(terms) / 3)


def test_lambda_loss_cut_off_and_gains():
    # At 1 the pair of the second and third place is out, and a perfect order gains 2.
    terms = [r * g * c for r, g, c in zip(RHO[:2], (0.5, 0.5), LOG[:2], strict=True)]
    assert value("lambda_loss", group(), weighing="lambdarank", k=1) == pytest.approx(
        sum(terms) / 2
    )
    # Gains 3, 1 and 0.
    ideal = 3 / D[1] + 1 / D[2]
    gaps = (2 / ideal, 1 / ideal, 3 / ideal)
    terms = [r * g * c for r, g, c in zip(RHO, gaps, LOG, strict=True)]
    assert value(
        "lambda_loss", group(), weighing="lambdarank", gains="exponential"
    ) == pytest.approx(sum(terms) / 3)
    assert value("lambda_loss", group(), sigma=2) != value("lambda_loss", group())


def test_lambda_loss_of_tied_scores_teaches():
    g = group(scores=[0.0, 0.0, 0.0], grades=[0, 1, 0])
    (gradient,) = torch.autograd.grad(
        losses.one(LossSpec(name="lambda_loss", params={"weighing": "lambdarank"}))(g), g.scores
    )
    assert gradient[1] < 0 < gradient[0] + gradient[2]


def test_a_pair_weighs_the_mean_of_its_documents():
    g = group(weights=[1.0, 0.5, 0.0])
    expected = (0.75 * softplus(1) + 0.25 * softplus(-2) + 0.5 * softplus(-1)) / 3
    assert value("ranknet", g) == pytest.approx(expected)


def test_a_document_weighs_its_own_term_and_a_group_the_mean():
    g, plain = group(weights=[1.0, 0.5, 0.0]), group()
    assert value("bce", g) == pytest.approx((softplus(-1) + 0.5 * softplus(-2)) / 3)
    assert value("info_nce", g) == pytest.approx((softplus(-1) + 0.5 * softplus(-2)) / 2)
    assert value("listnet", g) == pytest.approx(0.5 * value("listnet", plain))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("ranknet", {"target": "labels"}, "target 'labels'; expected one of auto, grades, teacher"),
        ("margin", {"margin": -1}, "margin -1; expected a number of at least 0"),
        ("margin_mse", {"pairs": "some"}, "pairs 'some'; expected one of graded, all"),
        ("kl", {"teacher_temperature": 0}, "teacher_temperature 0"),
        ("list_mle", {"ties": "random"}, "ties 'random'; expected one of levels, ranks"),
        ("list_mle", {"discount": "log"}, "discount 'log'"),
        ("adr_mse", {"temperature": 0}, "temperature 0"),
        ("rank_list", {"skip": 1.5}, "skip 1.5; expected a whole number, 1 or more"),
        ("lambda_loss", {"k": 0}, "k 0; expected a whole number, 1 or more"),
        ("lambda_loss", {"weighing": "ndcg"}, "weighing 'ndcg'; expected one of lambdarank, "),
        ("info_nce", {"temperature": "cold"}, "temperature 'cold'"),
        ("tsp_margin", {"margin": -0.5}, "margin -0.5"),
    ],
)
def test_parameters_out_of_range_are_one_line(name, params, message):
    with pytest.raises(RecipeError, match=f"loss '{name}': {message}"):
        losses.one(LossSpec(name=name, params=params))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "ranknet",
            {"target": "teacher"},
            "there are no teacher scores; expected data.teacher_run",
        ),
        ("margin_mse", {}, "there are no teacher scores"),
        ("kl", {}, "there are no teacher scores"),
        ("list_mle", {"ties": "ranks"}, "there are no first-stage ranks; expected candidates with"),
        ("tsp_margin", {}, "there are no weights of pairs; expected a scorer of pairs"),
    ],
)
def test_what_a_group_lacks_is_said(name, params, message):
    with pytest.raises(RecipeError, match=f"loss '{name}': {message}"):
        value(name, group(), **params)


FOLLOWING = [
    ("kl", {}),
    ("margin_mse", {}),
    ("margin_mse", {"pairs": "all"}),
    *(
        (name, {"target": "teacher"})
        for name in ("adr_mse", "list_mle", "listnet", "margin", "rank_list", "ranknet")
    ),
    ("list_mle", {"target": "teacher", "ties": "ranks", "discount": "exponential"}),
    ("tsp_margin", {"target": "teacher"}),
]


@pytest.mark.parametrize(("name", "params"), FOLLOWING)
@pytest.mark.parametrize("weighed", [False, True])
def test_a_query_without_teacher_scores_teaches_nothing(
    name: str, params: dict[str, Any], weighed: bool
) -> None:
    fields = {"weights": [0.5, 1.0, 0.25]} if weighed else {}
    pairs = torch.rand(3, 3, requires_grad=True)
    g = group(teacher=[math.nan] * 3, ranks=[1.0, 2.0, 3.0], **fields)
    g = replace(g, pairs=pairs)
    found = losses.one(LossSpec(name=name, params=params))(g)
    assert found.item() == 0
    found.backward()
    assert g.scores.grad is not None and g.scores.grad.tolist() == [0, 0, 0]
