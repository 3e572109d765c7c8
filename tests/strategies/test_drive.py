"""The driver: batching across tasks, counting, what it keeps and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rank_rl.records import Candidate, Outcome, Query, Ranking, RankingTask, View
from rank_rl.strategies.by_score import ByScore
from rank_rl.strategies.drive import count, run, statuses
from rank_rl.strategies.oracle import copy
from rank_rl.strategies.setwise import Setwise
from rank_rl.strategies.single import Single
from rank_rl.strategies.sliding import Sliding


def task_of(count: int, qid: str) -> RankingTask:
    docs = tuple(Candidate(docid=f"{qid}{i}", text="", rank=i + 1) for i in range(count))
    return RankingTask(query=Query(qid=qid, text="?"), candidates=docs)


TASKS = [task_of(6, "a"), task_of(2, "b"), task_of(8, "c")]
SLIDING = Sliding(window=4, step=2)


def repeat(views: list[View]) -> list[Outcome]:
    return [copy(v) for v in views]


def test_views_of_several_tasks_share_a_batch():
    batches: list[list[str]] = []

    def answer(views: list[View]) -> list[Outcome]:
        batches.append([v.query.qid for v in views])
        return repeat(views)

    results = run(TASKS, SLIDING, answer, batch_size=2)
    assert [r.ranking.qid for r in results] == ["a", "b", "c"]
    assert batches == [["a", "b"], ["a", "c"], ["c"], ["c"]]
    assert [(r.calls, r.depth) for r in results] == [(2, 2), (1, 1), (3, 3)]


def test_rounds_of_many_views_are_one_step_deep():
    (result,) = run([TASKS[2]], ByScore(size=2), lambda vs: [copy(v, "scores") for v in vs])
    assert (result.calls, result.depth) == (4, 1)


def test_a_round_larger_than_the_batch_is_given_back_in_order():
    (result,) = run(
        [TASKS[2]], ByScore(size=2), lambda vs: [copy(v, "scores") for v in vs], batch_size=3
    )
    assert [v.docids for v, _ in result.outcomes] == [
        ("c0", "c1"), ("c2", "c3"), ("c4", "c5"), ("c6", "c7")
    ]  # fmt: skip


def test_progress_ends_at_the_number_counted():
    seen: list[tuple[int, int]] = []
    run(TASKS, SLIDING, repeat, batch_size=4, progress=lambda done, all_: seen.append((done, all_)))
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert count(TASKS, SLIDING).exact
    assert count(TASKS, SLIDING).calls == 6
    assert count(TASKS, SLIDING).depth == 3
    assert count(TASKS, SLIDING).documents == 4 + 4 + 2 + 4 + 4 + 4


def test_progress_ends_at_the_number_asked_where_costs_depend_on_the_answers():
    strategy = Setwise(children=2, top_k=None)
    seen: list[tuple[int, int]] = []
    results = run(TASKS, strategy, repeat, progress=lambda done, all_: seen.append((done, all_)))
    asked = sum(r.calls for r in results)
    assert not count(TASKS, strategy).exact
    assert count(TASKS, strategy).calls != asked
    assert seen[-1] == (asked, asked)


def test_costs_of_a_strategy_that_says_nothing_about_them_are_estimates():
    class Asks:
        def plan(self, task):
            return Single().plan(task)

    assert count(TASKS, Asks()) == replace(count(TASKS, Single()), exact=False)


def test_failures_keep_first_stage_order_and_are_counted():
    results = run(TASKS, SLIDING, lambda vs: [Outcome(status="failed") for _ in vs])
    assert [r.ranking.docids for r in results] == [t.docids for t in TASKS]
    assert [r.failed for r in results] == [2, 1, 3]
    assert statuses(results) == {"ok": 0, "repaired": 0, "failed": 6}


def test_nothing_to_rank():
    assert run([], Single(), repeat) == []
    assert count([], Single()).calls == 0


def test_an_answerer_that_loses_views_is_refused():
    with pytest.raises(ValueError, match="1 outcomes for 2 views"):
        run(TASKS[:2], Single(), lambda vs: repeat(vs)[:1])


def test_a_strategy_that_loses_documents_is_refused():
    class Loses:
        def plan(self, task):
            yield []
            return Ranking(qid=task.query.qid, docids=task.docids[1:])

    with pytest.raises(ValueError, match="not an order of its documents"):
        run(TASKS, Loses(), repeat)


def test_a_strategy_may_ask_nothing():
    class Keeps:
        def plan(self, task):
            yield []
            return Ranking(qid=task.query.qid, docids=task.docids)

    results = run(TASKS, Keeps(), repeat)
    assert [(r.calls, r.depth) for r in results] == [(0, 0)] * 3
