"""``Reranker``: what people import. A checkpoint, a model behind a server, or a cross-encoder.

How it ranks is ``rank_rl.ranker``'s; this file only makes one, with the prompt contract that the
checkpoint was saved with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.base import Format
from rank_rl.formats.budget import TokenCounter
from rank_rl.generation.results import Note, RankResult, TaskResult, about, listed
from rank_rl.generation.workers import threads_for
from rank_rl.hub.contract import FILE, PromptContract
from rank_rl.models.scorers.loading import load_for
from rank_rl.models.sources import locate
from rank_rl.ranker import Ranker, Reading, rules_of
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

log = logging.getLogger(__name__)
EngineName = Literal["local", "engine"]
DTYPES = ("float32", "bfloat16")
MAX_NEW_TOKENS = 256  # of a model without a contract

__all__ = ["Note", "RankResult", "Ranker", "Reading", "Reranker", "TaskResult", "about", "listed"]


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
        engine: EngineName = "local",
        format: FormatSpec | Mapping[str, Any] | None = None,
        strategy: StrategySpec | Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Reranker:
        """Load a checkpoint folder or a Hub id with the prompt contract saved in it.

        Loading without a contract, or against what it says, is possible and logged as a warning.

        Args:
            name: folder, Hub id, or ``pip:<package>``.
            revision: Hub revision.
            engine: ``local`` (transformers), or ``engine`` (vLLM).
            format: another format than the contract's, or the format of a model without one.
            strategy: another strategy.
            overrides: ``device`` (a torch device or auto), ``dtype`` (what is computed in:
                ``float32``, ``bfloat16``; auto is bfloat16 on a GPU or CPU that is fast at it, and
                float32 elsewhere), ``max_new_tokens``, ``readout``
                (``auto`` keeps the contract's), ``reasoning`` (absent keeps the contract's),
                ``constrained`` and ``thinking_budget`` (see ``Ranker``), ``batch_size`` (most views
                at once), ``cache`` (answers kept between calls, see ``remember``), and with engine
                local ``generator`` and ``workers`` (threads that answer, each with a model that
                shares the weights; None takes as many on a CPU as torch computes with, 8 at most);
                with engine engine the names of ``EngineSettings``.

        Raises:
            ModelError: the model, or its contract where none is given, is missing or wrong.
            RecipeError: the format cannot be read out as asked for.
        """
        spec = ModelSpec(name=str(name), revision=revision)
        known, which = _specs(format, strategy)
        how = settings_of(spec, known, which, overrides)
        cache = how.other.pop("cache", 0)
        if engine == "engine":
            made: Reranker = cls(**_in_vllm(how, spec))
        else:
            size, workers = (how.other.pop(name, None) for name in ("batch_size", "workers"))
            made = cls(**_here(how, spec))
            if size is not None:
                made.batch_size = size
            if workers is not None or made._workers.possible:
                made.workers = workers or threads_for(made.device)
        if cache:
            made.remember(cache)
        return made

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
                ``reasoning``: skip only with ``continue_prefill``; ``constrained`` and
                ``thinking_budget`` with vLLM's server.

        Raises:
            RecipeError: a setting is wrong, the key is missing, or the server cannot be asked so.
        """
        from rank_rl.generation.remote import remote_asker, remote_generator

        spec, which = _specs(format, strategy)
        fmt = formats.make(spec)
        reading: Any = {k: settings.pop(k) for k in Reading.__annotations__ if k in settings}
        how = {k: reading[k] for k in ("readout", "reasoning") if k in reading}
        generator = remote_generator(model, answers=answers, **settings)
        asker = remote_asker(fmt, generator, tokens=tokens, rules=rules_of(reading), **how)
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
        made = cls(fmt=asker.fmt, strategy=alone, asker=asker)
        made.workers = threads_for(str(model.model.device.type))
        return made


@dataclass(slots=True)
class Settings:
    """How a checkpoint is asked: its contract, and what was asked for instead."""

    fmt: Format
    strategy: StrategySpec | None
    reading: Reading
    other: dict[str, Any]


