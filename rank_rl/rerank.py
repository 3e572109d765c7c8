"""``Reranker``: a model, its format and its strategy as one object that ranks documents.

The same class serves users, validation during training and the benchmark. Contract: every ranking
is a total order of exactly the documents given; ties and unreadable answers keep first-stage
order, and unreadable answers are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from rank_rl import formats, strategies
from rank_rl.data.first_stage import reorder
from rank_rl.data.given import Document, FirstStage, candidate, check_first_stage
from rank_rl.formats import base
from rank_rl.formats.base import Format
from rank_rl.formats.budget import CutReport
from rank_rl.generation import Generator
from rank_rl.generation.asking import Asked, SlotAsker, make_asker
from rank_rl.generation.local import LocalGenerator
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.hub.contract import PromptContract
from rank_rl.models import loading
from rank_rl.models.scorers.loading import load_for
from rank_rl.models.sources import locate
from rank_rl.records import Candidate, Completion, Exchange, Query, Ranking, RankingTask
from rank_rl.specs import FirstStageSpec, FormatSpec, ModelSpec, StrategySpec
from rank_rl.strategies import Strategy, drive
from rank_rl.strategies.fit import check_fit

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankResult:
    """One document of a ranking; ``rank`` counts from 1, ``reasoning`` may be empty."""

    docid: str
    rank: int
    score: float
    text: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An explanation of one document: the completion behind it and what was wrong with it."""

    docid: str
    text: str
    completion: Completion
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """A ranked task and what it cost.

    Attributes:
        ranking: the total order.
        exchanges: every question asked, with its answer.
        calls, depth: views asked, and rounds that had to wait for one another.
        prompt_tokens, completion_tokens, seconds: cost, explanations included.
        statuses: parse statuses over answers (text) or slots.
        notes: explanations written on request, by docid.
    """

    ranking: Ranking
    exchanges: tuple[Exchange, ...]
    calls: int
    depth: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    statuses: Mapping[str, int]
    notes: Mapping[str, Note] = field(default_factory=dict)

    def reasoning(self, docid: str) -> str:
        """What the model wrote about a document: its note, else the reasoning of its list."""
        if docid in self.notes:
            return self.notes[docid].text
        shown = [e for e in self.exchanges if docid in e.view.docids]
        own = [e.outcome.notes[docid] for e in shown if e.outcome.notes.get(docid)]
        return own[-1] if own else about(shown[-1], docid) if shown else ""


class Reading(TypedDict, total=False):
    """How answers are read: ``readout`` and ``reasoning``, as ``eval`` of a recipe has them."""

    readout: str
    reasoning: str


