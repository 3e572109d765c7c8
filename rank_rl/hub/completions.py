"""Traces of a benchmark as Parquet: one row a question asked, or an explanation.

Contract: the same lines give the same bytes; maps with keys of their own (label log-probabilities,
notes by document) are JSON text, as Arrow has no type for them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from rank_rl.errors import DataError


def to_parquet(text: str, where: str) -> bytes:
    """Lines of ``exchanges/*.jsonl`` as a Parquet file.

    Raises:
        DataError: a line that is not a record of an exchange.
    """
    import pyarrow
    from pyarrow import parquet

    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line:
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError("not an exchange", where=f"{where}:{number}") from error
    table = pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow))
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _schema(arrow: Any) -> Any:
    texts = arrow.list_(arrow.string())
    message = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
    named = {
        **dict.fromkeys(("qid", "query"), arrow.string()),
        **dict.fromkeys(("docids", "labels"), texts),
        "messages": arrow.list_(message),
        **dict.fromkeys(("prefill", "text", "finish", "server_reasoning"), arrow.string()),
        **dict.fromkeys(("prompt_tokens", "completion_tokens"), arrow.int64()),
        **dict.fromkeys(("seconds", "logprob"), arrow.float64()),
        **dict.fromkeys(("slots", "status", "answer", "reasoning"), arrow.string()),
        **dict.fromkeys(("notes", "comparisons"), arrow.string()),
        **dict.fromkeys(("issues", "order"), texts),
        **dict.fromkeys(("explains", "note"), arrow.string()),
    }
    return arrow.schema(list(named.items()))


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """One line, its nested values beside one another."""
    completion = line["completion"]
    prompt, outcome = line.get("prompt") or {}, line.get("outcome") or {}
    messages = [{"role": m["role"], "content": m["content"]} for m in prompt.get("messages") or []]
    return {
        "qid": line["qid"],
        "query": line.get("query"),
        "docids": line.get("docids"),
        "labels": line.get("labels"),
        "messages": messages or None,
        "prefill": prompt.get("prefill"),
        "text": completion["text"],
        "finish": completion.get("finish"),
        "server_reasoning": completion.get("reasoning") or None,
        "prompt_tokens": completion.get("prompt_tokens"),
        "completion_tokens": completion.get("completion_tokens"),
        "seconds": completion.get("seconds"),
        "logprob": completion.get("logprob"),
        "slots": _json(completion.get("slots")),
        "status": outcome.get("status"),
        "answer": _json(outcome.get("answer")),
        "reasoning": outcome.get("reasoning") or None,
        "notes": _json(outcome.get("notes")),
        "comparisons": _json(outcome.get("comparisons")),
        "issues": list(line.get("issues") or outcome.get("issues") or []),
        "order": outcome.get("order"),
        "explains": line.get("explains"),
        "note": line.get("note"),
    }


def _json(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None
