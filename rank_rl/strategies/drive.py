"""The one driver of all strategies: batches views across tasks, counts calls, keeps outcomes.

Contract: a result for every task, in the order of the tasks; its ranking holds exactly the task's
documents. New tasks start only when the running ones cannot fill a batch, so results finish early
and memory stays flat. What answers a view is the caller's: a model, an oracle, a stand-in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rank_rl.records import Outcome, Ranking, RankingTask, Scores, View
from rank_rl.seeds import derive
from rank_rl.strategies.base import Plan, Strategy
from rank_rl.strategies.oracle import copy

Answer: TypeAlias = Callable[[list[View]], list[Outcome]]
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one task: its ranking, what it cost, and every question with its outcome.

    ``calls`` counts views asked, ``depth`` the rounds that had to wait for one another.
    """

    ranking: Ranking
    calls: int
    depth: int
    outcomes: tuple[tuple[View, Outcome], ...] = ()

    @property
    def statuses(self) -> dict[str, int]:
        """How many outcomes were ok, repaired and failed."""
        return statuses([self])

    @property
    def failed(self) -> int:
        """Views whose answer could not be read; their first-stage order was kept."""
        return self.statuses["failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a run will cost: views asked, longest chain of waiting rounds, documents shown.

    ``exact`` says that the run will cost just that, whatever is answered; else it is an estimate.
    """

    calls: int
    depth: int
    documents: int
    exact: bool


@dataclass(slots=True)
class _Running:
    """A task whose strategy waits for ``missing`` outcomes; ``got`` is filled by position."""

    index: int
    task: RankingTask
    plan: Plan
    views: list[View] = field(default_factory=list)
    got: list[Outcome | None] = field(default_factory=list)
    asked: list[tuple[View, Outcome]] = field(default_factory=list)
    depth: int = 0
    missing: int = 0


def run(
    tasks: Sequence[RankingTask],
    strategy: Strategy,
    answer: Answer,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Result]:
    """Rank every task with ``strategy``, asking ``answer`` up to ``batch_size`` views at a time.

    Args:
        tasks: what to rank.
        strategy: which views are asked.
        answer: returns one outcome for each view, in order; failures are outcomes, not exceptions.
        batch_size: most views in one call of ``answer``.
        progress: called after each batch with (views answered, views expected by ``count``); the
            two are equal in the last call.

    Raises:
        ValueError: ``answer`` returned another number of outcomes, or the strategy's ranking is
            not an order of exactly the task's documents.
    """
    expected = count(tasks, strategy).calls if progress else 0
    waiting = deque(enumerate(tasks))
    pending: deque[tuple[_Running, int]] = deque()
    results: dict[int, Result] = {}
    done = 0
    while waiting or pending:
        while waiting and len(pending) < batch_size:
            index, task = waiting.popleft()
            _advance(_Running(index, task, strategy.plan(task)), pending, results)
        batch = [pending.popleft() for _ in range(min(batch_size, len(pending)))]
        if not batch:
            continue
        outcomes = answer([running.views[i] for running, i in batch])
        if len(outcomes) != len(batch):
            raise ValueError(f"{len(outcomes)} outcomes for {len(batch)} views")
        for (running, i), outcome in zip(batch, outcomes, strict=True):
            running.got[i] = outcome
            running.missing -= 1
            if not running.missing:
                _advance(running, pending, results)
        done += len(batch)
        if progress:
            over = not waiting and not pending
            progress(done, done if over else max(done, expected))
    return [results[i] for i in range(len(tasks))]


def _advance(
    running: _Running, pending: deque[tuple[_Running, int]], results: dict[int, Result]
) -> None:
    """Hand a task's outcomes to its strategy; queue the next views, or store the result."""
    try:
        if running.depth == 0:
            running.views = next(running.plan)
        else:
            running.views = _send(running)
        while not running.views:
            running.views = running.plan.send([])
    except StopIteration as stop:
        results[running.index] = _result(running, stop.value)
        return
    first = running.depth == 0
    running.depth += 1
    running.got, running.missing = [None] * len(running.views), len(running.views)
    asked = [(running, i) for i in range(len(running.views))]
    if first:
        pending.extend(asked)
    else:
        # A task already begun is finished before its successors.
        pending.extendleft(reversed(asked))


def _send(running: _Running) -> list[View]:
    """Record the outcomes of the last round and send them."""
    outcomes = [got for got in running.got if got is not None]
    running.asked += zip(running.views, outcomes, strict=True)
    return running.plan.send(outcomes)


def _result(running: _Running, ranking: Ranking) -> Result:
    """Check that a ranking is total and wrap it."""
    if sorted(ranking.docids) != sorted(running.task.docids):
        raise ValueError(f"query {running.task.query.qid!r}: not an order of its documents")
    return Result(
        ranking=ranking,
        calls=len(running.asked),
        depth=running.depth,
        outcomes=tuple(running.asked),
    )


def count(tasks: Sequence[RankingTask], strategy: Strategy) -> Count:
    """What ``run`` will ask, found by running the strategy itself with a stand-in answer.

    Exact for a strategy that says so (``fixed_cost``); for others the estimate is what it costs
    when the right order of the documents is a random one.
    """
    # Scores serve as a stand-in for every strategy; an order would be refused by by_score.
    exact = bool(getattr(strategy, "fixed_cost", False))
    stand_in = (lambda view: copy(view, "scores")) if exact else _at_random
    results = run(tasks, strategy, lambda views: [stand_in(v) for v in views])
    return Count(
        calls=sum(r.calls for r in results),
        depth=max((r.depth for r in results), default=0),
        documents=sum(len(v.docids) for r in results for v, _ in r.outcomes),
        exact=exact,
    )


def _at_random(view: View) -> Outcome:
    """Scores that mean nothing, the same for a document wherever it is shown."""
    values = {d: float(derive(0, "count", view.query.qid, d)) for d in view.docids}
    return Outcome(status="ok", answer=Scores(values=values))


def statuses(results: Iterable[Result]) -> dict[str, int]:
    """Parse-status counts over all outcomes of all results, always with the same three keys."""
    counted = Counter(outcome.status for r in results for _, outcome in r.outcomes)
    return {status: counted[status] for status in ("ok", "repaired", "failed")}