class Reranker:
    """Ranks documents for a query with a trained model.

    Example:
        >>> reranker = Reranker.from_pretrained("outputs/quickstart/grpo/final")
        >>> reranker.rank("who wrote Faust?", ["Goethe wrote Faust.", "Paris is in France."])

    Args:
        loaded: model and tokenizer.
        fmt: what the prompt shows and how answers are read.
        strategy: which views are asked; None is single for text and by_score otherwise.
        max_new_tokens: most tokens of a generated answer or explanation.
        generator: what writes text; None is the loaded model, decoding greedily. As many views
            are asked together as it answers at once.
        readout: what counts as a document's score: ``score`` (label logits of slots, label
            log-probabilities of formats that choose among labels), ``expected`` (expected label
            value, or written scores by their expectation under the model's probabilities),
            ``guided`` (the same, where all but the scores is given to the model; ``loaded`` writes,
            whatever ``generator`` is), ``decoded`` (as written); ``auto`` is decoded for text and
            score otherwise.
        reasoning: ``skip`` lets a format of mode reason answer at once; label slots then write no
            explanations. ``write`` otherwise.

    Raises:
        RecipeError: the format cannot be read out that way, or has no reasoning to skip.
    """

    def __init__(
        self,
        *,
        loaded: loading.Loaded,
        fmt: Format,
        strategy: Strategy | StrategySpec | None = None,
        max_new_tokens: int = 256,
        generator: Generator | None = None,
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
        self.generator = generator or LocalGenerator(loaded, max_new_tokens=max_new_tokens)
        self.asker = make_asker(loaded, fmt, self.generator, self.readout, self.reasoning)
        self._fits = 0  # so many candidates the strategy is known to rank

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        format: FormatSpec | Mapping[str, Any] | None = None,
        strategy: StrategySpec | Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Reranker:
        """Load a checkpoint folder or a Hub id with the prompt contract saved in it.

        Args:
            name: folder, Hub id, or ``pip:<package>``.
            revision: Hub revision.
            device: a torch device or auto.
            format: another format than the contract's, or the format of a model without one.
            strategy: another strategy.
            overrides: ``max_new_tokens``, ``generator``, ``readout`` (``auto`` keeps the
                contract's), ``reasoning`` (absent keeps the contract's).

        Raises:
            ModelError: the model, or its contract where none is given, is missing or wrong.
            RecipeError: the format cannot be read out as asked for.
        """
        spec = ModelSpec(name=str(name), revision=revision)
        if isinstance(format, Mapping):
            format = FormatSpec.model_validate(format)
        if isinstance(strategy, Mapping):
            strategy = StrategySpec.model_validate(strategy)
        if format is not None:
            fmt = formats.make(format)
            loaded = load_for(fmt, spec, device=device)
            return cls(loaded=loaded, fmt=fmt, strategy=strategy, **overrides)
        source = locate(spec.name, spec.revision)
        contract = PromptContract.read(source.adapter or source.path)
        fmt = formats.make(contract.format)
        contract.check(fmt, where=str(name))
        loaded = load_for(fmt, spec, device=device)
        overrides = {"max_new_tokens": contract.max_new_tokens, **overrides}
        if overrides.get("readout", "auto") == "auto":
            overrides["readout"] = contract.readout
        overrides.setdefault("reasoning", contract.reasoning)
        return cls(loaded=loaded, fmt=fmt, strategy=strategy or contract.strategy, **overrides)

    @property
    def cuts(self) -> CutReport:
        """How many documents had to be cut to the budget so far."""
        return self.asker.cuts

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
        wanted = len(task.candidates) if top_k is None else top_k
        depth = min(wanted, wanted if explain is True else int(explain))
        (result,) = self.rank_tasks([task], explain=depth)
        return listed(task, result, top_k)

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
        self._fits = _fitted(tasks, self, self._fits)
        asked: dict[int, Asked] = {}

        def answer(views: list[Any]) -> list[Any]:
            answers = self.asker.ask(views)
            # The driver hands the same outcome objects back, so their identity finds the rest.
            asked.update((id(a.outcome), a) for a in answers)
            return [a.outcome for a in answers]

        results = drive.run(
            tasks, self.strategy, answer, batch_size=self.generator.batch_size, progress=progress
        )
        found = [
            _task_result(result, [asked[id(outcome)] for _, outcome in result.outcomes])
            for result in results
        ]
        notes = explain and self.fmt.mode == "reason" and self.reasoning == "write"
        if notes and isinstance(self.asker, SlotAsker):
            by_task = [[asked[id(o)] for _, o in result.outcomes] for result in results]
            return _explained(self.asker, self.generator, found, by_task, explain, progress)
        return found


def _fitted(tasks: Sequence[RankingTask], reranker: Reranker, known: int) -> int:
    """Check that strategy and format fit where a task has more candidates than those ``known``.

    Returns the number of candidates that are known to fit.
    """
    most = max((len(task.candidates) for task in tasks), default=0)
    if most > known:
        check_fit(tasks, reranker.strategy, reranker.fmt, reranker.readout)
    return max(most, known)


def listed(task: RankingTask, result: TaskResult, top_k: int | None = None) -> list[RankResult]:
    """The first documents of a ranking one by one; all of them when ``top_k`` is None."""
    texts = {c.docid: c.text for c in task.candidates}
    scores = result.ranking.scores or result.ranking.run_scores()
    return [
        RankResult(
            docid=docid,
            rank=i + 1,
            score=scores[i],
            text=texts[docid],
            reasoning=result.reasoning(docid),
        )
        for i, docid in enumerate(result.ranking.docids[:top_k])
    ]


def about(exchange: Exchange, docid: str) -> str:
    """The lines of a list's reasoning that name a document's label, else all of it."""
    label = f"[{exchange.view.label(docid)}]"
    lines = [s for s in exchange.outcome.reasoning.splitlines() if label in s]
    return "\n".join(lines) or exchange.outcome.reasoning


def _task_result(result: drive.Result, asked: Sequence[Asked]) -> TaskResult:
    statuses = Counter({"ok": 0, "repaired": 0, "failed": 0})
    for a in asked:
        statuses.update(a.statuses)
    completions = [a.exchange.completion for a in asked]
    return TaskResult(
        ranking=result.ranking,
        exchanges=tuple(a.exchange for a in asked),
        calls=result.calls,
        depth=result.depth,
        prompt_tokens=sum(c.prompt_tokens for c in completions),
        completion_tokens=sum(c.completion_tokens for c in completions),
        seconds=sum(c.seconds for c in completions),
        statuses=dict(statuses),
    )


def _with_notes(result: TaskResult, notes: dict[str, Note]) -> TaskResult:
    written = [n.completion for n in notes.values()]
    return replace(
        result,
        notes=notes,
        prompt_tokens=result.prompt_tokens + sum(c.prompt_tokens for c in written),
        completion_tokens=result.completion_tokens + sum(c.completion_tokens for c in written),
        seconds=result.seconds + sum(c.seconds for c in written),
    )


def _explained(
    asker: SlotAsker,
    generator: Generator,
    results: list[TaskResult],
    asked: list[list[Asked]],
    k: int,
    progress: Progress | None,
) -> list[TaskResult]:
    """Write notes for the top ``k`` documents of every result, in one batched generation."""
    jobs = [
        (i, docid, a)
        for i, result in enumerate(results)
        for docid in result.ranking.docids[:k]
        for a in [a for a in asked[i] if docid in a.exchange.view.docids][-1:]
    ]
    prompts = [asker.explain_prompt(a, docid) for _, docid, a in jobs]
    done = sum(result.calls for result in results)
    total = done + len(prompts)

    def report(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, total)

    completions = generator.generate(prompts, progress=report)
    notes: list[dict[str, Note]] = [{} for _ in results]
    for (i, docid, _), prompt, completion in zip(jobs, prompts, completions, strict=True):
        label = prompt.prefill.removeprefix(asker.fmt.lead)
        _, text, issues = asker.fmt.parse_slot(label + completion.text)
        notes[i][docid] = Note(docid=docid, text=text, completion=completion, issues=issues)
    return [_with_notes(result, own) for result, own in zip(results, notes, strict=True)]
