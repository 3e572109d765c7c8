"""Documents: what they say, when they are merged, and when not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rank_rl.bench import tables
from rank_rl.bench.document import CollectionFacts, Document
from rank_rl.bench.merge import Plan, agreed, merge
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask

TASKS = [
    RankingTask(
        query=Query(qid=f"q{i}", text=f"who is it {i}?"),
        candidates=tuple(Candidate(docid=f"d{j}", text="a text", rank=j + 1) for j in range(3)),
        grades={"d1": 1, "d2": 0},
    )
    for i in range(4)
]
FACTS = CollectionFacts.of("some", TASKS, first_stage="BM25", queries=4)
PLAN = Plan(metrics=("ndcg@10",), baselines=("first stage",), samples=200, seed=3)


def document(system: str, values: list[float], **other: object) -> Document:
    given = {
        "key": f"{system}{other.get('seed', 3)}",
        "kind": "text",
        "seed": 3,
        "collection": FACTS,
        "model": {"name": "m", "revision": "r", "contract": "c"},
        "setting": {"strategy": "single"},
        "per_query": {"ndcg@10": {f"q{i}": v for i, v in enumerate(values)}},
        "judged": {"10": 0.5},
        "costs": {f"q{i}": {"calls": 1.0, "seconds": 0.5} for i in range(4)},
        **other,
    }
    return Document(system=system, **given)


FIRST = document("first stage", [0.5] * 4, kind="first_stage", model={}, setting={}, costs={})


def merged(*documents: Document, plan: Plan = PLAN) -> dict:
    return merge(documents, plan, {"name": "x"}, TASKS)


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    FIRST.write(path)
    assert Document.read(path) == FIRST
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))
    with pytest.raises(DataError, match=r"a\.json: schema 9; expected schema 1"):
        Document.read(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="not a result document"):
        Document.read(path)


def test_rows_have_means_over_seeds_and_the_spread_between_them() -> None:
    a = document("model", [0.2, 0.4, 0.6, 0.8], seed=3, drawn=True)
    b = document("model", [0.4, 0.6, 0.8, 1.0], seed=4, drawn=True)
    result = merged(FIRST, b, a)
    (_, row) = result["systems"]
    assert result["seeds"] == [3, 4] and result["schema"] == 2
    assert row["metrics"]["ndcg@10"]["mean"] == pytest.approx(0.6)
    assert row["seeds"]["3"]["ndcg@10"] == pytest.approx(0.5)
    assert row["spread"]["ndcg@10"] == pytest.approx(0.141421, abs=1e-5)
    assert result["per_query"]["model"]["ndcg@10"]["q0"] == pytest.approx(0.3)
    (test,) = result["comparisons"]
    assert test["difference"] == pytest.approx(0.1)
    assert 0 < test["p"] <= 1 and 0 < test["p_t"] <= 1
    single = merged(FIRST, a)["systems"][1]
    assert single["spread"]["ndcg@10"] is None


def test_share_of_the_teacher_and_price() -> None:
    teacher = document("teacher", [0.9] * 4)
    student = document("student", [0.7] * 4)
    plan = replace(PLAN, teacher="teacher", gpu_hour=3.6)
    rows = {r["name"]: r for r in merged(FIRST, teacher, student, plan=plan)["systems"]}
    kept = rows["student"]["kept"]["ndcg@10"]
    assert kept["share"] == pytest.approx(7 / 9)
    assert kept["gain"] == pytest.approx(0.5)
    assert rows["student"]["price"]["per_1000_queries"] == pytest.approx(0.5)
    assert rows["first stage"]["price"] is None


def test_the_smallest_difference_that_is_found_stands_beside_the_table() -> None:
    noisy = document("model", [0.2, 0.9, 0.4, 0.7])
    result = merged(FIRST, noisy)
    least = result["minimal_difference"]["ndcg@10"]["first stage"]
    (line,) = tables.legend(result)
    assert least > 0.3  # four queries show little
    assert line.endswith(f"a true difference of {least:.3f} in ndcg@10 is found with 80 % power")
    assert "power" not in tables.legend({**result, "minimal_difference": {}})[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"collection": replace(FACTS, depth=9)}, "collection depth is 9"),
        ({"collection": replace(FACTS, candidates="x")}, "collection candidates"),
        ({"collection": replace(FACTS, judgements="x")}, "collection judgements"),
        ({"collection": replace(FACTS, first_stage="run")}, "collection first_stage"),
        ({"per_query": {"map": {}}}, "metrics"),
        ({"system": "a", "setting": {"strategy": "sliding"}}, "setting"),
        ({"system": "a", "fusion": {"method": "rrf"}}, "fusion"),
        ({"system": "a", "model": {"name": "m", "revision": "r", "contract": "x"}}, "contract"),
        ({"system": "a", "model": {"name": "m", "revision": "x", "contract": "c"}}, "revision"),
        ({"system": "a", "seed": 3, "key": "other"}, "two documents of system 'a' with seed 3"),
    ],
)
def test_documents_that_do_not_belong_together_are_refused(change: dict, words: str) -> None:
    one = document("a", [0.1] * 4, seed=3)
    other = replace(document("b", [0.1] * 4, seed=4), **change)
    with pytest.raises(DataError, match=words):
        agreed([one, other])


def test_checkpoints_of_several_training_runs_may_differ_in_name() -> None:
    one = document("a", [0.1] * 4, seed=3)
    other = document("a", [0.1] * 4, seed=4, model={"name": "m4", "revision": "x", "contract": "y"})
    assert [d.seed for d in agreed([other, one])["a"]] == [3, 4]


def test_a_baseline_without_documents_is_named() -> None:
    with pytest.raises(DataError, match="no documents of system 'first stage'"):
        merged(document("a", [0.1] * 4))
