"""``Ranker``: a format, a strategy and what answers their questions, as one object that ranks.

The same class serves users, validation during training, the benchmark and the server; how one is
made of a checkpoint, a server or a cross-encoder is ``rank_rl.rerank``'s business. Contract: every
ranking is a total order of exactly the documents given; ties and unreadable answers keep
first-stage order, and unreadable answers are counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from rank_rl import formats, strategies
from rank_rl.data.first_stage import reorder
from rank_rl.data.given import Document, FirstStage, candidate, check_first_stage
from rank_rl.errors import RecipeError
from rank_rl.formats import base
from rank_rl.formats.base import Format
from rank_rl.formats.budget import CutReport
from rank_rl.generation import Generator
from rank_rl.generation.asking import Asked, Asker, make_asker
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.generation.repeats import MOST, Repeats
from rank_rl.generation.results import Progress, RankResult, TaskResult, listed
from rank_rl.generation.ruled import Rules
from rank_rl.generation.workers import Workers, copier
from rank_rl.models import loading
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.sessions import Counters, Session, with_notes
from rank_rl.specs import FirstStageSpec, StrategySpec
from rank_rl.strategies import Strategy, drive
from rank_rl.strategies.fit import check_fit

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from rank_rl.batcher import Batcher


class Reading(TypedDict, total=False):
    """How answers are written and read: ``readout`` and ``reasoning``, as ``eval`` of a recipe has
    them, ``constrained`` and ``thinking_budget``, see ``generation.ruled``."""

    readout: str
    reasoning: str
    constrained: bool
    thinking_budget: int | None


class Asking(TypedDict, total=False):
    """What is asked for besides query and documents, see ``Ranker.rank``."""

    top_k: int | None
    instruction: str | None
    explain: bool | int
    first_stage: FirstStage | str


class TaskRanker:
    """A format, a strategy and what answers its questions, as what ranks tasks.

    Args:
        fmt: what the prompt shows and how answers are read.
        loaded: model and tokenizer; None where ``asker`` needs none.
        strategy: which views are asked; None is single for text and by_score otherwise.
        max_new_tokens: most tokens of a generated answer or explanation.
        generator: what writes text; None is the loaded model, decoding greedily. As many views
            are asked together as it answers at once.
        asker: what answers views; None is what the format and the readout ask for.
        readout: what counts as a document's score: ``score`` (label logits of slots, label
            log-probabilities of formats that choose among labels), ``expected`` (expected label
            value, or written scores by their expectation under the model's probabilities),
            ``guided`` (the same, where all but the scores is given to the model; ``loaded`` writes,
            whatever ``generator`` is), ``decoded`` (as written); ``auto`` is decoded for text and
            score otherwise.
        reasoning: ``skip`` lets a format of mode reason answer at once; label slots then write no
            explanations. ``write`` otherwise.
        constrained: answers say nothing but what the format's grammar allows.
        thinking_budget: most tokens of reasoning; then its tag is closed, and the answer follows
            under the grammar. None sets no limit but ``max_new_tokens``.

    Raises:
        RecipeError: the format cannot be read out that way, or has no reasoning to skip.
    """

    def __init__(
        self,
        *,
        fmt: Format,
        loaded: loading.Loaded | None = None,
        strategy: Strategy | StrategySpec | None = None,
        max_new_tokens: int = 256,
        generator: Generator | None = None,
        asker: Asker | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        self.loaded, self.fmt = loaded, fmt
        unknown = reading.keys() - Reading.__annotations__.keys()
        if unknown:
            raise TypeError(f"no such argument: {', '.join(sorted(unknown))}")
        self.reasoning = check_reasoning(fmt, reading.get("reasoning", "write"))
        wanted = reading.get("readout", "auto")
        self.readout = readout_for(fmt, wanted, reasoning=self.reasoning)
        if strategy is None:
            strategy = StrategySpec(name="single" if formats.kind(fmt) == "text" else "by_score")
        made = strategies.make(strategy) if isinstance(strategy, StrategySpec) else strategy
        self.strategy: Strategy = made
        self.generator = generator
        if loaded is not None and generator is None and formats.kind(fmt) != "scorer":
            from rank_rl.generation.local import LocalGenerator

            self.generator = LocalGenerator(loaded, max_new_tokens=max_new_tokens)
        if asker is not None:
            self._workers = Workers(asker, getattr(asker, "twin", None))
        elif loaded is not None:
            how = (self.readout, self.reasoning, rules_of(reading))
            asker = make_asker(loaded, fmt, self.generator, *how)
            self._workers = Workers(asker, copier(loaded, fmt, self.generator, how), loaded=loaded)
        else:
            raise TypeError("a model (loaded), or what answers in its place (asker)")
        self.asker = asker
        self.counters = Counters()
        self.repeats = Repeats(self._workers, most=MOST)
        self._remembers = False
        self._batch_size = 0
        self._fits = 0  # so many candidates the strategy is known to rank
        self._batcher: Batcher | None = None
        self._lock = threading.Lock()

    @property
    def cuts(self) -> CutReport:
        """How many documents had to be cut to the budget so far."""
        return self._workers.cuts

    @property
    def batch_size(self) -> int:
        """How many views are asked at once; a generator of one's own may answer fewer together."""
        own = getattr(self.asker, "batch_size", 0) or getattr(self.generator, "batch_size", 1)
        return self._batch_size or int(own)

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        if size < 1:
            raise RecipeError(f"{size}", where="batch_size", expected="1 or more")
        self._batch_size = size
        if self.generator is not None and hasattr(self.generator, "batch_size"):
            self.generator.batch_size = size
        self._workers.renew()

    @property
    def device(self) -> str:
        """Where the model is; empty where it is elsewhere."""
        return self.loaded.device if self.loaded is not None else ""

    @property
    def workers(self) -> int:
        """How many threads answer at most, each with a model that shares the weights.

        Worth it on a CPU with several cores. Raises RecipeError for more than one where another
        process answers, or a generator of one's own.
        """
        return self._workers.count

    @workers.setter
    def workers(self, count: int) -> None:
        if count < 1:
            raise RecipeError(f"{count}", where="workers", expected="1 or more")
        if count > 1 and not self._workers.possible:
            raise RecipeError(f"{count}", where="workers", expected="1: nothing can be divided")
        self._workers.count = count
        self._workers.renew()

    def remember(self, most: int) -> None:
        """Keep so many answers between calls, the latest used; 0 keeps none, which is the default.

        Within a call identical views are asked once in any case. Only for a model that does not
        change, and only what an answer depends on nothing but the view is kept (no sampling).
        """
        self._remembers = most > 0
        self.repeats = Repeats(self._workers, most=most or MOST)

    def forget(self) -> None:
        """Drop what is kept of prompts, which is done wherever nothing is left to rank."""
        self._workers.forget()

    def session(self) -> Session:
        """Tasks that are added at any time and ranked together, see ``Session``."""
        self.forget()
        if not self._remembers:
            self.repeats = Repeats(self._workers, most=MOST)
        return Session(self)

    def check(self, tasks: Sequence[RankingTask]) -> None:
        """Check that strategy and format fit tasks with so many candidates.

        Raises:
            RecipeError: they do not.
        """
        most = max((len(task.candidates) for task in tasks), default=0)
        if most > self._fits:
            check_fit(tasks, self.strategy, self.fmt, self.readout)
            self._fits = most

    def rank_tasks(
        self,
        tasks: Sequence[RankingTask],
        *,
        explain: int = 0,
        progress: Progress | None = None,
    ) -> list[TaskResult]:
        """Rank tasks, batched across queries.

        Args:
            tasks: what to rank.
            explain: write reasoning for the top documents of each ranking; only label slots in
                mode ``reason`` need it, text answers hold their reasoning already.
            progress: called with (views answered, views expected).

        Raises:
            RecipeError: strategy and format do not fit, before anything is asked.
        """
        self.check(tasks)
        expected = drive.count(tasks, self.strategy).calls if progress else 0
        session = self.session()
        tickets = [session.add(task) for task in tasks]
        found: dict[int, TaskResult] = {}
        asked: dict[int, list[Asked]] = {}
        done = 0
        while session.waiting:
            ended, views = session.advance()
            for ticket, result, answers, _ in ended:
                found[ticket], asked[ticket] = result, answers
            done += views
            if progress and views:
                progress(done, max(done, expected) if session.waiting else done)
        results = [found[ticket] for ticket in tickets]
        results = self.explain(results, [asked[t] for t in tickets], explain, progress)
        for result in results:
            self.counters.add(result)
        return results

    def explain(
        self,
        results: list[TaskResult],
        asked: list[list[Asked]],
        depth: int,
        progress: Progress | None = None,
    ) -> list[TaskResult]:
        """Results with reasoning for their first ``depth`` documents, see ``rank_tasks``.

        Args:
            results: rankings.
            asked: the answers behind each.
            depth: how many documents of each.
            progress: as for ``rank_tasks``.
        """
        return with_notes(self, results, asked, depth, progress)


class Ranker(TaskRanker):
    """Ranks texts for queries; its arguments are those of ``TaskRanker``."""

    def rank(
        self,
        query: str,
        documents: Sequence[Document],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        explain: bool | int = False,
        first_stage: FirstStage | str = "auto",
    ) -> list[RankResult]:
        """Rank documents for one query.

        Args:
            query: the question.
            documents: texts, mappings with ``text`` and optionally ``id``, ``title`` and ``score``
                (of the first stage), or candidates.
            top_k: how many results to return; None returns all.
            instruction: what counts as relevant, where the task says so.
            explain: write reasoning for the results returned (or for that many of them).
            first_stage: ``given`` takes the documents in the order in which they are given;
                ``bm25`` orders them by BM25 over these documents first; ``auto`` does so where
                ``orders`` says so.

        Raises:
            DataError: no documents, a document without text, or a repeated id.
            RecipeError: no such ``first_stage``.
        """
        task = self.task(query, documents, instruction=instruction, first_stage=first_stage)
        (result,) = self.rank_tasks([task], explain=_depth(task, top_k, explain))
        return listed(task, result, top_k)

    def rank_many(
        self, pairs: Sequence[tuple[str, Sequence[Document]]], **asking: Unpack[Asking]
    ) -> list[list[RankResult]]:
        """Rank the documents of many queries, batched across queries.

        Args:
            pairs: queries with their documents.
            asking: the keywords of ``rank``, the same for all.

        Returns:
            What ``rank`` returns, for each pair in order.

        Raises:
            DataError, RecipeError: as ``rank``, before anything is asked.
        """
        done = dict(self.stream(pairs, **asking))
        return [done[i] for i in range(len(pairs))]

    def stream(
        self, pairs: Sequence[tuple[str, Sequence[Document]]], **asking: Unpack[Asking]
    ) -> Iterator[tuple[int, list[RankResult]]]:
        """As ``rank_many``, one result after the other as they are finished.

        Yields:
            The number of the pair, from 0, and what ``rank`` returns for it.
        """
        tasks = [self._task(query, documents, asking) for query, documents in pairs]
        session = self.session()
        top_k, explain = asking.get("top_k"), asking.get("explain", False)
        numbers = {
            session.add(task, explain=_depth(task, top_k, explain)): i
            for i, task in enumerate(tasks)
        }
        while session.waiting:
            for ticket, result in session.step():
                number = numbers[ticket]
                yield number, listed(tasks[number], result, top_k)

    async def arank(
        self, query: str, documents: Sequence[Document], **asking: Unpack[Asking]
    ) -> list[RankResult]:
        """As ``rank``, without blocking the event loop; calls that overlap share their batches.

        A model answers in one thread: do not call other methods of this object meanwhile.
        """
        task = self._task(query, documents, asking)
        top_k, explain = asking.get("top_k"), asking.get("explain", False)
        future = self.batcher().submit(task, explain=_depth(task, top_k, explain))
        return listed(task, await asyncio.wrap_future(future), top_k)

    def batcher(self) -> Batcher:
        """The thread that answers for all callers of ``arank``, started when first needed."""
        from rank_rl.batcher import Batcher

        with self._lock:
            if self._batcher is None:
                self._batcher = Batcher(self)
            return self._batcher

    def _task(self, query: str, documents: Sequence[Document], asking: Asking) -> RankingTask:
        instruction, first = asking.get("instruction"), asking.get("first_stage", "auto")
        return self.task(query, documents, instruction=instruction, first_stage=first)

    def task(
        self,
        query: str,
        documents: Sequence[Document],
        *,
        instruction: str | None = None,
        first_stage: FirstStage | str = "auto",
    ) -> RankingTask:
        """What ``rank`` ranks: the documents as candidates, ordered as ``first_stage`` says."""
        check_first_stage(first_stage)
        task = RankingTask(
            query=Query(qid="query", text=query, instruction=instruction),
            candidates=tuple(candidate(d, i + 1) for i, d in enumerate(documents)),
        )
        if first_stage == "bm25" or (first_stage == "auto" and self.orders(task.candidates)):
            (task,), _ = reorder([task], FirstStageSpec(pool=True))
        return task

    def orders(self, candidates: Sequence[Candidate]) -> bool:
        """Whether prompts tell the first stage's order, while no document has a score of one.

        The order in which texts happen to be listed would mislead such a model.
        """
        return base.reads_first_stage(self.fmt) and all(c.score is None for c in candidates)


def rules_of(reading: Reading) -> Rules:
    """What answers keep to."""
    budget = reading.get("thinking_budget")
    return Rules(constrained=bool(reading.get("constrained", False)), thinking_budget=budget)


def _depth(task: RankingTask, top_k: int | None, explain: bool | int) -> int:
    """How many documents want reasoning."""
    wanted = len(task.candidates) if top_k is None else top_k
    return min(wanted, wanted if explain is True else int(explain))
