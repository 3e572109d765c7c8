"""Strategies that hold others: what they ask, how results are passed on, and what goes wrong."""

from __future__ import annotations

import pytest
from strategy_tasks import ask, docs, shown, task_of

import rank_rl.strategies as strategies
from rank_rl.errors import RecipeError
from rank_rl.records import Order, Outcome, Pick, Scores, View
from rank_rl.specs import StrategySpec
from rank_rl.strategies.drive import count, run
from rank_rl.strategies.oracle import copy, oracle
from rank_rl.strategies.refine import Refine
from rank_rl.strategies.repeated import Repeated

FAILED = Outcome(status="failed")
SINGLE, SLIDING = {"name": "single"}, {"name": "sliding", "params": {"window": 4, "step": 2}}


def answers(*given):
    """An answerer that says these things in turn; None is a failure."""
    said = iter(given)

    def answer(views: list[View]) -> list[Outcome]:
        found = [next(said) for _ in views]
        return [FAILED if a is None else Outcome(status="ok", answer=a) for a in found]

    return answer


def test_repeats_average_places():
    orders = [Order(docids=docs(*o)) for o in ((3, 1, 2), (1, 2, 3), (1, 3, 2))]
    result = run([task_of(0, 0, 0)], Repeated(strategy=SINGLE, times=3), answers(*orders))[0]
    # Places 2, 1, 1 of d1, 3, 2, 3 of d2 and 1, 3, 2 of d3, counted from the end.
    assert result.ranking.docids == docs(1, 3, 2)
    assert result.ranking.scores == pytest.approx((8 / 3, 2.0, 4 / 3))
    assert (result.calls, result.depth) == (3, 1)


def test_repeats_average_scores_where_asked_for():
    scores = [Scores(values={"d1": 1.0, "d2": 9.0}), Scores(values={"d1": 4.0, "d2": 0.0})]
    by_score = {"strategy": {"name": "by_score"}, "times": 2}
    result = run([task_of(0, 0)], Repeated(**by_score, by="score"), answers(*scores))[0]
    assert (result.ranking.docids, result.ranking.scores) == (docs(2, 1), (4.5, 2.5))
    places = run([task_of(0, 0)], Repeated(**by_score), answers(*scores))[0]
    assert (places.ranking.docids, places.ranking.scores) == (docs(1, 2), (1.5, 1.5))


def test_repeats_of_a_strategy_without_scores_average_places():
    orders = [Order(docids=docs(2, 1))] * 2
    strategy = Repeated(strategy=SINGLE, times=2, by="score")
    assert run([task_of(0, 0)], strategy, answers(*orders))[0].ranking.scores == (2.0, 1.0)


def test_repeats_show_the_same_documents_in_other_orders_all_at_once():
    task = task_of(*range(6))
    result = ask(task, Repeated(strategy=SLIDING, times=3))
    assert (result.calls, result.depth) == (6, 2)
    first, second = shown(result)[:3], shown(result)[3:]
    assert {frozenset(view) for view in first} == {frozenset(docs(3, 4, 5, 6))}
    assert {frozenset(view) for view in second} == {frozenset(docs(1, 2, 6, 5))}
    assert len(set(first)) == 3 and docs(3, 4, 5, 6) not in first
    assert result.ranking.docids[:2] == docs(6, 5)
    assert {c.rank for view, _ in result.outcomes for c in view.candidates} == set(range(1, 7))


def test_repeats_of_one_preference_for_a_position_cancel_out():
    """Who always names the first document shown says different things, and no one thing."""
    strategy = Repeated(strategy=SINGLE, times=200)
    (result,) = run([task_of(0, 0, 0)], strategy, lambda vs: [copy(v) for v in vs])
    assert max(result.ranking.scores) - min(result.ranking.scores) < 0.3


def test_repeats_keep_pairs_asked_in_both_orders():
    views = shown(ask(task_of(*range(5)), Repeated(strategy={"name": "pairs"}, times=1)))
    assert len(set(views)) == len(views) == 20
    assert any(a > b for a, b in views[::2]) and any(a < b for a, b in views[::2])


def test_repeats_that_failed_altogether_cast_no_vote():
    said = answers(None, Order(docids=docs(3, 2, 1)), None)
    result = run([task_of(0, 0, 0)], Repeated(strategy=SINGLE), said)[0]
    assert (result.ranking.docids, result.failed) == (docs(3, 2, 1), 2)


def test_repeats_draw_differently_unless_told():
    task = task_of(*range(12))
    free = {"name": "groups", "params": {"size": 4, "repeats": 1}}
    fixed = {"name": "groups", "params": {"size": 4, "repeats": 1, "seed": 1}}

    def groups(spec, seed: int = 0) -> list[set[frozenset[str]]]:
        views = shown(ask(task, Repeated(strategy=spec, times=2, seed=seed), "scores"))
        return [set(map(frozenset, views[:3])), set(map(frozenset, views[3:]))]

    assert groups(free)[0] != groups(free)[1]
    assert groups(fixed)[0] == groups(fixed)[1]
    assert groups(free, 1) == groups(free, 1) != groups(free, 2)


