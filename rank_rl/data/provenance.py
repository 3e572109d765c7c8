"""What a split contains, in numbers: the part of a result file that describes the data."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rank_rl.metrics import ndcg
from rank_rl.records import RankingTask


def describe_split(tasks: Sequence[RankingTask]) -> dict[str, Any]:
    """Counts of a split and nDCG@10 of its first stage and of the perfect order of its candidates.

    The means run over queries with at least one relevant document (retrieved or not); they are 0.0
    when there is none. ``candidates`` and ``relevant_per_query`` are means over the same queries'
    tasks.
    """
    graded = [t for t in tasks if any(g > 0 for g in (t.grades or {}).values())]
    return {
        "queries": len(tasks),
        "queries_with_relevant": len(graded),
        "judged": sum(len(t.grades or {}) for t in tasks),
        "candidates": _mean([len(t.candidates) for t in graded]),
        "relevant_per_query": _mean(
            [sum(g > 0 for g in (t.grades or {}).values()) for t in graded]
        ),
        "ndcg@10": {
            "first_stage": _mean([ndcg(t.docids, t.grades or {}) for t in graded]),
            "perfect": _mean([ndcg(_perfect(t), t.grades or {}) for t in graded]),
        },
    }


def _perfect(task: RankingTask) -> list[str]:
    grades = task.grades or {}
    return sorted(task.docids, key=lambda d: -grades.get(d, 0))


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 6) if values else 0.0
