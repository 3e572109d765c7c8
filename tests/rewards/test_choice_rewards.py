"""Rewards for picks, pairs, labels and calibration: literal values, and ties by brute force."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean

import pytest

import rank_rl.rewards as rewards
from rank_rl import formats, metrics
from rank_rl.errors import RecipeError
from rank_rl.records import (
    Candidate,
    Completion,
    Order,
    Outcome,
    Pick,
    Query,
    Scores,
    View,
    numbered,
)
from rank_rl.rewards import adversaries
from rank_rl.rewards.base import tiers
from rank_rl.rewards.labels import Calibration, LabelAgree
from rank_rl.rewards.lint import Report, lint
from rank_rl.rewards.pairwise import Kendall, PairAgree
from rank_rl.rewards.picks import PickMatch, Survived
from rank_rl.rewards.ranking import Mrr
from rank_rl.specs import FormatSpec, RewardSpec

BLANK = Completion(text="")
FAILED = Outcome(status="failed", issues=("no_choice",))
OUTSIDE = Outcome(status="failed", issues=("out_of_range", "no_choice"))


def view_of(*docids: str) -> View:
    shown = [Candidate(docid=d, text="", rank=i + 1) for i, d in enumerate(docids)]
    return numbered(Query(qid="q", text="?"), shown)


def order(*docids: str) -> Outcome:
    return Outcome(status="ok", answer=Order(docids=docids))


def scores(**values: float) -> Outcome:
    return Outcome(status="ok", answer=Scores(values=values))


def pick(docid: str, *, worst: bool = False) -> Outcome:
    return Outcome(status="ok", answer=Pick(docid=docid, worst=worst))


ABC = view_of("a", "b", "c")
GRADES = {"a": 0, "b": 2, "c": 1, "not shown": 3}


def test_a_pick_is_right_when_nothing_shown_has_a_higher_grade():
    paid = {d: PickMatch()(pick(d), ABC, GRADES, BLANK) for d in "abc"}
    assert paid == {"a": 0.0, "b": 1.0, "c": 0.0}
    graded = {d: PickMatch(graded=True)(pick(d), ABC, GRADES, BLANK) for d in "abc"}
    assert graded == {"a": 0.0, "b": 1.0, "c": 0.5}
    assert PickMatch()(order("b", "a", "c"), ABC, GRADES, BLANK) == 1.0
    assert PickMatch()(scores(a=1, b=1, c=0), ABC, GRADES, BLANK) == 0.5
    # The worst one picked leaves the others tied before it.
    assert PickMatch()(pick("a", worst=True), ABC, GRADES, BLANK) == 0.5
    assert PickMatch()(FAILED, ABC, GRADES, BLANK) == 0.0


def test_what_is_left_out_must_not_be_the_best():
    paid = {d: Survived()(pick(d, worst=True), ABC, GRADES, BLANK) for d in "abc"}
    assert paid == {"a": 1.0, "b": 0.0, "c": 1.0}
    graded = {d: Survived(graded=True)(pick(d, worst=True), ABC, GRADES, BLANK) for d in "abc"}
    assert graded == {"a": 1.0, "b": 0.0, "c": 0.5}
    assert Survived()(order("a", "c", "b"), ABC, GRADES, BLANK) == 0.0
    assert Survived()(scores(a=1, b=0, c=0), ABC, GRADES, BLANK) == 0.5
    assert Survived()(FAILED, ABC, GRADES, BLANK) == -1.0
    assert Survived()(OUTSIDE, ABC, GRADES, BLANK) == -0.5
    repaired = Outcome(status="repaired", answer=Order(docids=("b",)), issues=("out_of_range",))
    assert Survived()(repaired, ABC, GRADES, BLANK) == -1.0


def test_a_pick_outside_the_view_is_read_as_such_by_the_format():
    fmt = formats.make(FormatSpec(name="choice", params={"pick": "worst"}))
    for text, paid in (("[2]", 0.0), ("[1]", 1.0), ("[7]", -0.5), ("none of them", -1.0)):
        assert Survived()(fmt.parse(text, ABC), ABC, GRADES, BLANK) == paid


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("<think>so</think><answer>[9]</answer>", -0.5),
        ("<think>so</think><answer>[2]</answer>", 0.0),
        ("[9]", -1.0),
        ("[2]", -1.0),
        ("so\n[9]", -1.0),
        ("<think>so</think>[9]", -1.0),
        ("<think>so</think><answer>[9]</answer> then", -1.0),
        ("<think>so</think><answer>9</answer>", -1.0),
        ("<think>so</think><answer>perhaps [9]</answer>", -1.0),
    ],
)
def test_a_label_outside_the_view_is_paid_as_such_only_in_a_well_formed_text(answer, paid):
    fmt = formats.make(FormatSpec(name="choice", mode="reason", params={"pick": "worst"}))
    assert Survived()(fmt.parse(answer, ABC), ABC, GRADES, BLANK) == paid


def test_no_broken_text_earns_more_by_naming_a_label_outside_the_view():
    for mode in ("answer", "reason"):
        fmt = formats.make(FormatSpec(name="choice", mode=mode, params={"pick": "worst"}))
        for view, grades in adversaries.cases(6):
            made = {a.name: a for a in adversaries.broken(fmt, view, grades)}
            names = ("id out of range in prose", "id out of range without form")
            named = [made[name] for name in names]
            for text in named:
                assert "out_of_range" in text.outcome.issues
                assert Survived()(text.outcome, view, grades, BLANK) == -1.0
            assert Survived()(made["id out of range"].outcome, view, grades, BLANK) == -0.5


@pytest.mark.parametrize("reward", [PickMatch(), Survived(), PairAgree(), Kendall()])
def test_equal_grades_do_not_apply_to_good_nor_bad_texts(reward):
    for grades in ({}, {"a": 2, "b": 2, "c": 2}, {"not shown": 1}):
        assert reward(scores(a=1, b=0, c=0), ABC, grades, BLANK) is None
        assert reward(FAILED, ABC, grades, BLANK) is None


def random_case(seed: int) -> tuple[View, dict[str, int], Outcome]:
    """Up to five documents, and an answer with ties: scores or a pick."""
    draw = random.Random(seed)
    view = view_of(*"abcde"[: draw.randrange(2, 6)])
    grades = {d: draw.choice([0, 0, 1, 2]) for d in view.docids}
    if draw.random() < 0.3:
        return view, grades, pick(draw.choice(view.docids), worst=draw.random() < 0.5)
    return view, grades, scores(**{d: float(draw.randrange(3)) for d in view.docids})


def orders_of(outcome: Outcome, view: View) -> list[Outcome]:
    """Every order that breaks an answer's ties, all equally likely."""
    options = [list(itertools.permutations(tier)) for tier in tiers(outcome, view)]
    return [order(*(d for tier in chosen for d in tier)) for chosen in itertools.product(*options)]


