"""What a client asks: the body of ``POST /v1/rerank``, read, checked and made a ranking task.

Contract: whatever bytes come, they become an ``Asked`` or a ``Refused``. Text that no tokenizer
takes (lone surrogates) is replaced by U+FFFD; an empty document is a document. Inside, a document
is named by its place in the request, so that ids may repeat or be missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rank_rl.errors import RankRLError
from rank_rl.ranker import Ranker
from rank_rl.records import Candidate, RankingTask
from rank_rl.serve.limits import Limits, Refused

# Fields that clients send for other services; nothing here depends on them.
ACCEPTED = ("max_chunks_per_doc", "max_tokens_per_doc", "overlap_tokens")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SCALARS = (str, int, float, type(None))


class RerankRequest(BaseModel):
    """A request to rank documents for a query."""

    model_config = ConfigDict(extra="allow", strict=True)

    query: str
    documents: list[Any] = Field(
        min_length=1,
        description="Texts, or objects with text and optionally id, title and score (of the first "
        "stage), in first-stage order.",
    )
    model: str | None = Field(None, description="Any name; the one model of this server answers.")
    top_n: int | None = Field(None, ge=1, description="How many results; null is all.")
    return_documents: bool | None = None
    rank_fields: list[str] | None = Field(
        None, min_length=1, description="Fields of the objects that are read, joined by new lines."
    )
    instruction: str | None = Field(None, description="What counts as relevant.")
    explain: bool | int = Field(
        False, description="Reasoning for the results, or for so many of them."
    )
    first_stage: Literal["auto", "given", "bm25"] = Field(
        "auto", description="Whether documents are in first-stage order, or BM25 orders them."
    )
    timeout_ms: int | None = Field(None, ge=1, description="Time budget, if below the server's.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that can be ranked.

    Attributes:
        request: its fields.
        texts: what is ranked of every document, in the order of the request.
        seconds: its time budget.
        warnings: fields that were ignored.
    """

    request: RerankRequest
    texts: tuple[Candidate, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def shown(self) -> int:
        """How many results are returned."""
        return min(self.request.top_n or len(self.texts), len(self.texts))

    @property
    def explain(self) -> int:
        """How many of them want reasoning."""
        wanted = self.request.explain
        return self.shown if wanted is True else min(self.shown, int(wanted))

    def task(self, ranker: Ranker) -> RankingTask:
        """The documents as candidates, ordered as ``first_stage`` says."""
        asked = self.request
        told, first_stage = asked.instruction, asked.first_stage
        return ranker.task(asked.query, self.texts, instruction=told, first_stage=first_stage)


def read(body: bytes, limits: Limits) -> Asked:
    """Read a request's body.

    Raises:
        Refused: 400 when it is no JSON object, 422 when a field is wrong or too large.
    """
    fields = _parse(body)
    try:
        request = RerankRequest.model_validate(fields)
    except ValidationError as error:
        raise _wrong(error) from None
    for name in ("query", "instruction"):
        if len(getattr(request, name) or "") > limits.query_chars:
            raise Refused(
                422, f"{name}_too_long", f"{name}: more than {limits.query_chars} characters"
            )
    if not request.query.strip():
        raise Refused(422, "invalid_request", "query: is empty")
    if len(request.documents) > limits.documents:
        raise Refused(
            422,
            "too_many_documents",
            f"documents: {len(request.documents)} of them, at most {limits.documents} are taken",
        )
    if not isinstance(request.explain, bool) and request.explain < 0:
        raise Refused(422, "invalid_request", "explain: must be true, false or a count")
    seconds = limits.seconds
    if request.timeout_ms is not None:
        seconds = min(1000 * seconds, request.timeout_ms) / 1000
    texts = [_candidate(d, i, request.rank_fields) for i, d in enumerate(request.documents)]
    cut = [_cut(candidate, limits.document_chars) for candidate in texts]
    return Asked(
        request=request,
        texts=tuple(cut),
        seconds=seconds,
        warnings=(*_of_lengths(texts, cut, limits), *_warnings(request)),
    )


def _cut(candidate: Candidate, most: int) -> Candidate:
    if max(len(candidate.text), len(candidate.title)) <= most:
        return candidate
    return replace(candidate, title=candidate.title[:most], text=candidate.text[:most])


def _of_lengths(texts: list[Candidate], cut: list[Candidate], limits: Limits) -> tuple[str, ...]:
    count = sum(a is not b for a, b in zip(texts, cut, strict=True))
    most = limits.document_chars
    return (f"of {count} documents only the first {most} characters are read",) if count else ()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number, parse_float=_float)
    except UnicodeDecodeError:
        raise Refused(400, "invalid_json", "the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "a value is out of range"
        raise Refused(400, "invalid_json", f"the body is not JSON: {why}") from None
    if not isinstance(fields, dict):
        raise Refused(400, "invalid_json", "the body is not a JSON object")
    return _whole(fields) if _SURROGATE.search(body) else fields


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("out of range")
    return value


def _whole(value: Any, depth: int = 3) -> Any:
    """A value with U+FFFD for every lone surrogate, down to the fields of the documents."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if depth and isinstance(value, list):
        return [_whole(v, depth - 1) for v in value]
    if depth and isinstance(value, dict):
        return {_whole(k): _whole(v, depth - 1) for k, v in value.items()}
    return value


def _wrong(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"][:1]) or "body"
    return Refused(422, "invalid_request", f"{where}: {first['msg']}")


def _candidate(document: Any, index: int, names: list[str] | None) -> Candidate:
    """What is ranked of a document; it is named by its place in the request."""
    if isinstance(document, str):
        return Candidate(docid=str(index), text=document, rank=index + 1)
    if not isinstance(document, Mapping):
        raise _bad(index, "must be a string, or an object with text")
    score = document.get("score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise _bad(index, "score must be a number")
    title = "" if names else document.get("title") or ""
    if not isinstance(title, str):
        raise _bad(index, "title must be a string")
    if not isinstance(document.get("id", ""), str | int | None):
        raise _bad(index, "id must be a string or an integer")
    text = _text(document, index, names or ["text"])
    try:
        known = None if score is None else float(score)
    except OverflowError:
        raise _bad(index, "score is out of range") from None
    return Candidate(docid=str(index), text=text, title=title, rank=index + 1, score=known)


def _text(document: Mapping[str, Any], index: int, names: list[str]) -> str:
    """The fields that are ranked, joined by new lines; those that are absent are left out.

    Raises:
        Refused: there is none, or one that is no string.
    """
    found = [document[name] for name in names if document.get(name) is not None]
    if not found:
        raise _bad(index, f"has no {' or '.join(names[:3])}"[:200])
    if not all(isinstance(text, str) for text in found):
        raise _bad(index, "the fields to rank must be strings")
    return "\n".join(found)


def _bad(index: int, why: str) -> Refused:
    return Refused(422, "invalid_document", f"documents[{index}]: {why}")


def _warnings(request: RerankRequest) -> tuple[str, ...]:
    extra = [name[:40] for name in request.model_extra or ()]
    told = [f"{name} has no effect here" for name in ACCEPTED if name in extra]
    unknown = [name for name in extra if name not in ACCEPTED][:5]
    return (*told, *(f"unknown field {name!r} was ignored" for name in unknown))


def echo(document: Any) -> dict[str, Any]:
    """A document as a response repeats it: its text, or the plain values of its object."""
    if isinstance(document, str):
        return {"text": document}
    return {k: v for k, v in document.items() if isinstance(v, _SCALARS)}


def refused(error: RankRLError) -> Refused:
    """An error of one request that the model, its format or its strategy raised."""
    return Refused(422, "cannot_be_ranked", error.line()[:500])
