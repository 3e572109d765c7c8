"""What a client is told: results in rank order, scores between 0 and 1, and where both are from.

Contract: the results are the first of a permutation of exactly the documents of the request, and
``relevance_score`` never rises from one to the next. ``order`` says whether the model ranked or the
first stage did, ``scores`` what a score is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from rank_rl.generation.results import TaskResult
from rank_rl.serve.requests import Asked, echo

Reason = Literal["time_budget", "no_answer", "shutdown"]
MESSAGES: Mapping[Reason, str] = {
    "time_budget": "the model did not finish within the time budget",
    "no_answer": "none of the model's answers could be read",
    "shutdown": "the server had to end before the model finished",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a response is from.

    Attributes:
        id: of the request.
        model: the name that is served.
        version: of the API that was called, "1" or "2".
    """

    id: str
    model: str
    version: str = "1"


def by_model(asked: Asked, result: TaskResult, origin: Origin) -> dict[str, Any]:
    """The response for a ranking of the model; marked where no answer could be read."""
    ranking = result.ranking
    order = [int(docid) for docid in ranking.docids]
    unread = bool(result.exchanges) and all(e.outcome.answer is None for e in result.exchanges)
    squashed = None if unread else relevance(ranking.scores)
    body = _body(asked, order, squashed, origin)
    if unread:
        body |= _fell_back("no_answer")
    for one in body["results"][: asked.explain]:
        one["reasoning"] = result.reasoning(str(one["index"]))
    return body | _costs(result, asked, origin)


def by_first_stage(
    asked: Asked, order: Sequence[int], origin: Origin, reason: Reason
) -> dict[str, Any]:
    """The response where the model did not answer in time: the order of the first stage."""
    body = _body(asked, order, None, origin) | _fell_back(reason)
    return body | _costs(None, asked, origin)


def relevance(scores: Sequence[float]) -> list[float] | None:
    """Scores of a ranking between 0 and 1 by the logistic function; None where they cannot be.

    The label logits of slots are log-odds, of which this is the probability; other scores are
    only squeezed. Scores that are missing, infinite or rise somewhere say nothing of the order.
    """
    falling = all(a >= b for a, b in zip(scores, scores[1:], strict=False))
    if not scores or not falling or not all(map(math.isfinite, scores)):
        return None
    # The running minimum takes out what rounding may do to neighbours.
    return list(accumulate(map(_logistic, scores), min))


def _logistic(x: float) -> float:
    """``1 / (1 + exp(-x))`` without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    small = math.exp(x)
    return small / (1 + small)


def _body(
    asked: Asked, order: Sequence[int], scores: Sequence[float] | None, origin: Origin
) -> dict[str, Any]:
    places = scores or [(len(order) - i) / len(order) for i in range(len(order))]
    shown = zip(order[: asked.shown], places, strict=False)
    return {
        "id": origin.id,
        "object": "rerank",
        "model": origin.model,
        "results": [_result(asked, index, score) for index, score in shown],
        "order": "model",
        "scores": "rank" if scores is None else "model",
    }


def _result(asked: Asked, index: int, score: float) -> dict[str, Any]:
    given = asked.request.documents[index]
    result: dict[str, Any] = {"index": index, "relevance_score": score}
    if isinstance(given, Mapping) and given.get("id") is not None:
        result["id"] = given["id"]
    if asked.request.return_documents:
        result["document"] = echo(given)
    return result


def _fell_back(reason: Reason) -> dict[str, Any]:
    told = {"reason": reason, "message": MESSAGES[reason]}
    return {"order": "first_stage", "scores": "rank", "fallback": told}


def _costs(result: TaskResult | None, asked: Asked, origin: Origin) -> dict[str, Any]:
    """Tokens and parse statuses; a ranking that was given up counts none."""
    read, written = (result.prompt_tokens, result.completion_tokens) if result else (0, 0)
    meta: dict[str, Any] = {
        "api_version": {"version": origin.version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": read, "output_tokens": written},
    }
    if asked.warnings:
        meta["warnings"] = list(asked.warnings)
    return {
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
        "answers": dict(result.statuses) if result else {},
        "meta": meta,
    }
