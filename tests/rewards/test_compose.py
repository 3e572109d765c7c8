"""Composition of rewards by weight and by gate, its mistakes, baselines and monitoring."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import rank_rl.rewards as rewards
from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Completion, Order, Outcome, Pick, Query, numbered
from rank_rl.rewards.baselines import Baselines, answer_kind, baselines
from rank_rl.rewards.compose import Scored
from rank_rl.rewards.monitor import Judged, summary
from rank_rl.specs import FormatSpec, RewardSpec
from rank_rl.strategies.oracle import copy, oracle

SHOWN = [Candidate(docid=d, text="", rank=i + 1) for i, d in enumerate("abc")]
VIEW = numbered(Query(qid="q", text="?"), SHOWN)
GRADES = {"c": 2, "b": 1}
BLANK = Completion(text="")
BEST = Outcome(status="ok", answer=Order(docids=("c", "b", "a")))
REPAIRED = Outcome(status="repaired", answer=BEST.answer, issues=("trailing_text",))


def spec(name: str, **given) -> RewardSpec:
    return RewardSpec(name=name, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A reward from outside the table."""

    value: float | None
    name: str = "constant"
    bounds: tuple[float, float] = (-1.0, 1.0)

    def __call__(self, outcome, view, grades, completion):
        return self.value


def test_total_is_the_weighted_sum_of_the_parts():
    composite = rewards.make([spec("ndcg"), spec("rbo", weight=0.5), spec("format", weight=0.1)])
    scored = composite(BEST, VIEW, GRADES, BLANK)
    assert scored.parts == {"ndcg": 1.0, "rbo": pytest.approx(1.0), "format": 1.0}
    assert scored.total == pytest.approx(1.6)
    assert composite.bounds == (0.0, pytest.approx(1.6))


def test_a_part_that_does_not_apply_is_not_counted():
    composite = rewards.make([spec("ndcg"), spec("recall", params={"k": 3}), spec("format")])
    scored = composite(BEST, VIEW, GRADES, BLANK)
    assert scored.parts["recall"] is None
    assert scored.total == pytest.approx(2.0)


def outside(value: float | None, name: str, **given) -> RewardSpec:
    return spec(f"{__name__}:Constant", params={"value": value, "name": name}, **given)


@pytest.mark.parametrize(("key", "paid"), [(0.6, 0.7), (0.5, 0.7), (0.4, -1.0), (None, 0.7)])
def test_a_closed_gate_pays_the_low_bound_and_an_inapplicable_one_is_open(key, paid):
    composite = rewards.make([outside(0.7, "gated", gate="key"), outside(key, "key", weight=0)])
    assert composite(BEST, VIEW, GRADES, BLANK).parts["gated"] == paid


def test_gates_look_at_values_before_gates():
    composite = rewards.make(
        [
            outside(0.7, "first", gate="second"),
            outside(0.9, "second", gate="third"),
            outside(0, "third"),
        ]
    )
    assert composite(BEST, VIEW, GRADES, BLANK).parts == {"first": 0.7, "second": -1.0, "third": 0}


def test_a_gate_never_forgives():
    composite = rewards.make([spec("ndcg_gain", gate="format"), spec("format", weight=0.1)])
    assert composite(REPAIRED, VIEW, GRADES, BLANK).parts["ndcg_gain"] == -1.0


def test_the_same_reward_twice_needs_two_names():
    twice = [spec("ndcg"), spec("ndcg", params={"k": 1})]
    with pytest.raises(RecipeError, match="'ndcg': named twice"):
        rewards.make(twice)
    named = [spec("ndcg"), spec("ndcg", params={"k": 1, "name": "ndcg_1"})]
    assert rewards.make(named).names == ("ndcg", "ndcg_1")


