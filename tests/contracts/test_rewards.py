"""Contracts of every reward in the table, and of the composites that recipes are made of.

Within bounds for any outcome; the ideal answer earns at least what any other does; a malformed
text never more than a valid one. And for composites with a format reward strictly:
malformed < worse than the input < copy < better.
"""

from __future__ import annotations

import math
import random

import pytest

import rank_rl.rewards as rewards
from rank_rl.records import (
    Candidate,
    Completion,
    Grades,
    Order,
    Outcome,
    Pick,
    Query,
    Scores,
    View,
    numbered,
)
from rank_rl.rewards.baselines import baselines
from rank_rl.specs import RewardSpec
from rank_rl.strategies.oracle import copy, oracle

PARAMS = {
    "length": {"soft_max": 50},
    "overlong": {"max_length": 100, "buffer": 50},
    "recall": {"k": 2},
    # The oracle's scores are the grades, 0 to 3.
    "label_agree": {"max": 3, "grade_max": 3},
    "calibration": {"max": 3, "grade_max": 3},
}
COMPOSITES = {
    "list": ["ndcg", ("recall", 0.2), ("rbo", 0.1), ("format", 0.1)],
    "gain": [("ndcg_gain", 0.8), ("format", 0.2), ("length", 0.1)],
    "group": ["ndcg", ("recall", 0.2), ("score_distribution", 0.1), ("format", 0.1)],
    "overlong": ["ndcg", ("format", 0.2), ("overlong", 0.5)],
    "order": ["pair_agree", ("kendall", 0.5), ("mrr", 0.2), ("format", 0.2)],
    "pick": ["ndcg", "pick_match", ("format", 0.5), ("agreement", 0.2)],
    "elimination": ["ndcg", ("survived", 0.5), ("format", 0.2)],
    "all": [
        "ndcg",
        "ndcg_gain",
        "recall",
        "rbo",
        "mrr",
        "kendall",
        "pair_agree",
        "pick_match",
        "survived",
        "score_distribution",
        "format",
        "length",
        "overlong",
    ],
}
LABELS = ["label_agree", ("calibration", 0.5), ("format", 0.5)]
KINDS = ["order", "scores"]
ALL_KINDS = [*KINDS, "best", "worst"]
ISSUES = ["repeated", "trailing_text", "no_answer_tag", "missing"]
CASES = range(150)


def composite(name: str, gate: str | None = None) -> rewards.Composite:
    listed = LABELS if name == "labels" else COMPOSITES[name]
    parts = [(p, 1.0) if isinstance(p, str) else p for p in listed]
    return rewards.make(
        [
            RewardSpec(
                name=p, weight=weight, params=PARAMS.get(p, {}), gate=None if p == gate else gate
            )
            for p, weight in parts
        ]
    )


def single(name: str):
    return rewards.one(RewardSpec(name=name, params=PARAMS.get(name, {})))


def case(seed: int) -> tuple[View, Grades, random.Random]:
    """A view of 2-9 documents shown out of first-stage order, with at least one relevant."""
    draw = random.Random(seed)
    size = draw.randrange(2, 10)
    docs = [Candidate(docid=f"d{i}", text="", rank=i + 1) for i in range(size)]
    draw.shuffle(docs)
    grades = {c.docid: draw.choice([0, 0, 0, 1, 2, 3]) for c in docs}
    grades[f"d{draw.randrange(size)}"] = draw.randrange(1, 4)
    grades["not shown"] = 3
    return numbered(Query(qid="q", text="?"), docs), grades, draw


def any_answer(view: View, draw: random.Random, kind: str) -> Order | Scores | Pick:
    docids = [*view.docids, "foreign"]
    if kind in ("best", "worst"):
        return Pick(docid=draw.choice(docids), worst=kind == "worst")
    if kind == "order":
        if draw.random() < 0.5:
            return Order(docids=tuple(draw.sample(view.docids, len(view.docids))))
        return Order(docids=tuple(draw.choices(docids, k=draw.randrange(1, 12))))
    numbers = [*range(11), *range(4), -2.5, math.nan, math.inf]
    return Scores(values={d: float(draw.choice(numbers)) for d in docids if draw.random() < 0.9})


def well_formed(view: View, draw: random.Random, kind: str) -> Outcome:
    """An answer that keeps the rules: every document once, finite scores from a short scale."""
    if kind in ("best", "worst"):
        answer: Order | Scores | Pick = Pick(docid=draw.choice(view.docids), worst=kind == "worst")
    elif kind == "order":
        answer = Order(docids=tuple(draw.sample(view.docids, len(view.docids))))
    else:
        answer = Scores(values={d: float(draw.randrange(4)) for d in view.docids})
    return Outcome(status="ok", answer=answer)


def malformed(view: View, grades: Grades, draw: random.Random, kind: str) -> Outcome:
    """A text that broke its format, often around a perfect answer."""
    issues = tuple(draw.sample(ISSUES, draw.randrange(1, 4)))
    reasoning = draw.choice(["", "because"])
    if draw.random() < 0.3:
        return Outcome(status="failed", issues=issues, reasoning=reasoning)
    answer = oracle(view, grades, kind).answer
    if draw.random() < 0.3:
        answer = any_answer(view, draw, kind)
    return Outcome(status="repaired", answer=answer, issues=issues, reasoning=reasoning)


def tokens(draw: random.Random) -> Completion:
    return Completion(text="", completion_tokens=draw.choice([0, 10, 60, 75, 100, 5000]))


