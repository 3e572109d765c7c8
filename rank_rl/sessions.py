"""Ranking that goes on: tasks are added at any time and asked together, in batches of views.

``Ranker.rank_tasks`` is a session that is given everything at once; a server adds what its callers
send. Contract: every task ends in one ``TaskResult`` or is dropped; a session belongs to one thread
at a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rank_rl.generation.asking import Asked, SlotAsker
from rank_rl.generation.results import TaskResult, explained, task_result
from rank_rl.records import Outcome, RankingTask, View
from rank_rl.strategies.drive import Driver, Result

if TYPE_CHECKING:
    from rank_rl.ranker import TaskRanker


@dataclass(slots=True)
class Counters:
    """What a ranker did so far.

    Attributes:
        queries: tasks ranked.
        views: questions asked; ``repeated`` of them had been answered before.
        prompt_tokens, completion_tokens, seconds: what they cost, as ``TaskResult`` has it.
        statuses: parse statuses over answers (text) or slots.
    """

    queries: int = 0
    views: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, result: TaskResult) -> None:
        """Count one result; ``repeated`` is the session's to count."""
        self.queries += 1
        self.views += result.calls
        self.prompt_tokens += result.prompt_tokens
        self.completion_tokens += result.completion_tokens
        self.seconds += result.seconds
        self.statuses.update(result.statuses)

    def as_dict(self) -> dict[str, Any]:
        """The counters as plain values."""
        return {**asdict(self), "statuses": dict(self.statuses)}


class Session:
    """Tasks of one ranker that are under way; ``Ranker.session`` makes one.

    Args:
        ranker: what ranks.
        batch_size: most views asked at once; None is what the ranker's model answers at once.
    """

    def __init__(self, ranker: TaskRanker, *, batch_size: int | None = None) -> None:
        self.ranker = ranker
        size = batch_size or ranker.batch_size
        self._driver = Driver(ranker.strategy, self._answer, batch_size=size)
        self._asked: dict[int, Asked] = {}
        self._tasks: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """Tasks that are not finished."""
        return len(self._tasks)

    @property
    def asking(self) -> tuple[int, ...]:
        """Tickets whose views the last step asked, or which made it fail."""
        return self._driver.asking

    def add(self, task: RankingTask, *, explain: int = 0) -> int:
        """Take a task on.

        Args:
            task: what to rank.
            explain: write reasoning for so many of its top documents, see ``Ranker.rank_tasks``.

        Returns:
            Its ticket.

        Raises:
            RecipeError: strategy and format do not fit it.
        """
        self.ranker.check([task])
        ticket = self._driver.add(task)
        self._tasks[ticket] = explain
        return ticket

    def drop(self, ticket: int) -> None:
        """Forget a task that is not finished."""
        self._tasks.pop(ticket, None)
        for outcome in self._driver.drop(ticket):
            self._asked.pop(id(outcome), None)

    def step(self) -> list[tuple[int, TaskResult]]:
        """Ask one batch of views across all tasks; what finished by it, by ticket."""
        ended, _ = self.advance()
        done: dict[int, TaskResult] = {}
        by_depth: dict[int, list[tuple[int, TaskResult, list[Asked]]]] = {}
        for ticket, result, asked, depth in ended:
            by_depth.setdefault(depth, []).append((ticket, result, asked))
        for depth, found in by_depth.items():
            results = self.ranker.explain([r for _, r, _ in found], [a for *_, a in found], depth)
            done.update(zip((ticket for ticket, *_ in found), results, strict=True))
        for result in done.values():
            self.ranker.counters.add(result)
        return [(ticket, done[ticket]) for ticket, *_ in ended]

    def advance(self) -> tuple[list[tuple[int, TaskResult, list[Asked], int]], int]:
        """As ``step``, without explanations: what finished, and how many views were asked.

        Each is a ticket, its result, the answers behind it and how many explanations it still
        wants.
        """
        finished, asked = self._driver.step()
        ended = [(*self._ended(*item), self._tasks.pop(item[0])) for item in finished]
        if not self._tasks:
            self.ranker.forget()
        return ended, asked

    def _ended(self, ticket: int, result: Result) -> tuple[int, TaskResult, list[Asked]]:
        asked = [self._asked.pop(id(outcome)) for _, outcome in result.outcomes]
        return ticket, task_result(result, asked), asked

    def _answer(self, views: list[View]) -> list[Outcome]:
        repeats = self.ranker.repeats
        before = repeats.repeated
        answers = repeats.ask(views)
        self.ranker.counters.repeated += repeats.repeated - before
        # The driver hands the same outcome objects back, so their identity finds the rest.
        self._asked.update((id(a.outcome), a) for a in answers)
        return [a.outcome for a in answers]


def with_notes(
    ranker: TaskRanker,
    results: list[TaskResult],
    asked: list[list[Asked]],
    depth: int,
    progress: Any,
) -> list[TaskResult]:
    """Results with explanations of their first ``depth`` documents, where label slots give any."""
    reasons = depth and ranker.fmt.mode == "reason" and ranker.reasoning == "write"
    if not reasons or not isinstance(ranker.asker, SlotAsker) or ranker.generator is None:
        return results
    return explained(ranker.asker, ranker.generator, results, asked, depth, progress)
