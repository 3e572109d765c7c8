"""``Reranker``: what people import. A checkpoint, a model behind a server, or a cross-encoder.

How it ranks is ``rank_rl.ranker``'s; this file only makes one, with the prompt contract that the
checkpoint was saved with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl import formats
from rank_rl.formats.budget import TokenCounter
from rank_rl.generation.results import Note, RankResult, TaskResult, about, listed
from rank_rl.hub.contract import PromptContract
from rank_rl.models.scorers.loading import load_for
from rank_rl.models.sources import locate
from rank_rl.ranker import Ranker, Reading
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

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
