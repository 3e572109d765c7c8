"""Client libraries of others take the server for the service they were written for."""

from __future__ import annotations

import pytest
from serving import DOCUMENTS, ranker_of, serving

from rank_rl.rerank import listed

QUERY = "who is the father?"


@pytest.fixture(scope="module")
def expected(loaded) -> list[int]:
    """Places of the documents as the model ranks them."""
    ranker = ranker_of(loaded)
    task = ranker.task(QUERY, DOCUMENTS)
    return [int(r.docid) - 1 for r in listed(task, ranker.rank_tasks([task])[0])]


def test_cohere(url, expected):
    cohere = pytest.importorskip("cohere")
    client = cohere.Client("key", base_url=url)
    found = client.rerank(query=QUERY, documents=DOCUMENTS, model="rerank-v3.5", top_n=3)
    assert [r.index for r in found.results] == expected[:3] != [0, 1, 2]
    scores = [r.relevance_score for r in found.results]
    assert scores == sorted(scores, reverse=True) and all(0 < s < 1 for s in scores)
    assert found.id and found.meta.billed_units.search_units == 1
    assert found.meta.api_version.version == "1"
    assert client.rerank(query="new", documents=["a", "b"]).meta.tokens.input_tokens > 0

    objects = [{"heading": "a", "body": text} for text in DOCUMENTS]
    found = client.rerank(
        query=QUERY,
        documents=objects,
        rank_fields=["body"],
        return_documents=True,
        max_chunks_per_doc=3,
    )
    assert [r.index for r in found.results] == expected
    assert [r.document.body for r in found.results] == [DOCUMENTS[i] for i in expected]
    assert found.meta.warnings == ["max_chunks_per_doc has no effect here"]


def test_cohere_v2(url, expected):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2("key", base_url=url)
    found = client.rerank(
        model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=4, max_tokens_per_doc=100
    )
    assert [r.index for r in found.results] == expected[:4]
    assert found.meta.api_version.version == "2"


def test_errors_reach_users_of_cohere(url, loaded):
    cohere = pytest.importorskip("cohere")
    with pytest.raises(cohere.UnprocessableEntityError, match="query: is empty"):
        cohere.Client("key", base_url=url).rerank(query=" ", documents=DOCUMENTS)
    with serving(ranker_of(loaded), keys=["right"]) as server:
        with pytest.raises(cohere.UnauthorizedError, match="API key"):
            cohere.Client("wrong", base_url=server.url).rerank(query=QUERY, documents=DOCUMENTS)
        found = cohere.Client("right", base_url=server.url).rerank(query=QUERY, documents=DOCUMENTS)
    assert len(found.results) == len(DOCUMENTS)


def test_jina_through_llama_index(url, expected, loaded):
    library = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    client = library.JinaRerank(top_n=3, base_url=f"{url}/v1", api_key="key", model="jina")
    found = client.postprocess_nodes(nodes, query_str=QUERY)
    assert [n.node.text for n in found] == [DOCUMENTS[i] for i in expected[:3]]
    with pytest.raises(RuntimeError, match="query: is empty"):
        client.postprocess_nodes(nodes, query_str=" ")
