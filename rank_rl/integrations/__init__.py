"""Rerankers inside other libraries: one module a library, which its user imports.

Contract: an adapter takes a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads; it
hands the retriever's order and scores on, changes neither ranking nor documents, and returns what
its library returns. Here is what the adapters share; libraries are left to their modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from rank_rl.data.given import Document, FirstStage, check_first_stage
from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.generation.results import RankResult
    from rank_rl.ranker import Ranker

STEP = 2.0**-19  # about 2e-6: what is set apart stays so as float32 and with six decimals


class Settings(TypedDict, total=False):
    """What is asked for in every ranking of an adapter, as keywords of ``Ranker.rank``."""

    instruction: str | None
    explain: bool | int
    first_stage: FirstStage | str


def reranker(given: Any) -> Ranker:
    """A reranker as it is, or the one of a folder or Hub id, loaded with its contract.

    Raises:
        RecipeError: it is neither.
        ModelError: there is no checkpoint of that name.
    """
    from rank_rl.rerank import Ranker, Reranker

    if isinstance(given, str | Path):
        return Reranker.from_pretrained(given)
    if not isinstance(given, Ranker):
        raise RecipeError(
            f"{type(given).__name__} is no reranker",
            where="ranker",
            expected="a rank_rl.Reranker, or a name that Reranker.from_pretrained loads",
        )
    return given


def checked(settings: Settings, **defaults: Any) -> Settings:
    """Settings over their defaults.

    Raises:
        RecipeError: no such setting, or no such first stage.
    """
    known = Settings.__annotations__
    for name in settings.keys() - known.keys():
        raise RecipeError(f"unknown argument {name!r}", expected=f"one of {', '.join(known)}")
    found: Settings = {**defaults, **settings}  # type: ignore[typeddict-item]
    check_first_stage(found.get("first_stage", "auto"))
    return found


def check_top(name: str, value: int | None) -> None:
    """Refuse a number of results that is not at least 1; None is all.

    Raises:
        RecipeError: naming the argument.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise RecipeError(f"{name} is {value!r}", expected="a whole number of at least 1, or None")


def shown(text: str, *, score: Any = None, title: Any = None) -> Mapping[str, Any]:
    """A document as ``Ranker.rank`` takes it; a score that is no finite number counts as none.

    Its id becomes its place in the list, from 1, so that ids of the library need not differ.
    """
    try:
        number = None if score is None or isinstance(score, bool | str) else float(score)
    except (TypeError, ValueError):
        number = None
    if number is not None and not math.isfinite(number):
        number = None
    return {"text": text, "title": title or "", "score": number}


def ranked(
    ranker: Ranker,
    query: str,
    documents: Sequence[Document],
    settings: Settings,
    top_k: int | None = None,
) -> list[RankResult]:
    """As ``Ranker.rank``, for callers in any thread: calls at the same time share their batches.

    Args:
        ranker: what ranks.
        query: the question.
        documents: what is ranked.
        settings: instruction, explanations, first stage.
        top_k: how many results; None is all.

    Raises:
        DataError, RecipeError: as ``Ranker.rank``.
    """
    from rank_rl.generation.results import listed

    explain = settings.get("explain", False)
    task = ranker.task(
        query,
        documents,
        instruction=settings.get("instruction"),
        first_stage=settings.get("first_stage", "auto"),
    )
    most = len(task.candidates) if top_k is None else min(top_k, len(task.candidates))
    depth = most if explain is True else min(most, int(explain))
    result = ranker.batcher().submit(task, explain=depth).result()
    return listed(task, result, top_k)


def apart(scores: Sequence[float]) -> list[float]:
    """Scores that follow a ranking, made strictly decreasing as 32-bit numbers.

    For libraries that know an order by its scores alone. A score that is already lower than the
    one before it stays as it is; another becomes less than that by about two
    millionths of it (of 1, where it is smaller).
    """
    import numpy as np

    found: list[float] = []
    for value in scores:
        score = float(np.float32(value))
        if found and not score < found[-1]:
            score = float(np.float32(found[-1] - STEP * max(1.0, abs(found[-1]))))
        found.append(score)
    return found
