"""The Batcher: shared batches, tasks that join, failures that stay with those they concern."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest
from serving import Held, ranker_of

from rank_rl.batcher import Batcher
from rank_rl.errors import BackendError, RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, StrategySpec

CHOICE = FormatSpec(name="choice", doc_tokens=16)


def task(query: str, n: int = 4) -> RankingTask:
    texts = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]
    return RankingTask(
        query=Query(qid="q", text=query),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"{texts[i % 5]} {i}", rank=i + 1) for i in range(n)
        ),
    )


def first_held(held: Held, batcher: Batcher) -> None:
    """Keep the thread busy with a first task, so that what is submitted next waits."""
    batcher.submit(task("first"))
    assert held.came.acquire(timeout=120)


def test_what_many_threads_submit_is_what_each_gets_alone(loaded):
    tasks = [task(f"who is number {i}?", 2 + i % 4) for i in range(24)]
    alone = [ranker_of(loaded).rank_tasks([t])[0].ranking for t in tasks]
    batcher = Batcher(ranker_of(loaded))
    found = [None] * len(tasks)

    def ask(i: int) -> None:
        found[i] = batcher.submit(tasks[i]).result(120).ranking

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert [r.docids for r in found] == [r.docids for r in alone]
    for mine, single in zip(found, alone, strict=True):
        assert mine.scores == pytest.approx(single.scores, abs=1e-4)
    assert batcher.waiting == 0 and not batcher.alive


def test_what_came_during_a_batch_shares_the_next(loaded):
    ranker = ranker_of(loaded)
    held, sizes = Held(ranker), []
    batcher = Batcher(ranker, watch=sizes.append)
    first_held(held, batcher)
    futures = [batcher.submit(task(f"query {i}")) for i in range(5)]
    assert batcher.waiting == 6
    held.go.set()
    for future in futures:
        assert len(future.result(120).ranking.docids) == 4
    batcher.close()
    assert held.asked == [["first"], [f"query {i}" for i in range(5)]]
    assert sizes == [1, 5]


def test_together_bounds_how_many_share(loaded):
    for together, expected in ((1, [1] * 6), (2, [1, 2, 2, 1])):
        ranker = ranker_of(loaded)
        held, sizes = Held(ranker), []
        batcher = Batcher(ranker, together=together, watch=sizes.append, max_wait=0)
        first_held(held, batcher)
        futures = [batcher.submit(task(f"query {i}")) for i in range(5)]
        held.go.set()
        assert [len(f.result(120).ranking.docids) for f in futures] == [4] * 5
        batcher.close()
        assert sizes == expected
    with pytest.raises(ValueError, match="together is 0"):
        Batcher(ranker, together=0)


def test_a_task_joins_one_that_has_rounds_to_go(loaded):
    # Setwise asks one view after the other: more rounds than the short task needs.
    ranker = ranker_of(loaded, CHOICE, strategy=StrategySpec(name="setwise"), readout="score")
    held = Held(ranker)
    batcher = Batcher(ranker)
    long = batcher.submit(task("long", 9))
    assert held.came.acquire(timeout=120)
    short = batcher.submit(task("short", 2))
    held.go.set()
    assert long.result(120).depth > short.result(30).depth
    batcher.close()
    assert held.asked[0] == ["long"] and sorted(held.asked[1]) == ["long", "short"]


def test_a_cancelled_task_is_dropped(loaded):
    ranker = ranker_of(loaded, CHOICE, strategy=StrategySpec(name="setwise"), readout="score")
    held = Held(ranker)
    batcher = Batcher(ranker)
    begun = batcher.submit(task("begun", 9))
    assert held.came.acquire(timeout=120)
    queued, kept = batcher.submit(task("queued")), batcher.submit(task("kept"))
    assert begun.cancel() and queued.cancel()
    held.go.set()
    assert len(kept.result(120).ranking.docids) == 4
    with pytest.raises(CancelledError):
        begun.result(0)
    batcher.close()
    # The batch under way was finished; of the task that was in it, no other was asked.
    assert held.asked[0] == ["begun"] and {q for b in held.asked[1:] for q in b} == {"kept"}


def test_a_failing_task_fails_nobody_else(loaded):
    ranker = ranker_of(loaded)
    held = Held(ranker)

    def fails(queries):
        if "bad" in queries:
            raise BackendError("no answer")

    held.fails = fails
    batcher = Batcher(ranker)
    first_held(held, batcher)
    futures = {q: batcher.submit(task(q)) for q in ("one", "bad", "two")}
    held.go.set()
    with pytest.raises(BackendError, match="no answer"):
        futures["bad"].result(120)
    good = {q: futures[q].result(120).ranking for q in ("one", "two")}
    after = batcher.submit(task("after")).result(120)
    batcher.close()
    assert held.asked[1] == ["one", "bad", "two"]
    for query, ranking in [*good.items(), ("after", after.ranking)]:
        expected = ranker_of(loaded).rank_tasks([task(query)])[0].ranking
        assert ranking.docids == expected.docids


def test_a_batch_that_is_too_large_is_asked_in_parts(loaded):
    ranker = ranker_of(loaded)
    held = Held(ranker)

    def fails(queries):
        if len(queries) > 1:
            raise MemoryError("out of memory")

    held.fails = fails
    batcher = Batcher(ranker)
    first_held(held, batcher)
    futures = [batcher.submit(task(f"query {i}")) for i in range(3)]
    held.go.set()
    assert [len(f.result(120).ranking.docids) for f in futures] == [4] * 3
    batcher.close()


def test_a_failing_explanation_fails_only_those_that_wanted_one(loaded):
    ranker = ranker_of(loaded)
    held = Held(ranker)

    class Broken:
        batch_size = 8

        def generate(self, prompts, **_):
            raise RuntimeError("cannot write")

    ranker.generator = Broken()
    batcher = Batcher(ranker)
    first_held(held, batcher)
    plain = batcher.submit(task("plain"))
    explained = batcher.submit(task("explained"), explain=2)
    held.go.set()
    with pytest.raises(RuntimeError, match="cannot write"):
        explained.result(120)
    assert len(plain.result(120).ranking.docids) == 4
    assert len(batcher.submit(task("after")).result(120).ranking.docids) == 4
    batcher.close()


def test_explanations_are_passed_on(loaded):
    batcher = Batcher(ranker_of(loaded))
    result = batcher.submit(task("who?"), explain=2).result(120)
    batcher.close()
    assert set(result.notes) == set(result.ranking.docids[:2])


def test_a_task_that_does_not_fit_is_told_so(loaded):
    strategy = StrategySpec(name="setwise", params={"children": 3})
    ranker = ranker_of(
        loaded, CHOICE.model_copy(update={"params": {"pick": "worst"}}), strategy=strategy
    )
    batcher = Batcher(ranker)
    with pytest.raises(RecipeError, match="picks the worst"):
        batcher.submit(task("who?")).result(120)
    assert batcher.alive and batcher.waiting == 0
    batcher.close()


def test_closing_finishes_what_was_taken(loaded):
    ranker = ranker_of(loaded)
    held = Held(ranker)
    batcher = Batcher(ranker)
    first_held(held, batcher)
    futures = [batcher.submit(task(f"query {i}")) for i in range(3)]
    batcher.close(timeout=0)
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(task("late"))
    assert batcher.alive
    held.go.set()
    assert [len(f.result(120).ranking.docids) for f in futures] == [4] * 3
    batcher.close()
    assert not batcher.alive
