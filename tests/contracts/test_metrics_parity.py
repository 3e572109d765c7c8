"""Our metrics against ranx and against ir_measures (pytrec_eval), on random graded data.

The data has tied first-stage scores (broken by rank, as everywhere), queries that are missing from
the run, queries with nothing relevant, unjudged and unretrieved documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rank_rl import metrics
from rank_rl.records import Candidate, Query, Ranking, RankingTask

Qrels = dict[str, dict[str, int]]
Runs = dict[str, Ranking]

OURS: dict[str, Callable[[tuple[str, ...], dict[str, int]], float]] = {
    "ndcg@10": lambda order, grades: metrics.ndcg(order, grades, 10),
    "ndcg@3": lambda order, grades: metrics.ndcg(order, grades, 3),
    "mrr@10": lambda order, grades: metrics.reciprocal_rank(order, grades, 10),
    "recall@5": lambda order, grades: metrics.recall(order, grades, 5),
    "map": metrics.average_precision,
}


def collection(seed: int, queries: int = 60) -> tuple[Qrels, Runs]:
    """Qrels for every query and rankings for most, from scores of which many are tied."""
    draw = random.Random(seed)
    qrels: Qrels = {}
    runs: Runs = {}
    for q in range(queries):
        pool = [f"d{i}" for i in range(draw.randrange(1, 30))]
        grades = {d: draw.choice([0, 0, 0, 1, 2, 3]) for d in pool if draw.random() < 0.8}
        if q % 7 == 0:
            grades = dict.fromkeys(pool, 0)
        qrels[f"q{q}"] = grades or {"d0": 0}
        qrels[f"q{q}"]["unretrieved"] = 0 if q % 7 == 0 else draw.randrange(4)
        if q % 11 == 5:
            continue
        docs = tuple(Candidate(docid=d, text="", rank=i + 1) for i, d in enumerate(pool))
        task = RankingTask(query=Query(qid=f"q{q}", text="?"), candidates=docs)
        runs[f"q{q}"] = Ranking.from_scores(task, {d: draw.randrange(4) for d in pool})
    return qrels, runs


def ours(metric: str, qrels: Qrels, runs: Runs) -> dict[str, float]:
    """Value of every judged query; one that is missing from the run has an empty order."""
    return {q: OURS[metric](runs[q].docids if q in runs else (), qrels[q]) for q in qrels}


@pytest.mark.parametrize("seed", range(5))
def test_parity_with_ir_measures(seed):
    import ir_measures
    from ir_measures import AP, RR, R, nDCG

    qrels, runs = collection(seed)
    theirs_of = {
        "ndcg@10": nDCG @ 10,
        "ndcg@3": nDCG @ 3,
        "mrr@10": RR @ 10,
        "recall@5": R @ 5,
        "map": AP,
    }
    judged = [ir_measures.Qrel(q, d, g) for q, grades in qrels.items() for d, g in grades.items()]
    run = [
        ir_measures.ScoredDoc(q, d, s)
        for q, ranking in runs.items()
        for d, s in zip(ranking.docids, ranking.run_scores(), strict=True)
    ]
    found = {
        (m.query_id, m.measure): m.value
        for m in ir_measures.iter_calc([*theirs_of.values()], judged, run)
    }
    for metric, measure in theirs_of.items():
        for q, value in ours(metric, qrels, runs).items():
            # A query that is missing from the run is worth 0 by either account.
            assert value == pytest.approx(found.get((q, measure), 0.0), abs=1e-6), (metric, q)
        missing = set(qrels) - set(runs)
        assert missing and all(ours(metric, qrels, runs)[q] == 0 for q in missing)


def test_parity_with_ranx():
    """Plain dicts of numbers, as the benchmark gives them: ranx's own classes compile for a minute.

    Its functions compile too, in a new environment, but those are what the benchmark uses anyway.
    """
    import ranx

    qrels, runs = collection(seed=99)
    # ranx refuses queries without any relevant document in some metrics; ours give 0, seen above.
    some = {q: g for q, g in qrels.items() if q in runs and any(v > 0 for v in g.values())}
    number = {d: i for i, d in enumerate(["unretrieved", *(f"d{i}" for i in range(30))], 1)}
    judged = {q: {number[d]: g for d, g in own.items() if g > 0} for q, own in some.items()}
    given = {
        q: {number[d]: s for d, s in zip(runs[q].docids, runs[q].run_scores(), strict=True)}
        for q in some
    }
    theirs = ranx.evaluate(judged, given, list(OURS), return_mean=False)
    assert len(some) > 40
    for metric in OURS:
        expected = ours(metric, some, runs)
        for q, value in zip(some, theirs[metric], strict=True):
            assert expected[q] == pytest.approx(value, abs=1e-9), (metric, q)


def test_ties_are_broken_before_any_metric_sees_them():
    docs = tuple(Candidate(docid=d, text="", rank=i + 1) for i, d in enumerate("abc"))
    task = RankingTask(query=Query(qid="q", text="?"), candidates=docs)
    ranking = Ranking.from_scores(task, {"c": 1.0, "b": 1.0, "a": 1.0})
    assert ranking.docids == ("a", "b", "c")
    assert ranking.run_scores() == (3.0, 2.0, 1.0)
