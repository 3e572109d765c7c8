"""Agreement of the answers of a group: on documents, whatever order each was shown."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

import rank_rl.rewards as rewards
from rank_rl import formats, metrics
from rank_rl.data.rows import group_rows
from rank_rl.errors import RecipeError
from rank_rl.records import (
    Candidate,
    Completion,
    Order,
    Outcome,
    Pick,
    Query,
    RankingTask,
    Scores,
    View,
    numbered,
)
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.rewards.agreement import Agreement
from rank_rl.rewards.base import GroupReward, tiers
from rank_rl.specs import FormatSpec, RecipeSpec, RewardSpec
from rank_rl.strategies.oracle import copy, oracle

DOCS = tuple(Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in range(1, 6))
QUERY = Query(qid="q", text="?")
GRADES = {"d2": 2, "d4": 1}
WHOLE = {"d2": 5, "d4": 4, "d1": 3, "d3": 2, "d5": 1}  # the best order, ties by first-stage rank
VIEW = numbered(QUERY, DOCS)
FAILED = Outcome(status="failed")


def order(*numbers: int) -> Outcome:
    return Outcome(status="ok", answer=Order(docids=tuple(f"d{i}" for i in numbers)))


def among(*outcomes: Outcome, views: list[View] | None = None, **params) -> list[float | None]:
    return Agreement(**params).among(outcomes, views or [VIEW] * len(outcomes), GRADES)


def test_it_is_the_mean_correlation_with_the_other_answers():
    answers = [(1, 2, 3, 4, 5), (2, 1, 3, 5, 4), (5, 4, 3, 2, 1)]
    taus = among(*(order(*a) for a in answers))
    overlaps = among(*(order(*a) for a in answers), measure="rbo", p=0.8)
    for i, own in enumerate(answers):
        others = [other for j, other in enumerate(answers) if j != i]
        named = [[f"d{n}" for n in a] for a in (own, *others)]
        assert taus[i] == pytest.approx(fmean(metrics.kendall(named[0], o) for o in named[1:]))
        expected = fmean(metrics.rbo(named[0], o, 0.8) for o in named[1:])
        assert overlaps[i] == pytest.approx(expected)


def orders_of(outcome: Outcome) -> list[tuple[str, ...]]:
    options = [list(itertools.permutations(tier)) for tier in tiers(outcome, VIEW)]
    return [tuple(itertools.chain(*chosen)) for chosen in itertools.product(*options)]


def test_overlap_of_ties_is_the_mean_over_their_orders():
    draw = random.Random(0)
    for _ in range(30):
        pair = [
            Outcome(
                status="ok",
                answer=Scores(values={d: float(draw.randrange(3)) for d in VIEW.docids}),
            )
            for _ in range(2)
        ]
        expected = fmean(metrics.rbo(a, b) for a in orders_of(pair[0]) for b in orders_of(pair[1]))
        assert among(*pair, measure="rbo")[0] == pytest.approx(expected)


def test_an_answer_alone_is_paid_nothing_and_a_malformed_one_the_least():
    assert among(order(1, 2, 3, 4, 5)) == [None]
    assert among(order(1, 2, 3, 4, 5), FAILED) == [None, -1.0]
    assert among(FAILED, FAILED) == [-1.0, -1.0]
    found = among(order(1, 2, 3, 4, 5), FAILED, order(1, 2, 3, 4, 5))
    assert found == pytest.approx([1.0, -1.0, 1.0])
    assert among(order(1, 2, 3, 4, 5), FAILED, measure="rbo") == [None, 0.0]
    one = Agreement()
    assert isinstance(one, GroupReward)
    assert one(order(1, 2, 3, 4, 5), VIEW, GRADES, Completion(text="")) is None


def test_saying_little_is_no_way_to_agree():
    tied = Outcome(status="ok", answer=Scores(values=dict.fromkeys(VIEW.docids, 1.0)))
    assert among(tied, tied) == [0.0, 0.0]
    # What an order leaves out is tied: the first stage, which fills it up, is no agreement.
    assert among(order(3), order(5))[0] == pytest.approx(-1 / 4)
    picks = [Outcome(status="ok", answer=Pick(docid=d)) for d in ("d3", "d3", "d5")]
    assert among(*picks)[0] == pytest.approx((1 - 1 / 4) / 2)
    alone = numbered(QUERY, DOCS[:1])
    assert among(order(1), order(1), views=[alone, alone]) == [None, None]


def shuffled(count: int) -> list[View]:
    draw = random.Random(1)
    return [numbered(QUERY, draw.sample(DOCS, len(DOCS))) for _ in range(count)]


@pytest.mark.parametrize("kind", ["order", "scores", "best", "worst"])
def test_copying_agrees_where_all_see_one_order_and_earns_chance_where_they_do_not(kind):
    same = among(*(copy(VIEW, kind) for _ in range(4)))
    assert same == pytest.approx([1.0] * 4)
    views = shuffled(60)
    found = among(*(copy(v, kind) for v in views), views=views)
    assert abs(fmean(found)) < 0.05
    right = among(*(oracle(v, GRADES, kind) for v in views), views=views)
    assert fmean(right) == pytest.approx(1.0)


def trl(*specs: RewardSpec, **form) -> TrlRewards:
    fmt = formats.make(FormatSpec(name="permutation", **form))
    return TrlRewards(rewards.make(specs), fmt)


def columns_of(adapter: TrlRewards, views: list[View], groups: list[str]) -> dict[str, list]:
    rows = []
    for view, group in zip(views, groups, strict=True):
        task = RankingTask(query=view.query, candidates=view.candidates, grades=GRADES)
        (row,) = group_rows(task, [view], adapter.fmt)
        rows.append({**row, "group": group})
    return {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}


NDCG = RewardSpec(name="ndcg")
FORMAT = RewardSpec(name="format", weight=0.5)
AGREE = RewardSpec(name="agreement", weight=0.2)


def test_groups_are_compared_one_by_one_with_gates_and_baselines():
    adapter = trl(NDCG, FORMAT, AGREE.model_copy(update={"gate": "format"}))
    views = shuffled(6)
    texts = [adapter.fmt.ideal(v, WHOLE) for v in views[:3]]
    texts += [adapter.fmt.ideal(views[3], {}), "no idea", adapter.fmt.ideal(views[5], {"d5": 3})]
    columns = columns_of(adapter, views, ["q#1"] * 3 + ["q#2"] * 3)
    judged = adapter.judge(texts, None, columns)
    parts = [j.scored.parts["agreement"] for j in judged]
    assert parts[:3] == pytest.approx([1.0] * 3)
    pair = [judged[i].outcome.as_order(views[i]) for i in (3, 5)]
    assert parts[3] == parts[5] == pytest.approx(metrics.kendall(*pair))
    assert parts[4] == -1.0
    for j in judged:
        weighed = [(j.scored.parts[n] or 0.0) * w for n, w in zip(
            adapter.composite.names, adapter.weights, strict=True)]  # fmt: skip
        assert j.scored.total == pytest.approx(sum(weighed))
    copies = among(*(copy(v) for v in views[:3]), views=views[:3])
    ndcg = [metrics.ndcg(v.docids, v.grades(GRADES)) for v in views[:3]]
    expected = [n + 0.5 + 0.2 * c for n, c in zip(ndcg, copies, strict=True)]
    assert [j.baselines.copy for j in judged[:3]] == pytest.approx(expected)
    assert {round(j.baselines.ceiling, 9) for j in judged} == {1.7}


def test_functions_give_trainers_what_the_group_earned():
    adapter = trl(NDCG, AGREE)
    columns = columns_of(adapter, [VIEW] * 3, ["q#1"] * 3)
    texts = [adapter.fmt.ideal(VIEW, GRADES), adapter.fmt.ideal(VIEW, GRADES), "no idea"]
    values = {f.__name__: f(completions=texts, **columns) for f in adapter.functions}
    assert values["agreement"] == pytest.approx([1.0, 1.0, -1.0])
    assert values["ndcg"] == [1.0, 1.0, 0.0]


def test_a_gate_may_look_at_the_group():
    gated = NDCG.model_copy(update={"gate": "agreement", "gate_min": 0.5})
    adapter = trl(gated, AGREE, FORMAT)
    columns = columns_of(adapter, [VIEW] * 2, ["q#1"] * 2)
    agree = adapter.judge([adapter.fmt.ideal(VIEW, GRADES)] * 2, None, columns)
    assert [j.scored.parts["ndcg"] for j in agree] == [1.0, 1.0]
    ideal, reverse = (adapter.fmt.ideal(VIEW, g) for g in (GRADES, {"d5": 3, "d3": 2}))
    differ = adapter.judge([ideal, reverse], None, columns)
    assert [j.scored.parts["ndcg"] for j in differ] == [0.0, 0.0]


def test_agreeing_is_not_paid_alone():
    with pytest.raises(RecipeError, match="agreeing with one another alone.*such as ndcg"):
        rewards.make([AGREE])
    with pytest.raises(RecipeError, match="agreeing with one another alone"):
        rewards.make([AGREE, NDCG.model_copy(update={"weight": 0.0})])


def test_drawn_orders_have_nothing_to_agree_on():
    sections = {
        "run": {"name": "r", "output_dir": "out"},
        "model": {"name": "m"},
        "data": {"source": "bundled"},
        "format": {"name": "slots"},
        "rewards": [{"name": "ndcg"}, {"name": "agreement"}],
        "grpo": {"policy": "slots"},
    }
    with pytest.raises(ValueError, match="'agreement' compares written answers"):
        RecipeSpec.model_validate(sections)