@pytest.mark.parametrize(
    "reward",
    [PickMatch(), PickMatch(graded=True), Survived(), Survived(graded=True), PairAgree()]
    + [Mrr(), Mrr(k=1), Mrr(k=2)],
    ids=repr,
)
def test_ties_earn_the_mean_over_their_orders(reward):
    applied = 0
    for seed in range(300):
        view, grades, outcome = random_case(seed)
        paid = reward(outcome, view, grades, BLANK)
        single = [reward(o, view, grades, BLANK) for o in orders_of(outcome, view)]
        assert (paid is None) == (None in single)
        if paid is not None:
            assert paid == pytest.approx(fmean(single))
            applied += 1
    assert applied > 150


def test_mrr_of_an_order_is_the_reciprocal_rank():
    for seed in range(100):
        view, grades, _ = random_case(seed)
        shown = random.Random(seed).sample(view.docids, len(view.docids))
        if any(grades.values()):
            expected = metrics.reciprocal_rank(shown, grades, 3)
            assert Mrr(k=3)(order(*shown), view, grades, BLANK) == pytest.approx(expected)


def tau_b(outcome: Outcome, view: View, grades: dict[str, int]) -> float | None:
    """Kendall's tau-b by its definition over pairs."""
    place = {d: -i for i, tier in enumerate(tiers(outcome, view)) for d in tier}
    signs = [
        (
            (place[a] > place[b]) - (place[a] < place[b]),
            (grades[a] > grades[b]) - (grades[a] < grades[b]),
        )
        for a, b in itertools.combinations(view.docids, 2)
    ]
    told = sum(x != 0 for x, _ in signs)
    differ = sum(y != 0 for _, y in signs)
    if not differ:
        return None
    return sum(x * y for x, y in signs) / math.sqrt(told * differ) if told else 0.0


