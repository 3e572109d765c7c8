"""What answers a system of the benchmark: its model, format and strategy as one reranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rank_rl import formats, strategies
from rank_rl.bench.others import other_facts, other_reranker
from rank_rl.bench.setting import OTHERS, Models, setting
from rank_rl.errors import ModelError
from rank_rl.rerank import Reranker
from rank_rl.specs import RecipeSpec, SystemSpec


def reranker_for(
    system: SystemSpec, spec: RecipeSpec, models: Models, answers: Path | None = None
) -> Reranker:
    """The reranker that answers a system, with its model loaded; ``answers`` keeps a server's.

    Raises:
        RankRLError: the model or format is wrong.
    """
    from rank_rl.generation.local import LocalGenerator

    if system.model is None:
        raise ModelError("no model", where=f"bench.systems {system.name!r}")
    if system.kind in OTHERS:
        return other_reranker(system, spec, models, answers)
    how = setting(system, spec)
    fmt = formats.make(how.format)
    loaded = models.load(system.model, fmt)
    return Reranker(
        loaded=loaded,
        fmt=fmt,
        strategy=strategies.make(how.strategy, seed=spec.run.seed),
        readout=how.readout,
        reasoning=how.reasoning,
        generator=LocalGenerator(
            loaded,
            max_new_tokens=how.max_new_tokens,
            batch_size=spec.bench.batch_size if spec.bench else 32,
        ),
    )


def facts(system: SystemSpec, spec: RecipeSpec, reranker: Reranker) -> dict[str, Any]:
    """Model (name, revision, contract hash) and setting of a system, for its record."""
    loaded = reranker.loaded
    if loaded is None:
        return other_facts(system, spec, reranker)
    how, fmt = setting(system, spec), reranker.fmt
    return {
        "model": {"name": loaded.name, "revision": loaded.revision, "contract": how.contract},
        "setting": {
            "format": fmt.version,
            "mode": fmt.mode,
            "strategy": how.strategy.name,
            "readout": how.readout,
            "reasoning": how.reasoning if fmt.mode == "reason" else "",
        },
    }
