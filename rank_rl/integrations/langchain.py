"""A reranker as a document compressor of LangChain (langchain-core).

For ``ContextualCompressionRetriever`` and whatever else takes a ``BaseDocumentCompressor``.
Documents come back best first as copies with their ids and metadata, and with ``relevance_score``
(and ``reasoning``, where there is any) added to the metadata; what was given is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, field_validator

from rank_rl.data.given import check_first_stage
from rank_rl.integrations import Settings, check_top, ranked, reranker, shown
from rank_rl.registry import need

try:
    from langchain_core.documents import BaseDocumentCompressor, Document
except ImportError:
    need("langchain_core", "langchain")
    raise

if TYPE_CHECKING:
    from rank_rl.generation.results import RankResult


class RankRLCompressor(BaseDocumentCompressor):
    """Reranks the documents of a LangChain retriever.

    Args:
        ranker: a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads.
        top_n: how many documents to return; None returns all.
        instruction: what counts as relevant, where the task says so.
        explain: write reasoning for the documents returned, or for that many of them.
        first_stage: ``given`` takes the retriever's order; ``bm25`` and ``auto`` as for
            ``Reranker.rank``.
        score_key: the metadata key of the retriever's score, where it leaves one.
        title_key: the metadata key of a document's title, shown before its text.

    Raises:
        RecipeError: an argument is wrong.
        ModelError: there is no checkpoint of that name.

    Example:
        >>> compressor = RankRLCompressor(ranker="outputs/quickstart/grpo/final", top_n=5)
        >>> compressor.compress_documents(retriever.invoke(query), query)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    ranker: Any = Field(exclude=True, repr=False)
    top_n: int | None = None
    instruction: str | None = None
    explain: bool | int = False
    first_stage: str = "given"
    score_key: str | None = None
    title_key: str | None = None

    @field_validator("ranker")
    @classmethod
    def _ranker(cls, value: Any) -> Any:
        return reranker(value)

    @field_validator("top_n")
    @classmethod
    def _top(cls, value: int | None) -> int | None:
        check_top("top_n", value)
        return value

    @field_validator("first_stage")
    @classmethod
    def _first_stage(cls, value: str) -> str:
        check_first_stage(value)
        return value

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """The documents reranked, the first ``top_n`` of them; none for none.

        Raises:
            DataError, RecipeError: as ``Reranker.rank``.
        """
        if not documents:
            return []
        results = ranked(self.ranker, query, self._shown(documents), self._asking(), self.top_n)
        return [_with(documents, result) for result in results]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """As ``compress_documents``; calls that overlap share their batches."""
        if not documents:
            return []
        results = await self.ranker.arank(
            query, self._shown(documents), top_k=self.top_n, **self._asking()
        )
        return [_with(documents, result) for result in results]

    def _shown(self, documents: Sequence[Document]) -> list[Mapping[str, Any]]:
        def known(document: Document, key: str | None) -> Any:
            return None if key is None else document.metadata.get(key)

        return [
            shown(d.page_content, score=known(d, self.score_key), title=known(d, self.title_key))
            for d in documents
        ]

    def _asking(self) -> Settings:
        return {
            "instruction": self.instruction,
            "explain": self.explain,
            "first_stage": self.first_stage,
        }


def _with(documents: Sequence[Document], result: RankResult) -> Document:
    document = documents[int(result.docid) - 1]
    added: dict[str, Any] = {"relevance_score": result.score}
    if result.reasoning:
        added["reasoning"] = result.reasoning
    return document.model_copy(update={"metadata": {**document.metadata, **added}})