def test_kendall_is_tau_b_against_the_grades():
    assert Kendall()(scores(a=0, b=9, c=3), ABC, GRADES, BLANK) == 1.0
    assert Kendall()(order("a", "c", "b"), ABC, GRADES, BLANK) == -1.0
    assert Kendall()(scores(a=1, b=1, c=1), ABC, GRADES, BLANK) == 0.0
    for seed in range(300):
        view, grades, outcome = random_case(seed)
        for one in (outcome, *orders_of(outcome, view)[:3]):
            assert Kendall()(one, view, grades, BLANK) == pytest.approx(tau_b(one, view, grades))


def test_labels_are_those_of_the_grades():
    binary = LabelAgree()
    assert binary(scores(a=0, b=1, c=1), ABC, GRADES, BLANK) == 1.0
    assert binary(scores(a=1, b=1, c=0), ABC, GRADES, BLANK) == pytest.approx(1 / 3)
    assert binary(scores(a=0, b=1), ABC, GRADES, BLANK) == pytest.approx(2 / 3)  # c is missing
    assert binary(scores(a=0.4, b=0.5, c=7.0), ABC, GRADES, BLANK) == 1.0
    ten = LabelAgree(max=10, grade_max=2)
    assert ten(scores(a=0, b=10, c=5), ABC, GRADES, BLANK) == 1.0
    assert ten(scores(a=1, b=9, c=4), ABC, GRADES, BLANK) == 0.0
    assert LabelAgree(max=10, grade_max=2, within=1)(
        scores(a=1, b=9, c=3), ABC, GRADES, BLANK
    ) == pytest.approx(2 / 3)
    assert binary(scores(a=0, b=0, c=0), ABC, {}, BLANK) == 1.0  # that nothing is relevant
    assert binary(scores(a=math.nan, b=0, c=0), ABC, {}, BLANK) == pytest.approx(2 / 3)


def test_labels_of_a_format_agree_with_its_own_ideal_answer():
    cases = [("pointwise", {"max": 3, "grade_max": 3}, 3, 3), ("scores", {"grade_max": 3}, 10, 3)]
    cases += [("slots", {}, 1, 1), ("slots", {"labels": ["0", "1", "2", "3"]}, 3, 3)]
    for name, params, most, grade_max in cases:
        fmt = formats.make(FormatSpec(name=name, params=params))
        for grade in range(4):
            view = view_of("a")
            said = fmt.parse(fmt.ideal(view, {"a": grade}), view)
            reward = LabelAgree(max=most, grade_max=grade_max)
            assert reward(said, view, {"a": grade}, BLANK) == 1.0, (name, grade)