@pytest.mark.parametrize("name", rewards.TABLE)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_within_bounds_for_any_outcome(name, kind):
    reward = single(name)
    low, high = reward.bounds
    for seed in CASES:
        view, grades, draw = case(seed)
        if seed % 10 == 0:
            grades = {}
        status = draw.choice(["ok", "ok", "repaired", "failed"])
        answer = None if draw.random() < 0.1 else any_answer(view, draw, kind)
        outcome = Outcome(status=status, answer=answer, issues=tuple(draw.sample(ISSUES, 2)))
        value = reward(outcome, view, grades, tokens(draw))
        assert value is None or low <= value <= high


@pytest.mark.parametrize("name", rewards.TABLE)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_ideal_earns_the_most_and_a_malformed_text_the_least(name, kind):
    reward = single(name)
    for seed in CASES:
        view, grades, draw = case(seed)
        same = Completion(text="", completion_tokens=70)
        best = reward(oracle(view, grades, kind), view, grades, same)
        other = reward(well_formed(view, draw, kind), view, grades, same)
        broken = reward(malformed(view, grades, draw, kind), view, grades, same)
        assert (best is None) == (other is None)
        if best is not None:
            assert broken <= other <= best + 1e-9


@pytest.mark.parametrize(
    "name",
    [
        "ndcg",
        "rbo",
        "ndcg_gain",
        "mrr",
        "kendall",
        "pair_agree",
        "score_distribution",
        "label_agree",
        "calibration",
        "format",
        "length",
        "overlong",
    ],
)
def test_the_ideal_earns_the_upper_bound(name):
    reward = single(name)
    for seed in CASES:
        view, grades, _ = case(seed)
        value = reward(oracle(view, grades, "scores"), view, grades, Completion(text=""))
        if value is None:  # pairs need two grades
            assert name in ("kendall", "pair_agree")
            assert len(set(view.grades(grades).values())) == 1
            continue
        at_best = metrics_at_best(name, view, grades)
        assert value == pytest.approx(0.0 if at_best else reward.bounds[1])


def metrics_at_best(name: str, view: View, grades: Grades) -> bool:
    """Whether nothing can be gained: the order shown is already one of the best."""
    shown = [view.grades(grades)[d] for d in view.docids]
    return name == "ndcg_gain" and shown == sorted(shown, reverse=True)


@pytest.mark.parametrize("name", rewards.TABLE)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_applying_does_not_depend_on_how_good_the_answer_is(name, kind):
    reward = single(name)
    for seed in CASES:
        view, grades, draw = case(seed)
        if seed % 3 == 0:
            grades = {}
        values = [
            reward(well_formed(view, draw, kind), view, grades, tokens(draw)) for _ in range(3)
        ]
        assert len({v is None for v in values}) == 1


@pytest.mark.parametrize("name", [*COMPOSITES, "labels"])
@pytest.mark.parametrize("gate", [None, "format"])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_malformed_is_strictly_under_every_valid_answer(name, gate, kind):
    reward = composite(name, gate)
    low, high = reward.bounds
    for seed in CASES:
        view, grades, draw = case(seed)
        if seed % 10 == 0:
            grades = {}
        broken = reward(malformed(view, grades, draw, kind), view, grades, tokens(draw)).total
        worst = reward(well_formed(view, draw, kind), view, grades, tokens(draw)).total
        reverse = Outcome(
            status="ok", answer=Order(docids=oracle(view, grades).as_order(view)[::-1])
        )
        long = Completion(text="", completion_tokens=5000)
        assert broken < worst
        if kind == "order":
            assert broken < reward(reverse, view, grades, long).total
        assert low - 1e-9 <= broken <= worst <= high + 1e-9


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("gate", [None, "format"])
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_worse_copy_better_ideal(name, gate, kind):
    reward = composite(name, gate)
    steps = 0
    for seed in CASES:
        view, grades, draw = case(seed)
        graded = view.grades(grades)
        same = Completion(text="", completion_tokens=70)

        def total(outcome: Outcome, view=view, grades=grades, same=same) -> float:
            return reward(outcome, view, grades, same).total

        copied = total(copy(view, kind))
        broken = total(malformed(view, grades, draw, kind))
        best = total(oracle(view, grades, kind))
        for i in range(len(view.docids) - 1):
            upper, lower = graded[view.docids[i]], graded[view.docids[i + 1]]
            if upper == lower:
                continue
            swapped = total(swap(view, i, kind))
            if upper > lower:
                assert broken < swapped < copied <= best + 1e-9
            else:
                assert broken < copied < swapped <= best + 1e-9
            steps += 1
    assert steps > 100


def swap(view: View, i: int, kind: str) -> Outcome:
    """The input with the documents at positions i and i + 1 exchanged."""
    docids = list(view.docids)
    docids[i], docids[i + 1] = docids[i + 1], docids[i]
    if kind == "order":
        return Outcome(status="ok", answer=Order(docids=tuple(docids)))
    values = {d: float(len(docids) - j) for j, d in enumerate(docids)}
    return Outcome(status="ok", answer=Scores(values=values))


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_ceiling_is_reached_by_no_other_answer(name, kind):
    reward = composite(name)
    for seed in CASES:
        view, grades, draw = case(seed)
        lines = baselines(reward, view, grades, kind)
        assert lines.copy <= lines.ceiling + 1e-9
        other = well_formed(view, draw, kind)
        assert reward(other, view, grades, tokens(draw)).total <= lines.ceiling + 1e-9
