"""One rerank request from its bytes to its answer, whatever happens to it on the way.

Contract: ``answer`` returns a ranking or raises ``Refused``, nothing else. Reading and ordering of
the documents happen in a worker thread, ranking in the batcher's; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from rank_rl.batcher import Batcher
from rank_rl.errors import BackendError, RankRLError
from rank_rl.generation.results import TaskResult
from rank_rl.ranker import Ranker
from rank_rl.records import RankingTask
from rank_rl.serve import requests
from rank_rl.serve.answers import Origin, Reason, by_first_stage, by_model
from rank_rl.serve.gate import Gate
from rank_rl.serve.limits import Limits, Refused
from rank_rl.serve.requests import Asked
from rank_rl.serve.telemetry import Telemetry

log = logging.getLogger(__name__)

GONE = 499  # what proxies log for a client that did not wait for its answer


class Service:
    """A ranker for many clients.

    Args:
        ranker: what ranks; it belongs to this object from now on.
        name: what the model is called in responses.
        limits: bounds of requests.
        together: most requests at a time that share batches; 1 ranks one after the other, None is
            no limit.
        remember: so many answers of the model are kept for questions that come again. The last
            one is kept in any case.

    Attributes:
        stopped: set when nobody can wait for the model any longer.
    """

    def __init__(
        self,
        ranker: Ranker,
        *,
        name: str,
        limits: Limits,
        together: int | None = None,
        remember: int = 0,
    ) -> None:
        self.ranker, self.name, self.limits = ranker, name, limits
        ranker.remember(max(1, remember))
        self.gate = Gate(limits.waiting)
        self.telemetry = Telemetry(lambda: self.gate.inside, lambda: self.batcher.waiting)
        self.batcher = Batcher(ranker, together=together, watch=self.telemetry.batches.observe)
        self.stopped = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.batcher.alive and not self.gate.draining

    async def answer(
        self, body: bytes, origin: Origin, gone: Callable[[], Awaitable[Any]]
    ) -> dict[str, Any]:
        """Rank what a body asks for.

        Args:
            body: of the request.
            origin: what the response says of itself.
            gone: returns when the client has left.

        Raises:
            Refused: nothing could be ranked.
        """
        started = time.monotonic()
        asked = await asyncio.to_thread(requests.read, body, self.limits)
        self.telemetry.documents.observe(len(asked.texts))
        order = tuple(range(len(asked.texts)))
        try:
            reading = asyncio.to_thread(asked.task, self.ranker)
            task = await asyncio.wait_for(reading, _left(started, asked.seconds))
        except asyncio.TimeoutError:
            return self._given_up(asked, order, origin, "time_budget")
        except RankRLError as error:
            raise requests.refused(error) from error
        order = tuple(int(docid) for docid in task.docids)
        future = self._submitted(task, asked.explain)
        try:
            found = await self._waited(future, gone, _left(started, asked.seconds))
        finally:
            future.cancel()
        if not isinstance(found, TaskResult):
            return self._given_up(asked, order, origin, found)
        self.telemetry.ranked(found)
        response = by_model(asked, found, origin)
        if "fallback" in response:
            self.telemetry.fallbacks.labels(response["fallback"]["reason"]).inc()
        return response

    def _submitted(self, task: RankingTask, explain: int) -> Future[TaskResult]:
        try:
            return self.batcher.submit(task, explain=explain)
        except RuntimeError:
            raise Refused(503, "shutting_down", "the model takes no more requests") from None

    async def _waited(
        self, future: Future[TaskResult], gone: Callable[[], Awaitable[Any]], seconds: float
    ) -> TaskResult | Reason:
        """The model's ranking, or why nobody waits for it any longer.

        Raises:
            Refused: the model failed, or the client has left.
        """
        ranking = asyncio.wrap_future(future)
        left, stopped = asyncio.ensure_future(gone()), asyncio.ensure_future(self.stopped.wait())
        waited = {ranking, left, stopped}
        try:
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if ranking.done():
                return _result(ranking)
            if left.done():
                raise Refused(GONE, "client_gone", "the client did not wait for the answer")
            return "shutdown" if stopped.done() else "time_budget"
        finally:
            for one in waited:
                one.cancel()

    def _given_up(
        self, asked: Asked, order: tuple[int, ...], origin: Origin, reason: Reason
    ) -> dict[str, Any]:
        self.telemetry.fallbacks.labels(reason).inc()
        return by_first_stage(asked, order, origin, reason)


def _left(started: float, seconds: float) -> float:
    return max(0.0, started + seconds - time.monotonic())


def _result(ranking: asyncio.Future[TaskResult]) -> TaskResult:
    """What the model answered.

    Raises:
        Refused: 422 where the request cannot be ranked, 503 where the model failed.
    """
    try:
        return ranking.result()
    except BackendError as error:
        log.warning("the model failed: %s", error.line())
        raise Refused(503, "model_failed", f"the model failed: {error.line()}"[:500]) from error
    except RankRLError as error:
        raise requests.refused(error) from error
    except Exception as error:  # one request's failure; the log has the traceback
        log.exception("the model failed")
        told = f"the model failed ({type(error).__name__}); the server's log says more"
        raise Refused(503, "model_failed", told) from error