def test_calibration_by_its_three_measures():
    said = scores(a=2, b=8, c=10)
    wanted = {"a": 0.0, "b": 1.0, "c": 0.5}
    given = {"a": 0.2, "b": 0.8, "c": 1.0}
    squared = fmean((given[d] - wanted[d]) ** 2 for d in "abc")
    off = fmean(abs(given[d] - wanted[d]) for d in "abc")
    scale = {"max": 10, "grade_max": 2}
    assert Calibration(**scale)(said, ABC, GRADES, BLANK) == pytest.approx(1 - squared)
    absolute = Calibration(measure="absolute", **scale)
    assert absolute(said, ABC, GRADES, BLANK) == pytest.approx(1 - off)
    # Two bins: a alone, b and c together, whose errors cancel out in part.
    binned = Calibration(measure="ece", bins=2, **scale)
    error = (0.2 + abs((0.8 - 1.0) + (1.0 - 0.5))) / 3
    assert binned(said, ABC, GRADES, BLANK) == pytest.approx(1 - error)
    # The trap of ece: the share of relevant documents, said of all, is perfectly calibrated.
    constant = scores(a=5, b=5, c=5)
    assert binned(constant, ABC, GRADES, BLANK) == pytest.approx(1.0)
    assert Calibration(**scale)(constant, ABC, GRADES, BLANK) < 1.0
    assert absolute(scores(a=0, b=10), ABC, GRADES, BLANK) == pytest.approx(2 / 3)


@pytest.mark.parametrize("reward", [LabelAgree(), Calibration()])
def test_orders_and_picks_have_no_labels(reward):
    assert reward(order("a", "b", "c"), ABC, GRADES, BLANK) is None
    assert reward(pick("b"), ABC, GRADES, BLANK) is None
    assert reward(FAILED, ABC, GRADES, BLANK) == 0.0


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("pick_match", {"malformed": 0.1}),
        ("survived", {"malformed": -0.1}),
        ("survived", {"out_of_pool": 0.5}),
        ("mrr", {"k": 0}),
        ("kendall", {"malformed": 0}),
        ("label_agree", {"max": 0}),
        ("label_agree", {"within": 1}),
        ("label_agree", {"grade_max": True}),
        ("calibration", {"measure": "ECE"}),
        ("calibration", {"max": 0}),
        ("calibration", {"bins": 0}),
        ("agreement", {"measure": "kendall"}),
        ("agreement", {"p": 1.0}),
        ("agreement", {"malformed": -0.5}),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(name, params):
    with pytest.raises(RecipeError, match=rf"^reward '{name}': .*; expected "):
        rewards.one(RewardSpec(name=name, params=params))


def linted(fmt_name: str, params: dict, *specs: tuple, size: int = 8, mode="answer") -> Report:
    fmt = formats.make(FormatSpec(name=fmt_name, mode=mode, params=params))
    parts = [RewardSpec(name=n, weight=w, params=p) for n, w, p in specs]
    return lint(rewards.make(parts), adversaries.cases(size), fmt)


FORMAT = ("format", 0.5, {})


@pytest.mark.parametrize(
    ("fmt", "params", "reward"),
    [
        ("choice", {}, "pick_match"),
        ("choice", {"pick": "worst"}, "survived"),
        ("permutation", {}, "pick_match"),
        ("permutation", {}, "pair_agree"),
        ("permutation", {}, "kendall"),
        ("permutation", {}, "mrr"),
        ("scores", {}, "pair_agree"),
        ("scores", {}, "kendall"),
        ("scores", {}, "mrr"),
        ("choice", {}, "kendall"),
        ("choice", {}, "pair_agree"),
    ],
)
@pytest.mark.parametrize("mode", ["answer", "reason"])
def test_each_keeps_the_order_malformed_worse_copy_better(fmt, params, reward, mode):
    report = linted(fmt, params, (reward, 1.0, {}), FORMAT, mode=mode)
    assert [b.line() for b in report.breaks] == []
    assert {"malformed", "worse", "copy", "ideal"} <= {p.level for p in report.paid}


def test_labels_are_not_held_against_the_order_of_adversaries():
    labels = [("label_agree", 3.0, {"max": 10, "grade_max": 3}), ("calibration", 1.0, {"max": 10})]
    for parts in ([("ndcg", 1.0, {}), *labels, FORMAT], [*labels, FORMAT]):
        report = linted("scores", {"grade_max": 3}, *parts)
        assert [b.line() for b in report.breaks] == []
        assert any("'label_agree' and 'calibration' left out" in w for w in report.warnings)
