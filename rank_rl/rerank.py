"""``Reranker``: a model, its format and its strategy as one object that ranks documents.

The same class serves users, validation during training and the benchmark. Contract: every ranking
is a total order of exactly the documents given; ties and unreadable answers keep first-stage
order, and unreadable answers are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from rank_rl import formats, strategies
from rank_rl.data.first_stage import reorder
from rank_rl.data.given import Document, FirstStage, candidate, check_first_stage
from rank_rl.formats import base
from rank_rl.formats.base import Format
from rank_rl.formats.budget import CutReport, TokenCounter
from rank_rl.generation import Generator
from rank_rl.generation.asking import Asked, Asker, SlotAsker, make_asker
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.generation.results import (
    Note,
    Progress,
    RankResult,
    TaskResult,
    about,
    explained,
    listed,
    task_result,
)
from rank_rl.hub.contract import PromptContract
from rank_rl.models import loading
from rank_rl.models.scorers.loading import load_for
from rank_rl.models.sources import locate
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FirstStageSpec, FormatSpec, ModelSpec, StrategySpec
from rank_rl.strategies import Strategy, drive
from rank_rl.strategies.fit import check_fit

__all__ = ["Note", "RankResult", "Ranker", "Reading", "Reranker", "TaskResult", "about", "listed"]


class Reading(TypedDict, total=False):
    """How answers are read: ``readout`` and ``reasoning``, as ``eval`` of a recipe has them."""

    readout: str
    reasoning: str


class Ranker:
    """A format, a strategy and what answers its questions; ``Reranker`` is how one is made.

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
        if loaded is not None and generator is None:
            from rank_rl.generation.local import LocalGenerator

            self.generator = LocalGenerator(loaded, max_new_tokens=max_new_tokens)
        if asker is None:
            if loaded is None or self.generator is None:
                raise TypeError("a model (loaded), or what answers in its place (asker)")
            asker = make_asker(loaded, fmt, self.generator, self.readout, self.reasoning)
        self.asker = asker
        self._fits = 0  # so many candidates the strategy is known to rank

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

        size = int(getattr(self.asker, "batch_size", 0) or getattr(self.generator, "batch_size", 1))
        results = drive.run(tasks, self.strategy, answer, batch_size=size, progress=progress)
        found = [
            task_result(result, [asked[id(outcome)] for _, outcome in result.outcomes])
            for result in results
        ]
        notes = explain and self.fmt.mode == "reason" and self.reasoning == "write"
        if notes and isinstance(self.asker, SlotAsker) and self.generator is not None:
            by_task = [[asked[id(o)] for _, o in result.outcomes] for result in results]
            return explained(self.asker, self.generator, found, by_task, explain, progress)
        return found


def _fitted(tasks: Sequence[RankingTask], reranker: Ranker, known: int) -> int:
    """Check that strategy and format fit where a task has more candidates than those ``known``.

    Returns the number of candidates that are known to fit.
    """
    most = max((len(task.candidates) for task in tasks), default=0)
    if most > known:
        check_fit(tasks, reranker.strategy, reranker.fmt, reranker.readout)
    return max(most, known)


class Reranker(Ranker):
    """Ranks documents for a query: a checkpoint, a model behind a server, or a cross-encoder.

    Its arguments are those of ``Ranker``, for a model that is loaded already.

    Example:
        >>> reranker = Reranker.from_pretrained("outputs/quickstart/grpo/final")
        >>> reranker.rank("who wrote Faust?", ["Goethe wrote Faust.", "Paris is in France."])
    """

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
        asked, which = _specs(format, strategy)
        if asked is not None:
            fmt = formats.make(asked)
            loaded = load_for(fmt, spec, device=device)
            return cls(loaded=loaded, fmt=fmt, strategy=which, **overrides)
        source = locate(spec.name, spec.revision)
        contract = PromptContract.read(source.adapter or source.path)
        fmt = formats.make(contract.format)
        contract.check(fmt, where=str(name))
        loaded = load_for(fmt, spec, device=device)
        overrides = {"max_new_tokens": contract.max_new_tokens, **overrides}
        if overrides.get("readout", "auto") == "auto":
            overrides["readout"] = contract.readout
        overrides.setdefault("reasoning", contract.reasoning)
        return cls(loaded=loaded, fmt=fmt, strategy=which or contract.strategy, **overrides)

    @classmethod
    def from_endpoint(
        cls,
        model: str,
        *,
        format: FormatSpec | Mapping[str, Any],
        strategy: StrategySpec | Mapping[str, Any] | None = None,
        answers: str | Path | None = None,
        tokens: TokenCounter | None = None,
        **settings: Any,
    ) -> Reranker:
        """Rank with a model behind a server that speaks OpenAI's chat completions.

        Args:
            model: its name on the server.
            format: a text format; it tells the model what to answer.
            strategy: which views are asked; None is single.
            answers: a file (JSONL) that keeps answers, so that nothing is asked twice.
            tokens: what counts the document budget; None is a guess, see ``counting.Rough``.
            settings: ``base_url``, ``concurrency``, ``retries`` and whatever else
                ``EndpointSettings`` has; ``max_new_tokens``, ``temperature`` and ``top_p``;
                ``readout``: decoded, or score where the server tells log-probabilities;
                ``reasoning``: skip only with ``continue_prefill``.

        Raises:
            RecipeError: a setting is wrong, the key is missing, or the server cannot be asked so.
        """
        from rank_rl.generation.remote import remote_asker, remote_generator

        spec, which = _specs(format, strategy)
        fmt = formats.make(spec)
        reading: Any = {k: settings.pop(k) for k in Reading.__annotations__ if k in settings}
        generator = remote_generator(model, answers=answers, **settings)
        asker = remote_asker(fmt, generator, tokens=tokens, **reading)
        return cls(fmt=fmt, strategy=which, generator=asker.generator, asker=asker, **reading)

    @classmethod
    def from_cross_encoder(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        **settings: Any,
    ) -> Reranker:
        """Rank with a cross-encoder that sentence-transformers loads; each document is a question.

        Args:
            name: folder, Hub id, or ``pip:<package>``.
            revision: Hub revision.
            device: a torch device or auto.
            settings: those of ``models.cross_encoders.CrossEncoderSettings``.

        Raises:
            ModelError: the model cannot be found or used.
            RecipeError: sentence-transformers is not installed, or a setting is wrong.
        """
        from rank_rl.models import cross_encoders as library
        from rank_rl.teachers.params import checked

        chosen = checked("cross-encoder of", library.LIBRARY, settings, library.SETTINGS)
        model = library.load_cross_encoder(str(name), chosen, revision=revision, device=device)
        asker = library.CrossEncoderAsker(model)
        alone = StrategySpec(name="by_score", params={"size": 1})
        return cls(fmt=asker.fmt, strategy=alone, asker=asker)


def _specs(format: Any, strategy: Any) -> tuple[Any, Any]:
    """Format and strategy as specs, where they were given as mappings."""
    if isinstance(format, Mapping):
        format = FormatSpec.model_validate(format)
    if isinstance(strategy, Mapping):
        strategy = StrategySpec.model_validate(strategy)
    return format, strategy
