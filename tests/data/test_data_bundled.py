"""The collection inside the package: size, attribution, and BM25 as it was measured on it."""

from __future__ import annotations

from importlib import resources
from statistics import fmean

import pytest

from rank_rl import data, seeds
from rank_rl.errors import DataError
from rank_rl.metrics import ndcg
from rank_rl.specs import DataSpec, FirstStageSpec


@pytest.fixture(scope="module")
def pool() -> data.Collection:
    first_stage = FirstStageSpec(pool=True)
    spec = DataSpec(source="bundled", path="musique200", validation=0.0, first_stage=first_stage)
    return data.load(spec, seed=0)


def test_counts(pool: data.Collection) -> None:
    assert (len(pool.train), len(pool.validation), len(pool.test)) == (120, 0, 80)
    assert pool.provenance["documents"] == 3141
    assert {len(t.candidates) for t in (*pool.train, *pool.test)} == {20}
    assert pool.provenance["leaks"] == {
        "shared_qids": [],
        "shared_texts": [],
        "removed_queries": 0,
        "shared_relevant_documents": 0,
    }


def test_bm25_in_the_pool(pool: data.Collection) -> None:
    splits = pool.provenance["splits"]
    assert splits["train"]["ndcg@10"]["first_stage"] == pytest.approx(0.470, abs=0.01)
    assert splits["test"]["ndcg@10"]["first_stage"] == pytest.approx(0.422, abs=0.01)
    assert splits["test"]["ndcg@10"]["perfect"] == 1.0


def test_random_order_of_the_pool(pool: data.Collection) -> None:
    values = []
    for task in (*pool.train, *pool.test):
        for draw in range(20):
            docids = list(task.docids)
            seeds.rng(draw, task.query.qid).shuffle(docids)
            values.append(ndcg(docids, task.grades or {}))
    assert fmean(values) == pytest.approx(0.271, abs=0.015)


def test_bm25_over_the_corpus() -> None:
    spec = DataSpec(source="bundled", path="musique200", validation=0.0)
    collection = data.load(spec, seed=0)
    tasks = (*collection.train, *collection.test)
    assert {len(t.candidates) for t in tasks} == {20}
    assert fmean(ndcg(t.docids, t.grades or {}) for t in tasks) == pytest.approx(0.418, abs=0.01)
    perfect = collection.provenance["splits"]["test"]["ndcg@10"]["perfect"]
    assert 0.6 < perfect < 0.7  # what BM25 did not find stays in the ideal


def test_the_folder_is_small_and_attributed() -> None:
    root = resources.files("rank_rl.data") / "bundled" / "musique200"
    size = sum(len(f.read_bytes()) for f in root.iterdir())
    assert size <= 2_500_000
    attribution = (root / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in attribution and "Trivedi" in attribution


def test_unknown_collection_lists_what_there_is() -> None:
    for name in (None, "musique", "../bundled/musique200"):
        with pytest.raises(DataError, match=r"data\.path.*one of musique200"):
            data.load(DataSpec(source="bundled", path=name), seed=0)
