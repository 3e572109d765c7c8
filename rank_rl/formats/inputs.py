"""What models that write nothing are shown: the texts of a view, for scorers on encoders.

Contract: an input names the query's text and the documents' texts of a view, in shown order, and
the kind of scorer that reads them. It has a spec, a version and a budget like a format, but no
answer: ``formats.kind`` tells them apart. Tokens, weights and scores are ``models.scorers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from rank_rl.errors import RecipeError
from rank_rl.formats.base import document_text, read_params
from rank_rl.formats.labels import neutralise
from rank_rl.records import Message, Mode, Prompt, View
from rank_rl.specs import FormatSpec, Spec

Pooling = Literal["cls", "mean", "last"]


class Input(Protocol):
    """Which texts of a view a scorer reads.

    ``scorer`` names its kind in ``models.scorers.TABLE``; ``query_tokens`` bounds the query's text.
    """

    spec: FormatSpec
    version: str
    scorer: str
    query_tokens: int

    @property
    def mode(self) -> Mode:
        """Always ``answer``: nothing is reasoned."""
        ...

    def texts(self, view: View) -> tuple[str, tuple[str, ...]]:
        """The query's text and those of the documents, in shown order."""
        ...

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The sequences that the budget counts: each one's texts as messages."""
        ...


class CrossEncoderParams(Spec):
    """Parameters of ``cross_encoder``."""

    pooling: Pooling = "cls"
    head: Literal["auto", "new"] = "auto"
    query_tokens: int = Field(default=256, ge=4)
    term_control: float = Field(default=0.0, ge=0)


class PairScoresParams(Spec):
    """Parameters of ``pair_scores``."""

    pooling: Pooling = "cls"
    form: Literal["bilinear", "mlp"] = "bilinear"
    size: int = Field(default=64, ge=1)
    query_tokens: int = Field(default=256, ge=4)


class EmbeddingParams(Spec):
    """Parameters of ``embedding``."""

    pooling: Pooling = "mean"
    temperature: float = Field(default=0.05, gt=0)
    listwise: int = Field(default=0, ge=0)
    listwise_order: Literal["first_stage", "own"] = "first_stage"
    plain: float = Field(default=1.0, ge=0)
    query_prefix: str = ""
    document_prefix: str = ""
    query_tokens: int = Field(default=256, ge=4)


class CrossEncoderInput:
    """Query and document in one sequence, as the tokenizer joins a pair of texts.

    Raises:
        RecipeError: a mode, wording or hint, which a scorer does not have, or a bad parameter.
    """

    Params: type[Spec] = CrossEncoderParams
    scorer = "cross_encoder"

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = _plain(spec)
        params: Any = read_params(self.Params, spec)
        self.params = params
        self.version = f"{spec.name}/plain@1"
        self.query_tokens: int = params.query_tokens

    @property
    def mode(self) -> Mode:
        """Always ``answer``."""
        return "answer"

    def texts(self, view: View) -> tuple[str, tuple[str, ...]]:
        """Query (with its instruction before it) and documents (title and text)."""
        return _query(view), tuple(map(document_text, view.candidates))

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """One sequence a document."""
        query, documents = self.texts(view)
        shared = _message("query", query)
        return tuple(Prompt(messages=(shared, _message("document", text))) for text in documents)


class PairScoresInput(CrossEncoderInput):
    """Each document with the query, as ``cross_encoder``; the scorer then compares two of them."""

    Params = PairScoresParams
    scorer = "pair_scores"


class EmbeddingInput(CrossEncoderInput):
    """Query and documents apart, compared by cosine; with ``listwise`` the query shows documents.

    The listwise query is E2Rank's (2510.22733): the query followed by the texts of its ``listwise``
    best candidates, embedded like a query and compared with the same documents.
    """

    Params = EmbeddingParams
    scorer = "embedding"

    def texts(self, view: View) -> tuple[str, tuple[str, ...]]:
        """Query and documents with their prefixes."""
        before = self.params.document_prefix
        documents = tuple(before + document_text(c) for c in view.candidates)
        return self.params.query_prefix + _query(view), documents

    def listing(self, view: View) -> tuple[str, tuple[str, ...]]:
        """What the listwise query is made of: how it begins, and each document as it may follow.

        The scorer decides which documents follow and cuts them evenly to what fits.
        """
        head = f"{self.params.query_prefix}{_query(view)} Documents:"
        return head, tuple(map(document_text, view.candidates))

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The query's sequence, then one a document."""
        query, documents = self.texts(view)
        alone = (_message("query", query), *(_message("document", text) for text in documents))
        return tuple(Prompt(messages=(message,)) for message in alone)


def shown(query: str, documents: Sequence[str]) -> Prompt:
    """All that a scorer read of a view as one record."""
    return Prompt(
        messages=(_message("query", query), *(_message("document", text) for text in documents))
    )


def _plain(spec: FormatSpec) -> FormatSpec:
    """Refuse what only a format that writes can have."""
    for key, default in (("mode", "answer"), ("wording", "default"), ("first_stage_hint", "none")):
        if getattr(spec, key) != default:
            raise RecipeError(
                f"value {getattr(spec, key)!r} with {spec.name}, which reads plain texts",
                where=f"format.{key}",
                expected=default,
            )
    return spec


def _query(view: View) -> str:
    instruction = neutralise(view.query.instruction or "")
    text = neutralise(view.query.text)
    return f"{instruction} {text}" if instruction else text


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