def settings_of(
    spec: ModelSpec,
    format: FormatSpec | None,
    strategy: StrategySpec | None,
    overrides: Mapping[str, Any],
) -> Settings:
    """Read the contract where there is one, and log what differs from it.

    Raises:
        ModelError: the model, or its contract where no format is given, is missing or wrong.
    """
    source = locate(spec.name, spec.revision)
    folder = source.adapter or source.path
    other = dict(overrides)
    reading: Any = {k: other.pop(k) for k in Reading.__annotations__ if k in other}
    if format is not None and not (folder / FILE).is_file():
        log.warning("%s: has no prompt contract, is asked as told", spec.name)
        return Settings(formats.make(format), strategy, reading, other)
    contract = PromptContract.read(folder)
    if format is not None and format != contract.format:
        log.warning("%s: was trained with another format: its contract is not used", spec.name)
        return Settings(formats.make(format), strategy, reading, other)
    fmt = formats.make(contract.format)
    contract.check(fmt, where=spec.name)
    for name in ("readout", "reasoning"):
        own = getattr(contract, name)
        if reading.get(name, "auto") == "auto":
            reading[name] = own
        elif reading[name] != own:
            log.warning("%s: %s is %s, its contract says %s", spec.name, name, reading[name], own)
    if strategy is not None and strategy != contract.strategy:
        own = contract.strategy
        log.warning(
            "%s: strategy is %s %s, its contract says %s %s",
            *(spec.name, strategy.name, strategy.params, own.name, own.params),
        )
    other.setdefault("max_new_tokens", contract.max_new_tokens)
    return Settings(fmt, strategy or contract.strategy, reading, other)


def _here(how: Settings, spec: ModelSpec) -> dict[str, Any]:
    """The arguments of a ranker whose model is loaded by transformers."""
    spec = _computed_in(spec, how.other.pop("dtype", "auto"))
    loaded = load_for(how.fmt, spec, device=how.other.pop("device", "auto"))
    fixed = {"loaded": loaded, "fmt": how.fmt, "strategy": how.strategy}
    return {**fixed, **how.reading, **how.other}


def _computed_in(spec: ModelSpec, dtype: str) -> ModelSpec:
    """The model with weights in a dtype and nothing computed in another; auto leaves both open.

    Raises:
        RecipeError: no such dtype.
    """
    if dtype == "auto":
        return spec
    if dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise RecipeError(f"{dtype!r}", where="dtype", expected=f"auto, {known}")
    return spec.model_copy(update={"dtype": dtype, "autocast": "off"})


def _in_vllm(how: Settings, spec: ModelSpec) -> dict[str, Any]:
    """The arguments of a ranker whose model runs in vLLM."""
    from rank_rl.generation.engine import open_engine
    from rank_rl.generation.engine_asker import check_engine, engine_asker
    from rank_rl.generation.engine_settings import engine_settings
    from rank_rl.generation.engine_text import EngineGenerator

    check_engine(how.fmt)
    if how.other.pop("device", "auto") != "auto":
        raise RecipeError("vLLM chooses its device", where="device", expected="auto")
    length = how.other.pop("max_new_tokens", MAX_NEW_TOKENS)
    reading = {k: how.reading[k] for k in ("readout", "reasoning") if k in how.reading}
    generator = EngineGenerator(
        open_engine(spec, engine_settings(how.other)), max_new_tokens=length
    )
    asker = engine_asker(how.fmt, generator, rules=rules_of(how.reading), **reading)
    fixed = {"fmt": how.fmt, "strategy": how.strategy, "asker": asker, "generator": generator}
    return {**fixed, **how.reading}


def _specs(format: Any, strategy: Any) -> tuple[Any, Any]:
    """Format and strategy as specs, where they were given as mappings."""
    if isinstance(format, Mapping):
        format = FormatSpec.model_validate(format)
    if isinstance(strategy, Mapping):
        strategy = StrategySpec.model_validate(strategy)
    return format, strategy
