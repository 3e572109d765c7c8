"""ranx, ir_measures and rank_rl.metrics say the same; a missing query counts as zero."""

from __future__ import annotations

import random

import ir_measures
import pytest

from rank_rl import metrics
from rank_rl.bench.measures import Judgements, measure
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, Query, Ranking, RankingTask

METRICS = ["ndcg@10", "mrr@10", "recall@5", "map"]


def tasks(n: int = 25) -> list[RankingTask]:
    rng = random.Random(0)
    made = []
    for i in range(n):
        docids = [f"d{i}_{j}" for j in range(rng.randint(2, 30))]
        grades = {d: rng.choice([0, 0, 0, 1, 2, 3]) for d in docids} | {f"unseen{i}": i % 3}
        if i % 7 == 3:
            grades = dict.fromkeys(docids, 0)
        made.append(
            RankingTask(
                query=Query(qid=f"q{i}", text="x"),
                candidates=tuple(Candidate(docid=d, text="t") for d in docids),
                grades=grades,
            )
        )
    return made


def shuffled(made: list[RankingTask]) -> dict[str, Ranking]:
    rng = random.Random(1)
    runs = {}
    for task in made:
        docids = list(task.docids)
        rng.shuffle(docids)
        runs[task.query.qid] = Ranking(qid=task.query.qid, docids=tuple(docids))
    return runs


def test_parity_with_plain_metrics_and_ir_measures_and_missing_queries_are_zero():
    made = tasks()
    judgements = Judgements.of(made)
    runs = shuffled(made)
    missing = [q for q in judgements.grades if q.endswith(("1", "2"))]
    for qid in missing:
        del runs[qid]
    runs["not judged"] = Ranking(qid="not judged", docids=("d",))
    found = measure(runs, judgements, METRICS)
    assert missing and all(found[m][q] == 0.0 for m in METRICS for q in missing)
    for qid, grades in judgements.grades.items():
        order = runs[qid].docids if qid in runs else ()
        plain = {
            "ndcg@10": metrics.ndcg(order, grades, 10),
            "mrr@10": metrics.reciprocal_rank(order, grades, 10),
            "recall@5": metrics.recall(order, grades, 5),
            "map": metrics.average_precision(order, grades),
        }
        assert {m: found[m][qid] for m in METRICS} == pytest.approx(plain, abs=1e-9), qid
    theirs = [ir_measures.parse_measure(m) for m in ["nDCG@10", "RR@10", "R@5", "AP"]]
    qrels = [
        ir_measures.Qrel(q, d, g)
        for q, grades in judgements.grades.items()
        for d, g in grades.items()
    ]
    scored = [
        ir_measures.ScoredDoc(q, d, s)
        for q, r in runs.items()
        for d, s in zip(r.docids, r.run_scores(), strict=True)
    ]
    mean = ir_measures.calc_aggregate(theirs, qrels, scored)
    for name, their in zip(METRICS, theirs, strict=True):
        ours = sum(found[name].values()) / len(judgements.grades)
        assert ours == pytest.approx(mean[their], abs=1e-9), name


def test_queries_with_nothing_relevant_are_left_out_and_counted():
    made = tasks()
    judgements = Judgements.of(made)
    assert judgements.without_relevant == 4
    assert judgements.queries == len(made) == len(judgements.grades) + 4
    assert all(g > 0 for grades in judgements.grades.values() for g in grades.values())


def test_an_empty_run_scores_zero_everywhere():
    judgements = Judgements.of(tasks(3))
    assert set(measure({}, judgements, ["map"])["map"].values()) == {0.0}


def test_one_metric_alone_is_the_same_as_among_others():
    made = tasks(4)
    judgements = Judgements.of(made)
    both = measure(shuffled(made), judgements, ["map", "ndcg@10"])
    assert measure(shuffled(made), judgements, ["map"]) == {"map": both["map"]}


def test_nothing_relevant_at_all_is_an_error():
    with pytest.raises(DataError, match="no test query has a relevant document"):
        Judgements.of([tasks(4)[3]])


def test_unknown_metrics_are_named():
    made = tasks(2)
    with pytest.raises(RecipeError, match=r"bench\.metrics.*nonsense.*ndcg@10"):
        measure(shuffled(made), Judgements.of(made), ["nonsense@3"])