def test_refine_ranks_the_top_again_on_the_result_before():
    task = task_of(1, 2, 3, 4, 5, 6)
    strategy = Refine(first=SLIDING, strategy={"name": "elimination"}, depth=3)
    result = ask(task, strategy)
    assert shown(result) == [docs(3, 4, 5, 6), docs(1, 2, 6, 5), docs(6, 5, 2), docs(6, 5)]
    assert result.ranking.docids == docs(6, 5, 2, 1, 4, 3)
    assert [c.rank for c in result.outcomes[2][0].candidates] == [1, 2, 3]


def test_refine_keeps_the_result_before_where_it_fails_or_ties():
    task = task_of(1, 2, 3)
    first = Order(docids=docs(3, 1, 2))
    strategy = Refine(first=SINGLE, strategy={"name": "by_score"}, depth=2)
    failed = run([task], strategy, answers(first, None))[0]
    assert (failed.ranking.docids, failed.failed) == (docs(3, 1, 2), 1)
    tied = run([task], strategy, answers(first, Scores(values={"d1": 1.0, "d3": 1.0})))[0]
    assert tied.ranking.docids == docs(3, 1, 2)


def test_refine_of_the_first_stage_itself():
    said = answers(Pick(docid="d2"))
    setwise = {"name": "setwise", "params": {"top_k": 1}}
    result = run([task_of(0, 0, 0)], Refine(strategy=setwise, depth=2), said)[0]
    assert (result.ranking.docids, result.calls) == (docs(2, 1, 3), 1)


def test_scores_of_a_refined_ranking_are_kept_when_they_are_of_all():
    task, by_score = task_of(1, 2, 3), {"name": "by_score"}
    assert ask(task, Refine(strategy=by_score), "scores").ranking.scores == (3.0, 2.0, 1.0)
    assert ask(task, Refine(strategy=by_score, depth=2), "scores").ranking.scores == ()


def test_costs_are_exact_where_those_of_all_held_are():
    tasks = [task_of(*range(6))]
    setwise = {"name": "setwise"}
    assert count(tasks, Repeated(strategy=SLIDING)).exact
    assert not count(tasks, Repeated(strategy=setwise)).exact
    assert count(tasks, Refine(first=SLIDING, strategy=SINGLE)).exact
    assert not count(tasks, Refine(first=setwise, strategy=SINGLE)).exact


def test_batches_of_a_refined_repetition():
    tasks = [task_of(*range(n), qid=f"q{n}") for n in (1, 4, 9)]
    repeated = {"name": "repeated", "params": {"strategy": SLIDING, "times": 2}}
    strategy = Refine(first=repeated, strategy={"name": "pairs"}, depth=3)
    grades = {t.query.qid: t.grades for t in tasks}

    def answer(views: list[View]) -> list[Outcome]:
        return [oracle(v, grades[v.query.qid]) for v in views]

    results = run(tasks, strategy, answer, batch_size=3)
    assert [(r.calls, r.depth) for r in results] == [(2, 1), (2 + 6, 2), (2 * 4 + 6, 5)]
    assert results[2].ranking.docids[:2] == docs(9, 8)


def test_the_run_seed_goes_down():
    params = {"strategy": {"name": "groups"}}
    made = strategies.make(StrategySpec(name="refine", params=params), seed=7)
    assert made.inner[0].seed == 7
    one, two = strategies.make(
        StrategySpec(name="repeated", params=params | {"times": 2}), seed=7
    ).inner
    assert one.seed != two.seed


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        ("repeated", {"strategy": {"name": "slidng"}}, "nearest: sliding"),
        ("repeated", {"strategy": {"name": "sliding", "params": {"windw": 3}}}, "windw"),
        ("repeated", {"strategy": "sliding"}, "mapping with name"),
        ("repeated", {"strategy": {"name": 3}}, "mapping with name"),
        ("repeated", {"strategy": {"name": "single", "depth": 3}}, "mapping with name"),
        ("repeated", {"strategy": {"name": "single", "params": [3]}}, "mapping with name"),
        ("repeated", {}, "missing a required argument: 'strategy'"),
        ("repeated", {"strategy": SINGLE, "times": 0}, "times is 0"),
        ("repeated", {"strategy": SINGLE, "by": "rank"}, "by is 'rank'"),
        ("refine", {"strategy": SINGLE, "first": {"name": "nothing"}}, "unknown strategy"),
        ("refine", {"strategy": SINGLE, "depth": 0}, "depth is 0"),
        ("refine", {"strategy": SINGLE, "first": []}, "mapping with name"),
    ],
)
def test_mistakes_in_a_recipe_are_one_readable_line(name, params, line):
    with pytest.raises(RecipeError, match=line) as caught:
        strategies.make(StrategySpec(name=name, params=params))
    assert "\n" not in str(caught.value)
