"""Views answered by several threads, each with a model of its own that shares the weights.

On a CPU the threads of one matrix product wait for each other at every one of the many small ones,
so two models side by side answer more than one model with two threads. Contract: one answer a view,
in order, as one model gives it (up to rounding); what the answers cost is what the clock says, not
what the threads add up to. Only one caller at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from rank_rl.formats.budget import CutReport
from rank_rl.records import View

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.generation import Generator
    from rank_rl.generation.asking import Asked, Asker
    from rank_rl.models.loading import Loaded

# Characters of documents that a thread is worth being started for.
LEAST = 1000
MOST = 8  # threads chosen by itself; more wait for each other in Python
SLACK = 1.15  # how much more than the others a thread may have to do, to keep what it has read
QUERIES = 1024  # whose thread is remembered
Key: TypeAlias = "tuple[str, str]"


class Workers:
    """An asker that divides views among copies of another.

    Args:
        asker: what answers where there is nothing to divide.
        copied: makes one more asker, for another thread; given how many there are. None says that
            it cannot be copied.
        loaded: the model whose weights they share, if any.

    ``count`` is how many threads answer at most.
    """

    def __init__(
        self,
        asker: Asker,
        copied: Callable[[int], Asker] | None = None,
        *,
        loaded: Loaded | None = None,
    ) -> None:
        self.asker, self.count = asker, 1
        self._copied, self._loaded = copied, loaded
        self._copies: list[Asker] = []
        self._cuts = CutReport()
        self._known: dict[Key, int] = {}

    @property
    def possible(self) -> bool:
        """Whether there can be more than one."""
        return self._copied is not None

    @property
    def deterministic(self) -> bool:
        """As the asker's."""
        return bool(getattr(self.asker, "deterministic", False))

    @property
    def tokens(self) -> Any:
        """As the asker's."""
        return self.asker.tokens

    @property
    def cuts(self) -> CutReport:
        """Documents that were cut, by all of them."""
        found = self._cuts.merge(self.asker.cuts)
        for asker in self._copies:
            found = found.merge(asker.cuts)
        return found

    def renew(self) -> None:
        """Make the copies anew when they are next needed, as the asker is then."""
        for asker in self._copies:
            self._cuts = self._cuts.merge(asker.cuts)
        self._copies = []
        self._known = {}

    def forget(self) -> None:
        """Drop what is kept of prompts."""
        self._known = {}
        for asker in (self.asker, *self._copies):
            if hasattr(asker, "forget"):
                asker.forget()

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order."""
        parts = self._parts(views) if self.count > 1 and self.possible else {}
        if not parts:
            return self.asker.ask(views)
        while len(self._copies) < self.count:
            assert self._copied is not None
            self._copies.append(self._copied(self.count))
        try:
            with casting(self._loaded):
                answers = side_by_side(
                    {
                        worker: partial(timed, self._copies[worker], [views[i] for i in part])
                        for worker, part in parts.items()
                    }
                )
        except BaseException:
            self.renew()  # one that is still at work belongs to nobody else
            raise
        seconds, found = zip(*(answers[worker] for worker in parts), strict=True)
        share = max(seconds) / (sum(seconds) or 1.0)
        placed = {
            i: costing(asked, share)
            for part, group in zip(parts.values(), found, strict=True)
            for i, asked in zip(part, group, strict=True)
        }
        return [placed[i] for i in range(len(views))]

    def _parts(self, views: Sequence[View]) -> dict[int, list[int]]:
        """Numbers of the views of each worker; none where one is enough."""
        sizes = [_size(view) for view in views]
        count = min(self.count, len(views), sum(sizes) // LEAST)
        keeps = hasattr(self.asker, "forget") and all(len(view.docids) > 1 for view in views)
        queries: dict[Key, list[int]] = {}
        for i, view in enumerate(views):
            queries.setdefault((view.query.qid, view.query.text), []).append(i)
        if keeps:
            # What is kept of a query's prompts is kept by one of them.
            if self._known:
                count = self.count
            if count < 2 or (len(queries) < 2 and not self._known):
                return {}
            return self._by_query(queries, sizes, min(count, max(2, len(queries))))
        if count < 2:
            return {}
        if len(queries) >= count:
            self._known = {}
            return self._by_query(queries, sizes, count)
        return evenly([i for group in queries.values() for i in group], sizes, count)

    def _by_query(
        self, queries: dict[Key, list[int]], sizes: Sequence[int], count: int
    ) -> dict[int, list[int]]:
        """Whole queries, each where it was before unless others had to wait for it."""
        loads = dict.fromkeys(range(self.count), 0)
        weights = {key: sum(sizes[i] for i in group) for key, group in queries.items()}
        most = SLACK * sum(weights.values()) * -(-len(queries) // count) / len(queries)
        found: dict[int, list[int]] = {}
        for key in sorted(queries, key=lambda key: (key not in self._known, -weights[key])):
            worker = self._known.get(key)
            if worker is None or (loads[worker] and loads[worker] + weights[key] > most):
                worker = min(loads, key=lambda w: (loads[w], w))
            self._known.pop(key, None)
            self._known[key] = worker
            loads[worker] += weights[key]
            found.setdefault(worker, []).extend(queries[key])
        while len(self._known) > QUERIES:  # the one not asked for longest
            del self._known[next(iter(self._known))]
        return found


def _size(view: View) -> int:
    """About how much there is to read."""
    return len(view.query.text) + sum(len(c.text) + len(c.title or "") for c in view.candidates)


def evenly(order: Sequence[int], sizes: Sequence[int], count: int) -> dict[int, list[int]]:
    """Consecutive views in ``count`` parts of about the same size."""
    found: dict[int, list[int]] = {}
    total, before = sum(sizes[i] for i in order), 0
    for i in order:
        middle = before + sizes[i] / 2
        found.setdefault(min(count - 1, int(middle * count / total)), []).append(i)
        before += sizes[i]
    return found


def timed(asker: Asker, views: Sequence[View]) -> tuple[float, list[Asked]]:
    """Answers, and the seconds that they say they took."""
    asked = asker.ask(views)
    return sum(answer.exchange.completion.seconds for answer in asked), asked


def costing(asked: Asked, share: float) -> Asked:
    """The same answer, at a share of its seconds."""
    completion = asked.exchange.completion
    cheaper = replace(completion, seconds=completion.seconds * share)
    return replace(asked, exchange=replace(asked.exchange, completion=cheaper))


def side_by_side(works: dict[int, Callable[[], Any]]) -> dict[int, Any]:
    """Do works in a thread each, which share the threads of torch; results by their numbers.

    Raises:
        Exception: the first that one of them raised, once all have ended.
    """
    import torch

    threads = torch.get_num_threads()
    each = max(1, threads // len(works))
    futures: dict[int, Future[Any]] = {number: Future() for number in works}

    def run(number: int) -> None:
        try:
            torch.set_num_threads(each)
            futures[number].set_result(works[number]())
        except BaseException as error:  # whoever waits for it raises it
            futures[number].set_exception(error)

    try:
        for number in works:
            threading.Thread(
                target=run, args=(number,), name=f"rank-rl-worker-{number}", daemon=True
            ).start()
        wait(futures.values())
    finally:
        torch.set_num_threads(threads)  # threads that are born later ask what was set last
    return {number: future.result() for number, future in futures.items()}


@contextlib.contextmanager
def casting(loaded: Loaded | None) -> Iterator[None]:
    """Let autocast keep its casts of the weights as long as any thread computes.

    ``loading.cast_once`` marks the weights, which the threads have in common.
    """
    import torch

    from rank_rl.models.loading import cast_once

    if loaded is None or loaded.autocast is None:
        yield
        return
    with torch.no_grad(), cast_once(loaded.model):
        yield


def copier(
    loaded: Loaded, fmt: Format, generator: Generator | None, how: tuple[Any, ...]
) -> Callable[[int], Asker] | None:
    """What makes copies of ``make_asker``'s asker; None for a generator of one's own.

    Args:
        loaded: the model.
        fmt, generator, how: the other arguments of ``make_asker``.
    """
    from rank_rl.generation.asking import make_asker
    from rank_rl.generation.local import LocalGenerator
    from rank_rl.models.copies import twin_of

    if generator is not None and type(generator) is not LocalGenerator:
        return None

    def copied(count: int) -> Asker:
        own = twin_of(loaded, of=count)
        return make_asker(own, fmt, generator and generator.on(own), *how)

    return copied


def threads_for(device: str) -> int:
    """How many threads answer where nothing is said: on a CPU as many as torch computes with."""
    import torch

    return min(torch.get_num_threads(), MOST) if device == "cpu" else 1
