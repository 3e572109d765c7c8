"""The ranker with the library rerankers: its documents, its results, its LangChain compressor."""

from __future__ import annotations

import asyncio

import pytest
from rerankers import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations.rerankers import RankRLRanker

QUERY = "who is the father of the director?"
TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]
THOUGHTS = "<think>\n[2] names the father.\n</think>\n<answer>[2] > [4] > [1] > [3]</answer>"


def test_texts_are_numbered_as_the_library_numbers_them(ranker):
    adapter = RankRLRanker(ranker)
    assert isinstance(adapter, BaseRanker)
    found = adapter.rank(QUERY, TEXTS)
    assert isinstance(found, RankedResults) and found.results_count() == 4 and found.has_scores
    direct = ranker.rank(QUERY, TEXTS)
    assert [r.doc_id for r in found] == [int(r.docid) - 1 for r in direct]
    assert [r.text for r in found] == [r.text for r in direct]
    assert [r.rank for r in found] == [1, 2, 3, 4]
    assert [r.score for r in found] == pytest.approx([r.score for r in direct])
    assert [r.doc_id for r in found.top_k(2)] == [r.doc_id for r in found[:2]]
    assert found.get_score_by_docid(found[0].doc_id) == found[0].score


def test_ids_documents_and_reasoning(listwise):
    documents = [Document(text, doc_id=f"d{i}", metadata={"n": i}) for i, text in enumerate(TEXTS)]
    found = RankRLRanker(listwise(THOUGHTS)).rank(QUERY, documents)
    assert [r.doc_id for r in found] == ["d1", "d3", "d0", "d2"]
    assert found[0].reasoning == "[2] names the father." and found[0].n == 1
    assert "reasoning" not in documents[1].metadata
    named = RankRLRanker(listwise(THOUGHTS)).rank(QUERY, documents, doc_ids=list("abcd"))
    assert [r.doc_id for r in named] == list("bdac")
    assert documents[0].doc_id == "d0"


def test_one_text_and_none(ranker):
    adapter = RankRLRanker(ranker)
    assert [r.doc_id for r in adapter.rank(QUERY, TEXTS[1])] == [0]
    assert adapter.rank(QUERY, []).results_count() == 0
    direct = ranker.rank(QUERY, TEXTS[1:2])[0].score
    assert adapter.score(QUERY, TEXTS[1]) == pytest.approx(direct)


def test_a_model_that_orders_lists_scores_no_single_document(listwise):
    adapter = RankRLRanker(listwise("<think>\nx\n</think>\n<answer>[1]</answer>"))
    with pytest.raises(RecipeError, match="no score of a single document"):
        adapter.score(QUERY, TEXTS[0])


def test_overlapping_calls_give_what_single_ones_give(ranker):
    adapter = RankRLRanker(ranker)

    async def several():
        queries = [f"{QUERY} {i}" for i in range(3)]
        return queries, await asyncio.gather(*(adapter.rank_async(q, TEXTS) for q in queries))

    for query, found in zip(*asyncio.run(several()), strict=True):
        assert [r.doc_id for r in found] == [r.doc_id for r in adapter.rank(query, TEXTS)]


def test_what_is_wrong_is_one_line(ranker):
    with pytest.raises(DataError, match="2 ids for 4 documents"):
        RankRLRanker(ranker).rank(QUERY, TEXTS, doc_ids=["a", "b"])
    with pytest.raises(DataError, match="document 1: no text"):
        RankRLRanker(ranker).rank(QUERY, ["a", 7])
    with pytest.raises(RecipeError, match="unknown argument 'topk'"):
        RankRLRanker(ranker, topk=3)
