"""The postprocessor with llama-index-core: nodes kept, scores handed on, sync and async."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations.llama_index import RankRLPostprocessor

QUERY = "who is the father of the director?"
TEXTS = ["the river runs", "the father of the director", "the lake is deep", "a small town"]
THOUGHTS = "<think>\n[2] names the father.\n</think>\n<answer>[2] > [4] > [1] > [3]</answer>"


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"page": i}), score=0.9 - i)
        for i, text in enumerate(TEXTS)
    ]


def test_nodes_come_back_best_first_and_the_index_keeps_its_own(ranker):
    given = nodes()
    found = RankRLPostprocessor(ranker=ranker).postprocess_nodes(given, query_str=QUERY)
    direct = ranker.rank(QUERY, TEXTS)
    assert [n.node.get_content() for n in found] == [r.text for r in direct]
    assert [n.score for n in found] == pytest.approx([r.score for r in direct])
    for one in found:
        place = TEXTS.index(one.node.text)
        assert one.node.node_id == f"n{place}" and one.node.metadata["page"] == place
        assert one.node.metadata["retrieval_score"] == 0.9 - place
    assert [n.model_dump() for n in given] == [n.model_dump() for n in nodes()]


def test_top_n_and_reasoning_that_no_prompt_shows(listwise):
    rerank = RankRLPostprocessor(ranker=listwise(THOUGHTS), top_n=2)
    found = rerank.postprocess_nodes(nodes(), query_str=QUERY)
    assert [n.node.node_id for n in found] == ["n1", "n3"]
    assert [n.score for n in found] == [4.0, 3.0]
    assert found[0].node.metadata["reasoning"] == "[2] names the father."
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert found[0].node.get_content(mode) == nodes()[1].node.get_content(mode)


def test_overlapping_calls_give_what_single_ones_give(ranker):
    rerank = RankRLPostprocessor(ranker=ranker, top_n=3)

    async def several():
        queries = [f"{QUERY} {i}" for i in range(4)]
        calls = [rerank.apostprocess_nodes(nodes(), query_str=query) for query in queries]
        return queries, await asyncio.gather(*calls, rerank.apostprocess_nodes([], None, QUERY))

    queries, found = asyncio.run(several())
    assert found.pop() == []
    for query, both in zip(queries, found, strict=True):
        alone = rerank.postprocess_nodes(nodes(), query_str=query)
        assert [n.node.node_id for n in both] == [n.node.node_id for n in alone]


class Lists(BaseRetriever):
    """Finds the same nodes for every query."""

    def _retrieve(self, query_bundle):
        return nodes()


def test_in_a_query_engine(ranker):
    engine = RetrieverQueryEngine(
        retriever=Lists(),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[RankRLPostprocessor(ranker=ranker, top_n=2)],
    )
    answer = engine.query(QUERY)
    assert [n.node.text for n in answer.source_nodes] == [
        r.text for r in ranker.rank(QUERY, TEXTS, top_k=2)
    ]
    assert answer.source_nodes[0].node.text in str(answer)  # the mock answers with its prompt


def test_the_first_stage_reaches_prompts_that_show_it(listwise):
    scored = listwise(THOUGHTS, first_stage_hint="score")
    RankRLPostprocessor(ranker=scored).postprocess_nodes(nodes(), query_str=QUERY)
    shown = scored.generator.asked[0].messages[-1]["content"]
    assert all(f"(score {0.9 - i:.3g}) {text}" in shown for i, text in enumerate(TEXTS)), shown
    unscored = [NodeWithScore(node=n.node) for n in nodes()]
    ranked = listwise(THOUGHTS, first_stage_hint="rank")
    found = RankRLPostprocessor(ranker=ranked).postprocess_nodes(unscored, query_str=QUERY)
    shown = ranked.generator.asked[0].messages[-1]["content"]
    assert all(f"(rank {i}) {text}" in shown for i, text in enumerate(TEXTS, 1)), shown
    assert "retrieval_score" not in found[0].node.metadata


def test_metadata_are_ranked_where_asked_for(listwise):
    answer = "<think>\nx\n</think>\n<answer>[1]</answer>"
    for mode, expected in ((MetadataMode.NONE, False), (MetadataMode.ALL, True)):
        ranker = listwise(answer)
        rerank = RankRLPostprocessor(ranker=ranker, metadata_mode=mode)
        rerank.postprocess_nodes(nodes()[:1], query_str=QUERY)
        shown = ranker.generator.asked[0].messages[-1]["content"]
        assert ("page: 0" in shown) is expected


def test_what_is_wrong_is_one_line(ranker):
    with pytest.raises(DataError, match="no query to rank nodes for"):
        RankRLPostprocessor(ranker=ranker).postprocess_nodes(nodes())
    with pytest.raises(RecipeError, match="top_n is 0"):
        RankRLPostprocessor(ranker=ranker, top_n=0)
    with pytest.raises(RecipeError, match="NoneType is no reranker"):
        RankRLPostprocessor(ranker=None)
