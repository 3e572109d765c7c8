"""BM25 against its formula, and ties that no file order and no spelling of ids decides."""

from __future__ import annotations

import math

import pytest

from rank_rl.data.first_stage import BM25, reorder
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FirstStageSpec


def corpus(**texts: str) -> dict[str, Candidate]:
    return {docid: Candidate(docid=docid, text=text) for docid, text in texts.items()}


def test_scores_are_lucenes_formula() -> None:
    documents = corpus(a="lake lake river", b="river", c="bread oven")
    ((docid, score), *_) = BM25(documents, k1=0.9, b=0.4).retrieve("lake", depth=3)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 0.9 * (1 - 0.4 + 0.4 * 3 / 2)  # three words, two on average
    assert docid == "a"
    assert score == pytest.approx(idf * 2 / (2 + length), rel=1e-5)


def test_title_counts_and_words_are_stemmed_without_stop_words() -> None:
    titled = {"t": Candidate(docid="t", title="Bakeries", text="x1"), **corpus(u="the oven")}
    bm25 = BM25(titled)
    assert bm25.retrieve("bakery", depth=1)[0][0] == "t"
    assert bm25.retrieve("the the the", depth=2)[0][1] == 0.0


def test_a_query_without_known_words_still_gets_documents() -> None:
    bm25 = BM25(corpus(a="lake", b="river"))
    assert sorted(bm25.retrieve("zzz", depth=5)) == [("a", 0.0), ("b", 0.0)]
    assert bm25.rank("", ["b"]) == (("b", 0.0),)


def test_statistics_come_from_the_whole_corpus() -> None:
    rare = corpus(a="lake", b="river", c="river", d="river")
    scores = dict(BM25(rare).rank("lake river", ["a", "b"]))
    assert scores["a"] > scores["b"]  # within the two alone, both words would be equally rare


def test_ties_ignore_the_order_of_arrival_and_the_spelling_of_ids() -> None:
    names = [f"{prefix}{i}" for prefix in ("gold", "x") for i in range(50)]
    texts = corpus(**dict.fromkeys(names, "the same river"))
    there = [d for d, _ in BM25(texts).rank("river", names)]
    back = [d for d, _ in BM25(dict(reversed(texts.items()))).rank("river", names[::-1])]
    assert there == back
    assert there != sorted(there) and there != sorted(there, reverse=True)
    # An id scheme that marks relevant documents must not put them in front.
    assert 15 <= sum(d.startswith("gold") for d in there[:50]) <= 35


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="at least one document"):
        BM25({})


def test_tasks_keep_their_order_or_are_ranked_in_the_pool() -> None:
    task = RankingTask(
        query=Query(qid="q", text="lake"),
        candidates=(
            Candidate(docid="a", text="river", rank=1, score=3.0),
            Candidate(docid="b", text="lake", rank=2, score=2.0),
        ),
    )
    kept, words = reorder([task], FirstStageSpec())
    assert (kept, words) == ((task,), "order of the file")
    (ranked,), words = reorder([task], FirstStageSpec(pool=True))
    assert (ranked.docids, [c.rank for c in ranked.candidates]) == (("b", "a"), [1, 2])
    assert "BM25" in words
    ((same,), _) = reorder([task], FirstStageSpec(name="given", pool=True))
    assert same == task
