"""Benchmark metrics by ranx, per query, over all test queries that have anything relevant.

Contract: a query that a run leaves out counts as zero; a query with nothing relevant is left out
for every run and counted. Runs go in with strictly decreasing scores, so no tie is ever broken by
accident. Rewards use ``rank_rl.metrics``; a parity test keeps the two together.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Ranking, RankingTask

PerQuery = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Grades of the queries that count, and how many queries were left out."""

    grades: dict[str, dict[str, int]]
    queries: int
    without_relevant: int

    @classmethod
    def of(cls, tasks: Sequence[RankingTask]) -> Judgements:
        """Collect positive grades of a test split.

        Raises:
            DataError: no query has a relevant document.
        """
        grades = {
            task.query.qid: {d: g for d, g in (task.grades or {}).items() if g > 0}
            for task in tasks
        }
        kept = {qid: found for qid, found in sorted(grades.items()) if found}
        if not kept:
            raise DataError("no test query has a relevant document", where="test split")
        return cls(grades=kept, queries=len(tasks), without_relevant=len(tasks) - len(kept))


def check_metrics(judgements: Judgements, metrics: Sequence[str]) -> None:
    """Refuse names that ``measure`` would, before there are rankings.

    Raises:
        RecipeError: ranx does not know a metric.
    """
    qid, grades = next(iter(judgements.grades.items()))
    measure({qid: Ranking(qid=qid, docids=tuple(grades))}, judgements, metrics)


def measure(
    rankings: Mapping[str, Ranking], judgements: Judgements, metrics: Sequence[str]
) -> PerQuery:
    """Values of every metric by query, in the order of ``judgements``.

    Args:
        rankings: query id → ranking; ids without judgements are ignored, missing ones score 0.
        judgements: the queries that count.
        metrics: ranx names, e.g. ``ndcg@10``, ``mrr@10``, ``recall@5``, ``map``.

    Raises:
        RecipeError: ranx does not know a metric.
    """
    from ranx import evaluate

    run = {
        qid: dict(zip(r.docids, r.run_scores(), strict=True))
        for qid, r in sorted(rankings.items())
        if qid in judgements.grades and r.docids
    }
    if not run:
        return {m: dict.fromkeys(judgements.grades, 0.0) for m in metrics}
    grades = {qid: judgements.grades[qid] for qid in run}
    try:
        # Plain dicts: ranx's own classes compile for half a minute for every width of ids. The
        # repeated name keeps a single metric from taking another path, which fails in 0.3.21.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="unsafe cast")
            found = evaluate(grades, run, [*metrics, metrics[0]], return_mean=False)
    except (ValueError, KeyError) as error:
        raise RecipeError(
            f"unknown metric: {error}",
            where="bench.metrics",
            expected="names such as ndcg@10, mrr@10, recall@5, map",
        ) from error
    values = {m: dict(zip(run, map(float, found[m]), strict=True)) for m in metrics}
    return {m: {q: values[m].get(q, 0.0) for q in judgements.grades} for m in metrics}
