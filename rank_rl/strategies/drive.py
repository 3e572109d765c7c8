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
    """A task whose strategy waits for ``missing`` outcomes; ``got`` is filled by position.

    ``index`` is its ticket.
    """

    index: int
    task: RankingTask
    plan: Plan
    views: list[View] = field(default_factory=list)
    got: list[Outcome | None] = field(default_factory=list)
    asked: list[tuple[View, Outcome]] = field(default_factory=list)
    depth: int = 0
    missing: int = 0


class Driver:
    """Runs many tasks at once; callers add tasks and take steps, each of one batch of views.

    Args:
        strategy: which views are asked.
        answer: returns one outcome for each view, in order; failures are outcomes, not exceptions.
        batch_size: most views in one call of ``answer``.

    Attributes:
        asking: the tickets whose views the last step asked, once each.

    New tasks start only when the running ones cannot fill a batch. After a step that raises,
    ``asking`` says which tasks failed; callers may ``drop`` these and go on with the others.
    """

    def __init__(self, strategy: Strategy, answer: Answer, *, batch_size: int = 16) -> None:
        self.strategy, self.answer, self.batch_size = strategy, answer, batch_size
        self.asking: tuple[int, ...] = ()
        self._tickets = 0
        self._waiting: deque[tuple[int, RankingTask]] = deque()
        self._pending: deque[tuple[_Running, int]] = deque()
        self._live: set[int] = set()
        self._finished: dict[int, Result] = {}
        self._failed: deque[tuple[int, Exception]] = deque()
        self._lost: list[_Running] = []  # whose strategy raised

    @property
    def waiting(self) -> int:
        """Tasks that are not finished."""
        return len(self._live)

    def add(self, task: RankingTask) -> int:
        """Take a task on; returns its ticket."""
        self._tickets += 1
        self._live.add(self._tickets)
        self._waiting.append((self._tickets, task))
        return self._tickets

    def drop(self, ticket: int) -> list[Outcome]:
        """Forget a task that is not finished; returns the outcomes that it had so far."""
        self._live.discard(ticket)
        self._waiting = deque(item for item in self._waiting if item[0] != ticket)
        mine = {id(r): r for r, _ in self._pending if r.index == ticket}
        mine |= {id(r): r for r in self._lost if r.index == ticket}
        self._lost = [r for r in self._lost if r.index != ticket]
        self._pending = deque(item for item in self._pending if item[0].index != ticket)
        had = [outcome for r in mine.values() for _, outcome in r.asked]
        return had + [got for r in mine.values() for got in r.got if got is not None]

    def step(self) -> tuple[list[tuple[int, Result]], int]:
        """Ask one batch of views; what finished by it, by ticket, and how many views were asked.

        Raises:
            ValueError: ``answer`` returned another number of outcomes, or the strategy's ranking is
                not an order of exactly the task's documents.
        """
        while self._waiting and len(self._pending) < self.batch_size and not self._failed:
            ticket, task = self._waiting.popleft()
            self._advance(_Running(ticket, task, self.strategy.plan(task)))
        room = 0 if self._failed else min(self.batch_size, len(self._pending))
        batch = [self._pending[i] for i in range(room)]
        self.asking = tuple(dict.fromkeys(running.index for running, _ in batch))
        if batch:
            outcomes = self.answer([running.views[i] for running, i in batch])
            if len(outcomes) != len(batch):
                raise ValueError(f"{len(outcomes)} outcomes for {len(batch)} views")
            for _ in batch:
                self._pending.popleft()
            for (running, i), outcome in zip(batch, outcomes, strict=True):
                running.got[i] = outcome
                running.missing -= 1
                if not running.missing:
                    self._advance(running)
        if self._failed:
            ticket, error = self._failed.popleft()
            self.asking = (ticket,)
            raise error
        finished = [item for item in self._finished.items() if item[0] in self._live]
        self._finished = {}
        self._live.difference_update(ticket for ticket, _ in finished)
        return finished, len(batch)

    def _advance(self, running: _Running) -> None:
        """A task whose strategy raises must not take the others of its batch with it."""
        try:
            _advance(running, self._pending, self._finished)
        except Exception as error:  # raised by the step, once the others have their answers
            self._failed.append((running.index, error))
            self._lost.append(running)


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
        answer: as for ``Driver``.
        batch_size: most views in one call of ``answer``.
        progress: called after each batch with (views answered, views expected by ``count``); the
            two are equal in the last call.

    Raises:
        ValueError: as ``Driver.step``.
    """
    expected = count(tasks, strategy).calls if progress else 0
    driver = Driver(strategy, answer, batch_size=batch_size)
    tickets = [driver.add(task) for task in tasks]
    results: dict[int, Result] = {}
    done = 0
    while driver.waiting:
        finished, asked = driver.step()
        results.update(finished)
        done += asked
        if progress and asked:
            progress(done, max(done, expected) if driver.waiting else done)
    return [results[ticket] for ticket in tickets]


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
