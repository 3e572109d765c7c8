"""What was asked and answered, as JSON lines: one an exchange, one an explanation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rank_rl.records import Exchange

if TYPE_CHECKING:
    from rank_rl.rerank import TaskResult


def trace(result: TaskResult) -> list[str]:
    """JSONL lines of a task: one a question asked, then one an explanation."""
    lines = [exchange_record(e) for e in result.exchanges]
    for note in result.notes.values():
        completion = asdict(note.completion)
        completion.pop("slots")
        lines.append(
            {
                "qid": result.ranking.qid,
                "explains": note.docid,
                "completion": completion,
                "note": note.text,
                "issues": list(note.issues),
            }
        )
    return [json.dumps(line, ensure_ascii=False) for line in lines]


def exchange_record(exchange: Exchange) -> dict[str, Any]:
    """An exchange as JSON-safe values."""
    outcome = exchange.outcome
    return {
        "qid": exchange.qid,
        "query": exchange.view.query.text,
        "docids": list(exchange.view.docids),
        "labels": list(exchange.view.labels),
        "prompt": {
            "messages": [dict(m) for m in exchange.prompt.messages],
            "prefill": exchange.prompt.prefill,
        },
        "completion": asdict(exchange.completion),
        "outcome": {**asdict(outcome), "order": list(outcome.as_order(exchange.view))},
        "provenance": dict(exchange.provenance),
    }
