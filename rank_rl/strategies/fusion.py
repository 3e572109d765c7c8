"""Rankings fused with the first stage: pure functions; what is fused is to be reported apart.

``rrf`` adds reciprocal ranks (Cormack et al., 2009); ``min_max`` and ``z_score`` add scores brought
to one scale within the query, a convex combination as Bruch et al. (2023, arXiv 2210.11934) study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from rank_rl.errors import RecipeError
from rank_rl.records import Ranking, RankingTask

Method: TypeAlias = Literal["rrf", "min_max", "z_score"]
METHODS: tuple[str, ...] = get_args(Method)
RRF_K = 60


def fuse(task: RankingTask, ranking: Ranking, method: str, weight: float = 0.5) -> Ranking:
    """One ranking of a reranker's and the first stage's, ties by first-stage rank.

    Args:
        task: candidates in first-stage order, with its scores if there are any.
        ranking: the reranker's; orders of documents, or scores, whichever it has.
        method: ``rrf``: weighted sum of 1 / (60 + place), places from 1, scores are not looked at.
            ``min_max``: of scores between 0 and 1. ``z_score``: of scores with mean 0 and standard
            deviation 1. A side whose scores are missing or not finite counts by place, the best
            one highest; one whose scores are all equal adds 0 to every document.
        weight: share of the reranker, from 0 (first stage alone) to 1.

    Returns:
        Ranking with the fused scores.

    Raises:
        RecipeError: an unknown method, or a weight outside of 0 … 1.
        ValueError: ``ranking`` is not of this task's documents.
    """
    check(method, weight)
    if sorted(ranking.docids) != sorted(task.docids):
        raise ValueError(f"query {task.query.qid!r}: not a ranking of its documents")
    given = tuple(c.score for c in task.candidates)
    known = tuple(score for score in given if score is not None)
    reranked = _values(ranking.docids, ranking.scores, method)
    first = _values(task.docids, known if len(known) == len(given) else (), method)
    # Rounded, so that what is equal but for the order of additions is a tie.
    fused = {d: round(weight * reranked[d] + (1 - weight) * first[d], 12) for d in task.docids}
    return Ranking.from_scores(task, fused)


def check(method: str, weight: float) -> None:
    """Refuse an unknown method or a weight outside of 0 … 1.

    Raises:
        RecipeError: naming what is wrong.
    """
    if method not in METHODS:
        raise RecipeError(
            f"unknown method {method!r}", where="fusion", expected=f"one of {', '.join(METHODS)}"
        )
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= 1:
        raise RecipeError(f"weight is {weight!r}", where="fusion", expected="a number from 0 to 1")


def _values(docids: Sequence[str], scores: Sequence[float], method: str) -> dict[str, float]:
    """What one side gives to each document; ``docids`` are in its order, ``scores`` follow them."""
    if method == "rrf":
        return {d: 1.0 / (RRF_K + place) for place, d in enumerate(docids, 1)}
    usable = len(scores) == len(docids) and all(map(math.isfinite, scores))
    values = [float(s) for s in scores] if usable else [-float(i) for i in range(len(docids))]
    if max(map(abs, values)) > 1e100:  # squares and differences would overflow
        values = [v / 1e200 for v in values]
    low, high = min(values), max(values)
    if low == high:
        return dict.fromkeys(docids, 0.0)
    if method == "min_max":
        middle, spread = low, high - low
    else:
        middle = math.fsum(values) / len(values)
        spread = math.sqrt(math.fsum((v - middle) ** 2 for v in values) / len(values))
    return {d: (v - middle) / spread for d, v in zip(docids, values, strict=True)}
