"""A reranker as a ranker of the library ``rerankers`` (Clavié, 2024, arXiv 2408.17344).

It takes texts or the library's ``Document`` objects and returns its ``RankedResults``, so that code
written for that library takes it as it takes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations import Settings, checked, ranked, reranker, shown
from rank_rl.registry import need

try:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
except ImportError:
    need("rerankers", "rerankers")
    raise

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from rank_rl.generation.results import RankResult
    from rank_rl.ranker import Ranker

Documents: TypeAlias = str | Document | Sequence[str] | Sequence[Document]
Ids: TypeAlias = Sequence[str] | Sequence[int]


class RankRLRanker(BaseRanker):
    """Ranks for code written for ``rerankers``.

    Args:
        ranker: a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads.
        verbose: the library's argument; nothing is printed.
        settings: ``instruction``, ``explain`` and ``first_stage``, as for ``Reranker.rank``.

    Raises:
        RecipeError: an argument is wrong.
        ModelError: there is no checkpoint of that name.

    Example:
        >>> ranker = RankRLRanker("outputs/quickstart/grpo/final")
        >>> ranker.rank("who wrote Faust?", ["Goethe wrote Faust.", "Paris is in France."])
    """

    def __init__(self, ranker: Any, *, verbose: int = 0, **settings: Unpack[Settings]) -> None:
        self.settings = checked(settings)
        self.verbose = verbose
        self.ranker: Ranker = reranker(ranker)

    def score(self, query: str, doc: str) -> float:
        """The score of one document.

        Raises:
            RecipeError: the model orders lists, or its answer for the document cannot be read.
        """
        task = self.ranker.task(query, [doc], instruction=self.settings.get("instruction"))
        found = self.ranker.batcher().submit(task).result().ranking.scores
        if not found:
            raise RecipeError(
                "there is no score of a single document",
                where=f"format {self.ranker.fmt.spec.name!r}",
                expected="a format that scores documents one by one, and a readable answer",
            )
        return found[0]

    def rank(self, query: str, docs: Documents, doc_ids: Ids | None = None) -> RankedResults:
        """Rank documents; ``reasoning``, where there is any, joins a copy of their metadata.

        Raises:
            DataError: a document without text, or another number of ids.
        """
        documents = _documents(docs, doc_ids)
        if not documents:
            return RankedResults(results=[], query=query, has_scores=True)
        texts = [shown(d.text) for d in documents]
        return _results(query, documents, ranked(self.ranker, query, texts, self.settings))

    async def rank_async(
        self, query: str, docs: Documents, doc_ids: Ids | None = None
    ) -> RankedResults:
        """As ``rank``; calls that overlap share their batches."""
        documents = _documents(docs, doc_ids)
        if not documents:
            return RankedResults(results=[], query=query, has_scores=True)
        texts = [shown(d.text) for d in documents]
        results = await self.ranker.arank(query, texts, **self.settings)
        return _results(query, documents, results)


def _documents(docs: Documents, doc_ids: Ids | None) -> list[Document]:
    """Copies, with ids from 0 where none are given, as the library numbers them."""
    given = [docs] if isinstance(docs, str | Document) else list(docs)
    if doc_ids is not None and len(doc_ids) != len(given):
        raise DataError(f"{len(doc_ids)} ids for {len(given)} documents", where="doc_ids")
    found = []
    for i, one in enumerate(given):
        text = one if isinstance(one, str) else getattr(one, "text", None)
        if not isinstance(text, str):
            raise DataError("no text", where=f"document {i}", expected="a text, or Document")
        own = None if isinstance(one, str) else one.doc_id
        number = doc_ids[i] if doc_ids is not None else i if own is None else own
        metadata: dict[str, Any] = {} if isinstance(one, str) else dict(one.metadata)
        found.append(Document(text, doc_id=number, metadata=metadata))
    return found


def _results(
    query: str, documents: Sequence[Document], results: Sequence[RankResult]
) -> RankedResults:
    found = []
    for result in results:
        document = documents[int(result.docid) - 1]
        if result.reasoning:
            document.metadata["reasoning"] = result.reasoning
        found.append(Result(document=document, score=result.score, rank=result.rank))
    return RankedResults(results=found, query=query, has_scores=True)
