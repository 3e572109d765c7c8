"""ranx, ir_measures and rank_rl.metrics say the same; a missing query counts as zero."""

from __future__ import annotations

import math
import random

import ir_measures
import pytest

from rank_rl import metrics
from rank_rl.bench.measures import Judgements, ceiling, check_metrics, judged, kept, measure
from rank_rl.bench.metric_names import Metric, read
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
    judgements = Judgements.of(made)
    with pytest.raises(RecipeError, match=r"bench\.metrics.*nonsense.*ndcg@10"):
        measure(shuffled(made), judgements, ["nonsense@3"])
    with pytest.raises(RecipeError, match="ndgc@5"):
        check_metrics(judgements, ["map", "ndgc@5"])
    check_metrics(judgements, ["ndcg@10", "map-l2", "rbp.95", "success@1"])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("nDCG@10", "ndcg@10"),
        ("ndcg_cut_10", "ndcg@10"),
        ("ndgc@5", "ndcg@5"),
        ("AP", "map"),
        ("ap@100", "map@100"),
        ("RR@10-l2", "mrr@10-l2"),
        ("P@5", "precision@5"),
        ("hits@3", "hit_rate@3"),
        ("ndcg@0", "ndcg@10"),
        ("bpref@10", "bpref"),
        ("rbp", "rbp.95"),
        ("rbp.0", "rbp.95"),
        ("ndcg.95", "ndcg@95"),
        ("map-l0", "map"),
        ("map-l2@10", "map@10-l2"),
        ("recal@20", "recall@20"),
        ("r_precision", "r-precision"),
    ],
)
def test_the_error_of_an_unknown_metric_names_the_nearest(name: str, near: str):
    with pytest.raises(RecipeError) as raised:
        read(name)
    assert f"unknown metric {name!r}" in str(raised.value)
    nearest = str(raised.value).partition("(nearest: ")[2].rstrip(")").split(", ")
    assert nearest[0] == near
    assert read(near).ranx  # what is proposed is offered


def test_names_in_parts():
    assert read("map-l2") == Metric(kind="map", level=2)
    assert read("ndcg_burges@5") == Metric(kind="ndcg_burges", cut=5)
    assert read("rbp.95-l2") == Metric(kind="rbp", persistence="95", level=2)
    assert read("success@1-l3").ranx == "hit_rate@1-l3"


def case(grades: dict[str, int], shown: str = "abcde", qid: str = "q") -> RankingTask:
    docs = tuple(Candidate(docid=d, text="t", rank=i + 1) for i, d in enumerate(shown))
    return RankingTask(query=Query(qid=qid, text="x"), candidates=docs, grades=grades)


def test_levels_decide_what_is_relevant():
    one = Judgements.of([case({"a": 1, "b": 2, "c": 1})])
    order = {"q": Ranking(qid="q", docids=tuple("abc"))}
    found = measure(order, one, ["mrr", "mrr-l2", "mrr-l3", "recall@2-l2", "bpref-l3", "rbp.5-l2"])
    assert {m: v["q"] for m, v in found.items()} == {
        "mrr": 1.0,
        "mrr-l2": 0.5,
        "mrr-l3": 0.0,
        "recall@2-l2": 1.0,
        "bpref-l3": 0.0,
        "rbp.5-l2": 0.25,
    }


def test_judged_counts_any_grade():
    mixed = Judgements.of([case({"a": 1, "b": 0, "c": -1}), case({"x": 1}, "xyz", "p")])
    rankings = {
        "q": Ranking(qid="q", docids=tuple("abcde")),
        "p": Ranking(qid="p", docids=tuple("yxz")),
    }
    assert judged(rankings, mixed, 1) == pytest.approx((1 + 0) / 2)
    assert judged(rankings, mixed, 10) == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert judged({"q": rankings["q"]}, mixed, 4) == pytest.approx(3 / 4)
    assert judged({}, mixed, 10) is None
    assert not mixed.only_relevant
    assert Judgements.of([case({"a": 1, "b": 2})]).only_relevant
    assert mixed.grades["q"] == {"a": 1} and mixed.judged["q"] == {"a": 1, "b": 0, "c": -1}


def test_queries_left_out_count_nowhere():
    made = [case({"a": 1}, qid="p"), case({"a": 1}, qid="q"), case({"a": 0}, qid="r")]
    found = Judgements.of(made, without={"q", "elsewhere"})
    assert (found.queries, found.without_relevant, found.left_out) == (2, 1, ("q",))
    assert list(found.grades) == ["p"]
    assert measure({"q": Ranking(qid="q", docids=("a",))}, found, ["mrr"]) == {"mrr": {"p": 0.0}}
    with pytest.raises(DataError, match="no test query"):
        Judgements.of(made, without=["p", "q"])


def test_the_ceiling_is_the_perfect_order_of_the_candidates():
    # A relevant document that the first stage missed keeps recall and nDCG below 1.
    made = [case({"c": 2, "d": 1, "unseen": 1}), case({"e": 1, "a": -1}, qid="p")]
    judgements = Judgements.of(made)
    found = ceiling(made, judgements, ["mrr@10", "recall@5", "ndcg@10"])
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert found == pytest.approx(
        {"mrr@10": 1.0, "recall@5": (2 / 3 + 1) / 2, "ndcg@10": (1 + (ideal - 0.5) / ideal) / 2}
    )


def test_what_is_kept_of_a_teacher():
    assert kept(0.6, 0.8, 0.4) == pytest.approx({"share": 0.75, "gain": 0.5})
    assert kept(0.3, 0.8, 0.4) == pytest.approx({"share": 0.375, "gain": -0.25})
    assert kept(0.6, 0.4, 0.4) == {"share": pytest.approx(1.5), "gain": None}
    assert kept(0.6, 0.8) == {"share": pytest.approx(0.75), "gain": None}
    assert kept(0.0, 0.0, 0.0) == {"share": None, "gain": None}
