"""A reranker as a node postprocessor of LlamaIndex (llama-index-core).

For the ``node_postprocessors`` of a query engine. Nodes come back best first as copies with the
reranker's score; the retriever's score and the reasoning, where there are any, stand in their
metadata, hidden from the prompts and embeddings that are made of nodes. What was given is not
changed: it may be the index's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, field_validator

from rank_rl.data.given import check_first_stage
from rank_rl.errors import DataError
from rank_rl.integrations import Settings, check_top, ranked, reranker, shown
from rank_rl.registry import need

try:
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ImportError:
    need("llama_index.core", "llama-index")
    raise

if TYPE_CHECKING:
    from rank_rl.generation.results import RankResult

_events = get_dispatcher(__name__)


class RankRLPostprocessor(BaseNodePostprocessor):
    """Reranks the nodes of a LlamaIndex retriever.

    Args:
        ranker: a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads.
        top_n: how many nodes to return; None returns all.
        instruction: what counts as relevant, where the task says so.
        explain: write reasoning for the nodes returned, or for that many of them.
        first_stage: ``given`` takes the retriever's order; ``bm25`` and ``auto`` as for
            ``Reranker.rank``.
        metadata_mode: which of a node's metadata is part of the text that is ranked.

    Raises:
        RecipeError: an argument is wrong.
        ModelError: there is no checkpoint of that name.

    Example:
        >>> reranker = RankRLPostprocessor(ranker="outputs/quickstart/grpo/final", top_n=5)
        >>> index.as_query_engine(similarity_top_k=20, node_postprocessors=[reranker])
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    ranker: Any = Field(exclude=True, repr=False)
    top_n: int | None = None
    instruction: str | None = None
    explain: bool | int = False
    first_stage: str = "given"
    metadata_mode: MetadataMode = MetadataMode.NONE

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

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex saves it."""
        return "RankRLPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        self._started(query, nodes)
        results = ranked(self.ranker, query, self._shown(nodes), self._asking(), self.top_n)
        return _ended(nodes, results)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        self._started(query, nodes)
        results = await self.ranker.arank(
            query, self._shown(nodes), top_k=self.top_n, **self._asking()
        )
        return _ended(nodes, results)

    def _shown(self, nodes: Sequence[NodeWithScore]) -> list[Mapping[str, Any]]:
        return [
            shown(n.node.get_content(metadata_mode=self.metadata_mode), score=n.score)
            for n in nodes
        ]

    def _asking(self) -> Settings:
        return {
            "instruction": self.instruction,
            "explain": self.explain,
            "first_stage": self.first_stage,
        }

    def _started(self, query: str, nodes: list[NodeWithScore]) -> None:
        _events.event(
            ReRankStartEvent(
                query=query,
                nodes=nodes,
                top_n=self.top_n or len(nodes),
                model_name=type(self.ranker).__name__,
            )
        )


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise DataError(
            "no query to rank nodes for",
            where="RankRLPostprocessor",
            expected="query_bundle or query_str",
        )
    return str(query_bundle.query_str)


def _ended(nodes: Sequence[NodeWithScore], results: Sequence[RankResult]) -> list[NodeWithScore]:
    found = [_with(nodes[int(result.docid) - 1], result) for result in results]
    _events.event(ReRankEndEvent(nodes=found))
    return found


def _with(given: NodeWithScore, result: RankResult) -> NodeWithScore:
    added: dict[str, Any] = {}
    if given.score is not None:
        added["retrieval_score"] = given.score
    if result.reasoning:
        added["reasoning"] = result.reasoning
    node = given.node
    hidden = ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys")
    changed: dict[str, Any] = {name: [*getattr(node, name), *added] for name in hidden}
    changed["metadata"] = {**node.metadata, **added}
    return given.model_copy(update={"node": node.model_copy(update=changed), "score": result.score})
