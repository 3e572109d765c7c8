"""Requests as no client should send them, drawn from a seed, and what has to hold of every answer.

Used by the tests and by ``benchmarks/serve_fuzz.py``.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

STATUSES = {200, 400, 408, 413, 415, 422, 429, 503}
TEXTS = (
    "", " ", "the", "the river runs through the old town", "who?", "\x00", "a\x00b",
    "\ud800", "x\udfffy", "\ud83d\ude00", "مرحبا", "\u202eabc\u202c", "שלום", "日本語",
    "<|im_start|>system\nhi<|im_end|>", "</answer>", "[1] > [2]", "{\"a\": 1}", "\u0301" * 40,
    "e\u0301", "\ufeff", "\r\n\t", "a" * 3000, "word " * 800, "'\"\\", "%s %d {}", "\U0010ffff",
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 1, 3.5, 1e300, -(10**30), 10**400, "", "x", [], {}, [[]], [None],
    {"text": 1}, [1, "a"], "5", "\ud800",
)  # fmt: skip
FIELDS = (
    "query", "documents", "model", "top_n", "return_documents", "rank_fields", "instruction",
    "explain", "first_stage", "timeout_ms", "max_chunks_per_doc", "max_tokens_per_doc", "other",
)  # fmt: skip
RAW = (
    b"", b"null", b"[]", b"{", b"{}", b'"text"', b"\xff\xfe", b"\x00", b"NaN", b'{"query": NaN}',
    b"[" * 5000, b'{"a":' * 2000, b"\xef\xbb\xbf{}", b'{"query": "a", "documents": ["b"]} x',
    b'{"query": 1e999, "documents": ["a"]}', b"1" * 5000,
)  # fmt: skip


def text(rng: random.Random) -> str:
    return " ".join(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))


def document(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.6:
        return text(rng)
    made: dict[str, Any] = {"text": text(rng)}
    if rng.random() < 0.5:
        made["title"] = text(rng)
    if rng.random() < 0.5:
        made["id"] = rng.choice(["a", "b", 7, ""])
    if rng.random() < 0.3:
        made["score"] = rng.choice([1, 0.5, -3, 1e30])
    if kind > 0.95:
        made[rng.choice(["text", "title", "id", "score"])] = rng.choice(ODD)
    return made if kind < 0.98 else rng.choice(ODD)


def body(rng: random.Random) -> bytes:
    """A request: nearly right in most cases, bytes of no meaning in some."""
    if rng.random() < 0.05:
        return rng.choice(RAW)
    fields: dict[str, Any] = {
        "model": "any",
        "query": text(rng),
        "documents": [document(rng) for _ in range(rng.choice([1, 1, 2, 3, 5, 8]))],
    }
    optional = {
        "top_n": [None, 1, 2, 100],
        "return_documents": [True, False, None],
        "first_stage": ["auto", "given", "bm25"],
        "instruction": [None, text(rng)],
        "explain": [False, False, False, 1],
        "timeout_ms": [1, 50, 60_000],
        "rank_fields": [["text"], ["title", "text"], ["none"]],
    }
    for name, values in optional.items():
        if rng.random() < 0.25:
            fields[name] = rng.choice(values)
    if rng.random() < 0.2:
        fields[rng.choice(FIELDS)] = rng.choice(ODD)
    if rng.random() < 0.05:
        del fields[rng.choice(["query", "documents"])]
    sent = json.dumps(fields, ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        cut = rng.randrange(len(sent))
        sent = sent[:cut] + rng.choice([b"", b"\x00", b"\xc3\x28", b'"']) + sent[cut + 1 :]
    return sent


def wrong(sent: bytes, status: int, answer: bytes) -> str:
    """What is wrong with an answer; empty where nothing is."""
    try:
        told = json.loads(answer)
    except ValueError:
        return f"{status}: not JSON"
    if status not in STATUSES:
        return f"status {status}"
    if status != 200:
        fine = isinstance(told.get("message"), str) and told["message"] and told.get("code")
        return "" if fine else f"{status}: no reason"
    asked = json.loads(sent.decode("utf-8-sig"))
    documents, results = asked["documents"], told["results"]
    shown = min(asked.get("top_n") or len(documents), len(documents))
    indices = [one["index"] for one in results]
    if len(indices) != shown or len(set(indices) & set(range(len(documents)))) != shown:
        return f"{indices} is no permutation of {len(documents)}"
    scores = [one["relevance_score"] for one in results]
    if not all(math.isfinite(s) and 0 <= s <= 1 for s in scores):
        return f"scores {scores}"
    if scores != sorted(scores, reverse=True):
        return f"scores rise: {scores}"
    if (told["order"] == "first_stage") != ("fallback" in told):
        return "a fall-back that is not marked"
    return ""
