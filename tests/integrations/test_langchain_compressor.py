"""The compressor with langchain-core: documents kept, first stage handed on, sync and async."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations.langchain import RankRLCompressor

QUERY = "who is the father of the director?"
TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]
THOUGHTS = "<think>\n[2] names the father.\n</think>\n<answer>[2] > [4] > [1] > [3]</answer>"


def documents() -> list[Document]:
    return [
        Document(page_content=text, id=f"doc-{i}", metadata={"page": i, "found": 9.0 - i})
        for i, text in enumerate(TEXTS)
    ]


def test_documents_come_back_best_first_with_what_they_had(ranker):
    compressor = RankRLCompressor(ranker=ranker)
    assert isinstance(compressor, BaseDocumentCompressor)
    given = documents()
    found = compressor.compress_documents(given, QUERY)
    direct = ranker.rank(QUERY, TEXTS)
    assert [d.page_content for d in found] == [r.text for r in direct]
    scores = [d.metadata["relevance_score"] for d in found]
    assert scores == pytest.approx([r.score for r in direct])
    for document in found:
        place = TEXTS.index(document.page_content)
        assert document.id == f"doc-{place}" and document.metadata["page"] == place
    assert given == documents()


def test_top_n_and_reasoning(listwise):
    compressor = RankRLCompressor(ranker=listwise(THOUGHTS), top_n=2)
    found = compressor.compress_documents(documents(), QUERY)
    assert [d.id for d in found] == ["doc-1", "doc-3"]
    assert [d.metadata["relevance_score"] for d in found] == [4.0, 3.0]
    assert found[0].metadata["reasoning"] == "[2] names the father."


def test_explanations_are_written_for_what_is_returned(ranker):
    found = RankRLCompressor(ranker=ranker, explain=1, top_n=2).compress_documents(
        documents(), QUERY
    )
    assert ["reasoning" in d.metadata for d in found] == [True, False]


def test_equal_documents_without_ids_stay_apart(ranker):
    twice = [Document(page_content="the lake", metadata={"n": n}) for n in (1, 2)]
    found = RankRLCompressor(ranker=ranker).compress_documents(twice, QUERY)
    assert [d.metadata["n"] for d in found] == [1, 2]


def test_overlapping_calls_give_what_single_ones_give(ranker):
    compressor = RankRLCompressor(ranker=ranker, top_n=3)

    async def several():
        queries = [f"{QUERY} {i}" for i in range(4)]
        calls = [compressor.acompress_documents(documents(), query) for query in queries]
        return queries, await asyncio.gather(*calls, compressor.acompress_documents([], QUERY))

    queries, found = asyncio.run(several())
    assert found.pop() == []
    for query, both in zip(queries, found, strict=True):
        alone = compressor.compress_documents(documents(), query)
        assert [d.id for d in both] == [d.id for d in alone]


class Lists(BaseRetriever):
    """Finds the same documents for every query."""

    def _get_relevant_documents(self, query, *, run_manager):
        return documents()


def test_behind_a_retriever_in_a_chain_and_in_threads(ranker):
    compressor = RankRLCompressor(ranker=ranker, top_n=1)

    def reranked(query):
        return compressor.compress_documents(Lists().invoke(query), query)

    queries = [QUERY, "a small town", "the lake"]
    found = RunnableLambda(reranked).batch(queries)
    for query, (best,) in zip(queries, found, strict=True):
        assert best.page_content == ranker.rank(query, TEXTS)[0].text


def test_the_first_stage_reaches_prompts_that_show_it(listwise):
    scored = listwise(THOUGHTS, first_stage_hint="score")
    RankRLCompressor(ranker=scored, score_key="found").compress_documents(documents(), QUERY)
    (prompt,) = scored.generator.asked
    shown = prompt.messages[-1]["content"]
    assert all(f"(score {9 - i}) {text}" in shown for i, text in enumerate(TEXTS)), shown
    ranked = listwise(THOUGHTS, first_stage_hint="rank")
    RankRLCompressor(ranker=ranked).compress_documents(documents(), QUERY)
    shown = ranked.generator.asked[0].messages[-1]["content"]
    assert all(f"(rank {i}) {text}" in shown for i, text in enumerate(TEXTS, 1)), shown
    with pytest.raises(DataError, match="no first-stage score to show"):
        RankRLCompressor(ranker=scored).compress_documents(documents(), QUERY)


def test_titles_are_shown_before_texts(listwise):
    ranker = listwise("<think>\nx\n</think>\n<answer>[1]</answer>")
    given = [Document(page_content="It is deep.", metadata={"name": "Lake"})]
    RankRLCompressor(ranker=ranker, title_key="name").compress_documents(given, QUERY)
    assert "Lake. It is deep." in ranker.generator.asked[0].messages[-1]["content"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"top_n": 0}, "top_n is 0"),
        ({"first_stage": "bm52"}, "unknown first stage 'bm52'"),
        ({"ranker": 7}, "int is no reranker"),
    ],
)
def test_wrong_arguments_are_one_line(ranker, arguments, words):
    with pytest.raises(RecipeError, match=words):
        RankRLCompressor(**{"ranker": ranker, **arguments})
