"""Callers in many threads, one model: what they ask at the same time shares batches of views.

A thread owns one ``Session``; a task that comes while others run joins at the next batch. Contract:
every future ends in a result, an exception or a cancellation. A batch that fails costs only the
tasks whose views it asked, and of these only the ones that also fail alone.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rank_rl.generation.results import TaskResult
from rank_rl.records import RankingTask

if TYPE_CHECKING:
    from rank_rl.ranker import Ranker
    from rank_rl.sessions import Session

log = logging.getLogger(__name__)

Watch = Callable[[int], None]


@dataclass(slots=True, eq=False)
class _Job:
    """What one caller waits for."""

    task: RankingTask
    explain: int
    future: Future[TaskResult] = field(default_factory=Future)


class Batcher:
    """Ranks tasks of many callers in one thread; thread-safe.

    Args:
        ranker: what ranks; nobody else may use it meanwhile.
        max_wait: seconds that the first task of an idle batcher waits for others to share its
            batch.
        together: most tasks at a time that share batches; 1 ranks one after the other, None is no
            limit.
        watch: called before every batch with the number of tasks that may share it.
    """

    def __init__(
        self,
        ranker: Ranker,
        *,
        max_wait: float = 0.002,
        together: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        if together is not None and together < 1:
            raise ValueError(f"together is {together}")
        self.ranker, self.max_wait, self.together = ranker, max_wait, together
        self._watch = watch
        self._changed = threading.Condition()
        self._inbox: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}  # by ticket; the thread's own, as the session is
        self._session = ranker.session()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="rank-rl-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Tasks that are not finished."""
        return len(self._inbox) + len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether the thread still takes tasks, or finishes those it took."""
        return self._thread.is_alive()

    def submit(self, task: RankingTask, *, explain: int = 0) -> Future[TaskResult]:
        """Take a task on; cancelling the future drops it at the next batch.

        Args:
            task: what to rank.
            explain: write reasoning for so many of its top documents, see ``Ranker.rank_tasks``.

        Raises:
            RuntimeError: the batcher was closed.
        """
        job = _Job(task, explain)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._inbox.append(job)
            self._changed.notify_all()
        return job.future

    def close(self, *, timeout: float | None = None) -> None:
        """Finish what was taken, then end the thread.

        Args:
            timeout: seconds to wait for it; None is as long as it takes.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            while self._collect():
                self._step()
        finally:
            self._abandon()

    def _collect(self) -> bool:
        """Wait until there is something to do and take it on; False when all is done."""
        with self._changed:
            while not (self._inbox or self._jobs or self._closed):
                self._changed.wait()
            if not self._jobs and not self._closed and self.max_wait > 0:
                full = self.together or float("inf")
                self._changed.wait_for(
                    lambda: self._closed or len(self._inbox) >= full, self.max_wait
                )
        while (job := self._next()) is not None:
            self._add(job)
        with self._changed:
            return bool(self._jobs or self._inbox) or not self._closed

    def _next(self) -> _Job | None:
        """The first job in line, where there is room for one more."""
        with self._changed:
            full = self.together is not None and len(self._jobs) >= self.together
            return None if full or not self._inbox else self._inbox.popleft()

    def _add(self, job: _Job) -> None:
        if job.future.cancelled():
            return
        try:
            ticket = self._session.add(job.task, explain=job.explain)
        except Exception as error:  # what is wrong with one task is its caller's
            _fail(job, error)
        else:
            self._jobs[ticket] = job

    def _step(self) -> None:
        """Ask one batch of views and hand out what finished by it."""
        for ticket in [t for t, job in self._jobs.items() if job.future.cancelled()]:
            del self._jobs[ticket]
            self._session.drop(ticket)
        if not self._jobs:
            return
        if self._watch is not None:
            self._watch(len(self._jobs))
        failure: Exception | None = None
        try:
            finished = self._session.step()
        except Exception as error:  # whatever a batch met, the thread goes on
            failure = error
        if failure is None:
            for ticket, result in finished:
                _succeed(self._jobs.pop(ticket), result)
            return
        concerned = self._concerned()
        if len(concerned) == 1:
            _fail(concerned[0], failure)
            return
        log.warning("a batch of %d tasks failed, each goes on alone: %s", len(concerned), failure)
        del failure  # its frames hold what the batch needed of memory
        for job in concerned:
            self._alone(job)

    def _concerned(self) -> list[_Job]:
        """The jobs whose views a failed batch asked, taken out of the session."""
        tickets = [t for t in self._session.asking if t in self._jobs] or list(self._jobs)
        jobs = [self._take(ticket) for ticket in tickets]
        if self._session.waiting != len(self._jobs):
            # A task that had its answers may be lost where explaining another one failed.
            jobs += [self._take(ticket) for ticket in list(self._jobs)]
            self._session = self.ranker.session()
        return jobs

    def _take(self, ticket: int) -> _Job:
        self._session.drop(ticket)
        return self._jobs.pop(ticket)

    def _alone(self, job: _Job) -> None:
        """Rank a task in a session of its own, so that it can fail only itself."""
        if job.future.cancelled():
            return
        session: Session = self.ranker.session()
        try:
            session.add(job.task, explain=job.explain)
            while session.waiting:
                for _, result in session.step():
                    _succeed(job, result)
                if job.future.cancelled():
                    return
        except Exception as error:  # its caller is told
            _fail(job, error)

    def _abandon(self) -> None:
        """Nobody may wait for a thread that has ended, whatever ended it."""
        with self._changed:
            self._closed = True
            left = [*self._jobs.values(), *self._inbox]
            self._jobs.clear()
            self._inbox.clear()
        for job in left:
            _fail(job, RuntimeError("the batcher has ended"))


def _succeed(job: _Job, result: TaskResult) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
