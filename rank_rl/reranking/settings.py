"""What decides the answers of a reranking, so that no other one goes on with what is kept.

Contract: JSON-safe values under names that a person understands; two rerankings with equal settings
ask the same questions of the same model in the same portions. Where files lie and what is written
in the end is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rank_rl.errors import RecipeError
from rank_rl.formats import kind
from rank_rl.ranker import Ranker
from rank_rl.records import RankingTask

PORTIONS = 16  # at least so many where there are enough queries, for processes to share
LEAST = 4  # queries of a portion


def settings(
    ranker: Ranker,
    tasks: Sequence[RankingTask],
    *,
    explain: int = 0,
    portion: int,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings of a reranking.

    Args:
        ranker: what ranks.
        tasks: what is ranked.
        explain: so many documents of each query get an explanation of their own, see ``notes``.
        portion: how many queries are asked together.
        overrides: what was asked for apart from the checkpoint (``thinking_budget`` …).
    """
    generator = ranker.generator
    return {
        "model": _model(ranker),
        "format": {"version": ranker.fmt.version, **ranker.fmt.spec.model_dump(mode="json")},
        "strategy": repr(ranker.strategy),
        "readout": ranker.readout,
        "reasoning": ranker.reasoning if ranker.fmt.mode == "reason" else "",
        "max_new_tokens": getattr(generator, "max_new_tokens", None),
        "explanations": notes(ranker, explain),
        "portion": portion,
        "options": {k: v for k, v in sorted((overrides or {}).items()) if v is not None},
        "input": digest(tasks),
    }


def notes(ranker: Ranker, explain: int) -> int:
    """How many documents of a query get an explanation that the answer does not hold already."""
    apart = kind(ranker.fmt) == "slots" and ranker.fmt.mode == "reason"
    return explain if apart and ranker.reasoning == "write" else 0


def portion_of(queries: int, batch: int) -> int:
    """How many queries are asked together: a batch, or fewer where there are few queries.

    It must not depend on the number of processes: what a query shares its batch with changes the
    last digits of its scores.
    """
    return max(1, min(batch, max(LEAST, math.ceil(queries / PORTIONS))))


def digest(tasks: Sequence[RankingTask]) -> str:
    """Twelve hex digits of everything that is shown or ranked."""
    found = hashlib.sha256()
    for task in tasks:
        query = task.query
        shown = [query.qid, query.text, query.instruction or "", repr(dict(query.metadata))]
        rows = [[c.docid, c.title, c.text, c.rank, c.score] for c in task.candidates]
        found.update(json.dumps([shown, rows]).encode())
    return found.hexdigest()[:12]


def check_same(kept: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with the answers of another reranking.

    Raises:
        RecipeError: naming the first setting that differs.
    """
    for name in dict.fromkeys([*wanted, *kept]):
        if kept.get(name) != wanted.get(name):
            raise RecipeError(
                f"was answered with another {name}: {_said(kept.get(name), wanted.get(name))}",
                where=where,
                expected=f"the {name} of what is kept",
                remedy="--overwrite starts anew; or give another --output",
            )


def _said(kept: Any, wanted: Any) -> str:
    """Two values, of mappings only the first key that differs."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        name = next(k for k in [*wanted, *kept] if kept.get(k) != wanted.get(k))
        return f"{name} {kept.get(name)!r} there, {wanted.get(name)!r} now"
    return f"{kept!r} there, {wanted!r} now"


def _model(ranker: Ranker) -> dict[str, Any]:
    """What pins the model: a checkpoint's content and precision, or name, address, sampling."""
    from rank_rl.models.loading import precision

    if ranker.loaded is not None:
        return {"revision": ranker.loaded.revision, "precision": precision(ranker.loaded)}
    backend, asker = getattr(ranker.generator, "backend", None), ranker.asker
    if backend is None:
        return {"name": str(getattr(asker, "name", type(asker).__name__))}
    sampling = getattr(ranker.generator, "sampling", None)
    return {
        "name": backend.model,
        "server": backend.where,
        "sampling": sampling.as_dict() if sampling else {},
        "extra": dict(getattr(backend, "extra", {})),
    }
