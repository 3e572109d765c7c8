"""Metrics that collections are reported with: each by name, and each known to ranx."""

from __future__ import annotations

from typing import Any

import pytest

from rank_rl.bench.measures import Judgements, measure
from rank_rl.data import SOURCES
from rank_rl.data.known import BY_SOURCE, default_metrics, excludes_itself
from rank_rl.records import Candidate, Query, Ranking, RankingTask
from rank_rl.specs import DataSpec

DEEP = {"depth": 100}
DL = ["ndcg@10", "map-l2", "recall@100-l2", "mrr@10-l2"]


@pytest.mark.parametrize(
    ("spec", "metrics"),
    [
        ({"source": "bright", "params": {"task": "pony"}}, ["ndcg@10"]),
        ({"source": "bright", "params": {"task": "pony", "long": True}}, ["recall@1"]),
        ({"source": "r2med", "path": "R2MED/Biology"}, ["ndcg@10"]),
        ({"source": "litsearch"}, ["recall@5", "recall@20"]),
        ({"source": "litsearch", "params": {"specificity": "broad"}}, ["recall@20"]),
        ({"source": "litsearch", "params": {"specificity": "specific"}}, ["recall@5"]),
        ({"source": "nano_beir", "first_stage": DEEP}, ["ndcg@10", "recall@100"]),
        ({"source": "beir_hub", "first_stage": {"depth": 99}}, ["ndcg@10"]),
        ({"source": "beir_hub", "first_stage": {"pool": True}}, ["ndcg@10", "recall@100"]),
        ({"source": "msmarco"}, ["mrr@10"]),
        ({"source": "trec_dl", "params": {"year": 2019}, "first_stage": DEEP}, DL),
        ({"source": "trec_dl", "params": {"year": 2019}}, [m for m in DL if m[:3] != "rec"]),
        (
            {
                "source": "ir_datasets",
                "path": "msmarco-passage-v2/trec-dl-2022/judged",
                "first_stage": DEEP,
            },
            DL,
        ),
        ({"source": "ir_datasets", "path": "msmarco-passage/dev/small"}, ["mrr@10"]),
        ({"source": "ir_datasets", "path": "nano-beir/nq"}, ["ndcg@10"]),
        ({"source": "ir_datasets", "path": "antique/test"}, None),
        ({"source": "ir_datasets"}, None),
        ({"source": "beir", "path": "scifact"}, None),
        ({"source": "mine:load"}, None),
    ],
)
def test_metrics_of_collections(spec: dict[str, Any], metrics: list[str] | None) -> None:
    assert default_metrics(DataSpec.model_validate(spec)) == metrics


def test_sources_with_metrics_exist() -> None:
    assert set(BY_SOURCE) < set(SOURCES)


def test_the_benchmark_measures_them_with_grades_from_two_on() -> None:
    orders = {"q": ("b", "c", "a"), "r": ("x",)}
    grades = {"q": {"a": 3, "b": 1, "c": 2}, "r": {"x": 1}}
    tasks = [
        RankingTask(
            query=Query(qid=q, text="?"),
            candidates=tuple(Candidate(docid=d, text=d, rank=i) for i, d in enumerate(by, 1)),
            grades=grades[q],
        )
        for q, by in orders.items()
    ]
    judged = Judgements.of(tasks)
    rankings = {q: Ranking(qid=q, docids=docids) for q, docids in orders.items()}
    values = measure(rankings, judged, DL)
    assert values["map-l2"]["q"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert values["mrr@10-l2"] == {"q": 0.5, "r": 0.0}
    assert values["recall@100-l2"] == {"q": 1.0, "r": 0.0}
    # nDCG keeps all grades: a grade of 1 before the others costs it, and is worth something.
    assert 0 < values["ndcg@10"]["q"] < 1 == values["ndcg@10"]["r"]
    others = ["recall@1", "recall@5", "recall@20", "recall@100", "mrr@10"]
    assert measure(rankings, judged, others)["recall@1"]["q"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "params", "out"),
    [
        ("NanoArguAna", {}, True),
        ("beir/quora/test", {}, True),
        ("scifact", {}, False),
        ("scifact", {"exclude_same_id": True}, True),
        ("arguana", {"exclude_same_id": False}, False),
    ],
)
def test_queries_that_stand_in_their_corpus(name: str, params: dict[str, Any], out: bool) -> None:
    assert excludes_itself(name, params) is out