@pytest.mark.parametrize(
    ("specs", "line"),
    [
        ([], "no reward"),
        ([spec("ndgc")], "nearest: ndcg"),
        ([spec("ndcg", params={"depth": 3})], "depth"),
        ([spec("length")], "soft_max"),
        ([spec("ndcg", gate="format")], "gate 'format'"),
        ([spec("ndcg", gate="ndcg")], "gate 'ndcg'"),
        ([spec("ndcg", weight=-1.0)], "weight -1.0"),
        ([spec("ndcg", weight=float("nan"))], "weight nan"),
        ([spec("ndcg", weight=0.0)], "every weight is 0"),
    ],
)
def test_mistakes_in_a_recipe_are_one_readable_line(specs, line):
    with pytest.raises(RecipeError, match=line) as caught:
        rewards.make(specs)
    assert "\n" not in str(caught.value)


def test_events_are_counted_by_reward():
    composite = rewards.make([spec("ndcg_gain")])
    kept = Outcome(status="ok", answer=Order(docids=("a", "b", "c")))
    assert composite(kept, VIEW, {"a": 1}, BLANK).events == ("ndcg_gain_undefined",)
    assert composite(BEST, VIEW, GRADES, BLANK).events == ()


def test_baselines_are_copy_and_the_best_answer():
    composite = rewards.make([spec("ndcg_gain"), spec("format", weight=0.1)])
    for kind in ("order", "scores"):
        found = baselines(composite, VIEW, GRADES, kind)
        assert found.copy == pytest.approx(0.1)
        assert found.ceiling == pytest.approx(1.1)


def test_baselines_of_picks_are_the_first_or_last_shown_and_the_best_pick():
    composite = rewards.make([spec("ndcg", params={"k": 1})])
    for name, pick, mode in (("choice", "best", "answer"), ("choice", "worst", "reason")):
        fmt = formats.make(FormatSpec(name=name, mode=mode, params={"pick": pick}))
        assert answer_kind(fmt, VIEW, GRADES) == pick
    graded = VIEW.grades(GRADES)
    best, worst = oracle(VIEW, GRADES, "best").answer, oracle(VIEW, GRADES, "worst").answer
    assert best == Pick(docid=max(graded, key=graded.get))
    assert worst == Pick(docid=min(graded, key=graded.get), worst=True)
    assert copy(VIEW, "best").answer == Pick(docid=VIEW.docids[0])
    assert copy(VIEW, "worst").answer == Pick(docid=VIEW.docids[-1], worst=True)
    found = baselines(composite, VIEW, GRADES, "best")
    assert found.ceiling == 1.0 > found.copy


def test_best_scores_earn_the_score_distribution_in_full():
    composite = rewards.make([spec("ndcg"), spec("score_distribution"), spec("rbo")])
    assert baselines(composite, VIEW, GRADES, "scores").ceiling == pytest.approx(3.0)


def judged(group: str, total: float, status, truncated: bool | None = None) -> Judged:
    return Judged(
        group=group,
        outcome=Outcome(status=status),
        scored=Scored(total=total, parts={}, events=("ndcg_gain_clipped",) if total < 0 else ()),
        baselines=Baselines(copy=0.2, ceiling=1.0),
        truncated=truncated,
    )


def test_summary_rates():
    found = summary(
        [
            judged("p", 0.5, "ok", False),
            judged("p", 0.5, "repaired", False),
            judged("q", 1.0, "ok", True),
            judged("q", -1.0, "failed", True),
            judged("alone", 0.0, "ok", None),
        ]
    )
    assert found == {
        "ranking/reward": pytest.approx(0.2),
        "ranking/copy": pytest.approx(0.2),
        "ranking/ceiling": 1.0,
        "ranking/parse_ok": pytest.approx(0.6),
        "ranking/parse_repaired": pytest.approx(0.2),
        "ranking/parse_failed": pytest.approx(0.2),
        "ranking/ndcg_gain_clipped": pytest.approx(0.2),
        "ranking/truncated": 0.5,
        "ranking/flat_groups": 0.5,
    }
    assert summary([]) == {}
