"""Systems of the benchmark that are no checkpoints: models behind a server, and cross-encoders.

Contract: what is wrong with them is found before anything is asked, as far as it can be without
asking; answers of a server are kept in a file and not asked for again. How systems with a
checkpoint are asked is ``setting``'s and ``asked``'s.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl import formats, strategies
from rank_rl.bench.setting import Models, Setting
from rank_rl.errors import RecipeError
from rank_rl.formats.budget import TokenCounter
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.generation.remote import (
    MAX_NEW_TOKENS,
    RemoteGenerator,
    remote_asker,
    remote_generator,
)
from rank_rl.hub.scrub import portable
from rank_rl.models.counting import Rough, Words, token_counter
from rank_rl.registry import need
from rank_rl.rerank import Reranker
from rank_rl.specs import FormatSpec, RecipeSpec, StrategySpec, SystemSpec
from rank_rl.teachers.params import checked

if TYPE_CHECKING:
    from rank_rl.models.cross_encoders import CrossEncoderSettings


def other_setting(system: SystemSpec, spec: RecipeSpec) -> Setting:
    """How such a system is asked: as it says itself, else the recipe's format and strategy.

    The recipe's readout and reasoning are meant for its own models.

    Raises:
        RecipeError: no text format, or it cannot be read out as asked for.
    """
    if system.kind == "cross_encoder":
        return Setting(
            format=FormatSpec(name="cross_encoder"),
            strategy=StrategySpec(name="by_score", params={"size": 1}),
            readout="score",
            reasoning="write",
            max_new_tokens=1,
            contract="",
        )
    where = f"bench.systems {system.name!r}"
    chosen = system.format or spec.format
    fmt = formats.make(chosen)
    if formats.kind(fmt) != "text":
        raise RecipeError(
            f"no format for kind {system.kind}",
            where=where,
            expected="a format that writes (permutation, pointwise …) under its format key",
        )
    reasoning = check_reasoning(fmt, system.reasoning or "write", where=f"{where}: reasoning")
    readout = readout_for(fmt, system.readout, where=f"{where}: readout", reasoning=reasoning)
    return Setting(
        format=chosen,
        strategy=system.strategy or spec.eval.strategy,
        readout=readout,
        reasoning=reasoning,
        max_new_tokens=system.max_new_tokens or MAX_NEW_TOKENS,
        contract="",
    )


def check_other(system: SystemSpec, spec: RecipeSpec, models: Models) -> None:
    """Find what is wrong with such a system; no server is asked and no weights are loaded.

    Raises:
        RankRLError: a wrong parameter, no key, a format that a server cannot be asked, a package
            or a model that is not there.
    """
    if system.kind == "endpoint":
        _endpoint(system, spec, None)
        return
    _pairs(system)
    need("sentence_transformers", "baselines")
    models.revision(str(system.model))


def other_reranker(
    system: SystemSpec, spec: RecipeSpec, models: Models, answers: Path | None = None
) -> Reranker:
    """What answers such a system.

    Args:
        system: the row.
        spec: its recipe.
        models: keeps what was loaded last.
        answers: a file that keeps a server's answers; None keeps none.

    Raises:
        RankRLError: as ``check_other``, or the model cannot be loaded.
    """
    if system.kind == "endpoint":
        return _endpoint(system, spec, answers)
    from rank_rl.models.cross_encoders import CrossEncoderAsker, load_cross_encoder

    name, settings = str(system.model), _pairs(system)
    loaded = models.keep(
        ("cross_encoder", name, repr(settings)),
        lambda: load_cross_encoder(name, settings, revision=models.pinned(name)),
    )
    asker = CrossEncoderAsker(loaded)
    strategy = other_setting(system, spec).strategy
    return Reranker(fmt=asker.fmt, strategy=strategy, asker=asker)


def other_pins(system: SystemSpec, spec: RecipeSpec, models: Models) -> dict[str, str]:
    """What else than the recipe such a system's numbers depend on.

    Raises:
        RankRLError: as ``check_other``.
    """
    if system.kind == "endpoint":
        generator = _generator(system, spec, None)
        return {"server": generator.backend.where, "tokens": _counter(system, spec)[1]}
    return {"model": models.revision(str(system.model)), "library": _library()}


def other_facts(system: SystemSpec, spec: RecipeSpec, reranker: Reranker) -> dict[str, Any]:
    """Model and setting of such a system, for its record.

    The revision of a model behind a server is the name, or names, that it answered under.
    """
    how = other_setting(system, spec)
    if system.kind == "cross_encoder":
        asked: Any = reranker.asker
        revision, fmt, mode = asked.model.revision, _library(), ""
    else:
        generator: Any = reranker.generator
        revision = ", ".join(sorted(map(portable, generator.served - {""})))
        fmt, mode = reranker.fmt.version, reranker.fmt.mode
    return {
        "model": {"name": str(system.model), "revision": revision, "contract": ""},
        "setting": {
            "format": fmt,
            "mode": mode,
            "strategy": how.strategy.name,
            "readout": how.readout,
            "reasoning": how.reasoning if mode == "reason" else "",
        },
    }


def _endpoint(system: SystemSpec, spec: RecipeSpec, answers: Path | None) -> Reranker:
    how = other_setting(system, spec)
    asker = remote_asker(
        formats.make(how.format),
        _generator(system, spec, answers),
        tokens=_counter(system, spec)[0],
        readout=how.readout,
        reasoning=how.reasoning,
    )
    return Reranker(
        fmt=asker.fmt,
        strategy=strategies.make(how.strategy, seed=spec.run.seed),
        generator=asker.generator,
        asker=asker,
        readout=how.readout,
        reasoning=how.reasoning,
    )


def _generator(system: SystemSpec, spec: RecipeSpec, answers: Path | None) -> RemoteGenerator:
    settings = {k: v for k, v in system.params.items() if k != "tokenizer"}
    taken = {"answers", "max_new_tokens", "model"} & settings.keys()
    if taken:
        raise RecipeError(
            f"unknown parameter {min(taken)!r}", where=f"bench.systems {system.name!r}: params"
        )
    length = other_setting(system, spec).max_new_tokens
    return remote_generator(str(system.model), answers=answers, max_new_tokens=length, **settings)


def _counter(system: SystemSpec, spec: RecipeSpec) -> tuple[TokenCounter, str]:
    """What counts the document budget: a tokenizer that is named, or the recipe's model's.

    The teacher is then shown the same text of a document as the student. Without any tokenizer
    tokens are guessed.
    """
    name = system.params.get("tokenizer")
    tokens, said = token_counter(str(name or spec.model.name), warn=name is not None)
    if not isinstance(tokens, Words):
        return tokens, said
    if name is not None:
        raise RecipeError(
            f"no tokenizer {name!r}",
            where=f"bench.systems {system.name!r}: params.tokenizer",
            expected="a folder, a Hub id or pip:<package>",
        )
    return Rough(), "tokens guessed"


def _pairs(system: SystemSpec) -> CrossEncoderSettings:
    from rank_rl.models.cross_encoders import LIBRARY, SETTINGS

    settings: CrossEncoderSettings = checked("cross-encoder of", LIBRARY, system.params, SETTINGS)
    return settings


def _library() -> str:
    return f"sentence-transformers {metadata.version('sentence-transformers')}"
