"""The order in which candidates reach a reranker: BM25, or the order that a run gives.

BM25 as in Lucene (Robertson and Zaragoza, 2009; Kamphuis et al., 2020) through bm25s, English
stop words, Snowball stemmer, title and text. Equal scores are ordered by a hash of the docid:
neither the order of a file nor the spelling of an id may put relevant documents first.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rank_rl import seeds
from rank_rl.errors import DataError
from rank_rl.records import Candidate, RankingTask
from rank_rl.specs import FirstStageSpec

Scored = tuple[tuple[str, float], ...]


class BM25:
    """A BM25 index of a corpus; scores are float32 values of Lucene's variant, 0 or more.

    Raises:
        DataError: an empty corpus.
    """

    def __init__(
        self, documents: Mapping[str, Candidate], *, k1: float = 0.9, b: float = 0.4
    ) -> None:
        import bm25s
        import Stemmer

        if not documents:
            raise DataError("BM25 needs at least one document", where="corpus")
        # bm25s logs everything to everyone: it sets its own level to DEBUG when imported.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        # Sorted once by the tie order: a stable sort by score then breaks ties by itself.
        self.docids = sorted(documents, key=lambda d: (seeds.derive(0, "tie", d), d))
        self._position = {docid: i for i, docid in enumerate(self.docids)}
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        words = self._tokens([documents[d].content for d in self.docids])
        self._empty = not any(words)  # bm25s cannot index documents without any word
        if not self._empty:
            self._index.index(words, show_progress=False)

    def rank(self, query: str, docids: Sequence[str]) -> Scored:
        """Order ``docids`` by their score for ``query``, with statistics of the whole corpus."""
        scores = self._scores(query)
        positions = sorted(self._position[d] for d in docids)
        positions.sort(key=lambda i: -scores[i])
        return tuple((self.docids[i], scores[i]) for i in positions)

    def retrieve(self, query: str, depth: int, excluded: Collection[str] = ()) -> Scored:
        """The ``depth`` best documents that are not excluded.

        Those that share no word with the query come last.
        """
        scores = self._scores(query)
        positions = sorted(range(len(scores)), key=lambda i: -scores[i])
        kept = (i for i in positions if self.docids[i] not in excluded)
        return tuple((self.docids[i], scores[i]) for i in itertools.islice(kept, depth))

    def _scores(self, query: str) -> list[float]:
        vocabulary = {} if self._empty else self._index.vocab_dict
        known = [t for t in self._tokens([query])[0] if t in vocabulary]
        if not known:
            return [0.0] * len(self.docids)
        return [float(s) for s in self._index.get_scores(known)]

    def _tokens(self, texts: list[str]) -> Any:
        import bm25s

        return bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )


def order(
    spec: FirstStageSpec,
    *,
    documents: Mapping[str, Candidate],
    queries: Mapping[str, str],
    pools: Mapping[str, tuple[str, ...]] | None,
    run: Mapping[str, Scored] | None,
    excluded: Mapping[str, Collection[str]],
) -> tuple[dict[str, Scored], str]:
    """Candidates of every query, best first, and a description of the first stage.

    BM25 ranks the given candidates (``pool``), or retrieves from the corpus when there is no run.
    A run gives its first ``depth`` documents. ``pools`` and ``run`` come without the excluded
    documents of a query; retrieval leaves them out.

    Raises:
        DataError: ``given`` without a run, or ``pool`` without given candidates.
    """
    if spec.name == "given" and run is None:
        raise DataError(
            "there is no run to take the order from",
            where="data.first_stage.name",
            expected="bm25, or params.run",
        )
    if spec.name == "bm25" and spec.pool:
        given = pools if pools is not None else _pools_of(run)
        bm25 = BM25(documents, k1=spec.k1, b=spec.b)
        ranked = {q: bm25.rank(text, given.get(q, ())) for q, text in queries.items()}
        return ranked, f"{_words(spec)}, over the given candidates of each query"
    if run is not None:
        return {q: run.get(q, ())[: spec.depth] for q in queries}, f"run, first {spec.depth}"
    bm25 = BM25(documents, k1=spec.k1, b=spec.b)
    found = {q: bm25.retrieve(text, spec.depth, excluded.get(q, ())) for q, text in queries.items()}
    return found, f"{_words(spec)}, first {spec.depth} of the corpus"


def reorder(
    tasks: Sequence[RankingTask], spec: FirstStageSpec
) -> tuple[tuple[RankingTask, ...], str]:
    """Order ready-made tasks: as they are, or by BM25 over their candidates (``pool``).

    The corpus statistics come from the candidates of all tasks together.
    """
    if spec.name == "given" or not spec.pool:
        return tuple(tasks), "order of the file"
    bm25 = BM25({c.docid: c for t in tasks for c in t.candidates}, k1=spec.k1, b=spec.b)
    return tuple(_ranked(t, bm25) for t in tasks), f"{_words(spec)}, over the candidates of a task"


def _ranked(task: RankingTask, bm25: BM25) -> RankingTask:
    by_docid = {c.docid: c for c in task.candidates}
    pairs = bm25.rank(task.query.text, task.docids)
    ranked = tuple(
        dataclasses.replace(by_docid[d], rank=i, score=s) for i, (d, s) in enumerate(pairs, 1)
    )
    return dataclasses.replace(task, candidates=ranked)


def _pools_of(run: Mapping[str, Scored] | None) -> dict[str, tuple[str, ...]]:
    if run is None:
        raise DataError(
            "there are no given candidates to rank",
            where="data.first_stage.pool",
            expected="candidates.tsv or params.run, or pool: false",
        )
    return {qid: tuple(d for d, _ in pairs) for qid, pairs in run.items()}


def _words(spec: FirstStageSpec) -> str:
    return f"BM25 (bm25s, Lucene scoring, k1 {spec.k1}, b {spec.b}, Snowball stemmer)"
