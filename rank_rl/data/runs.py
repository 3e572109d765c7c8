"""Runs recorded as JSON: a score for each document, or the lists that RankLLM and RankGPT store.

    {"q1": {"d7": 14.2, "d2": 13.9}, …}                                       BRIGHT's score.json
    [{"query": {"qid": "q1", "text": "…"},
      "candidates": [{"docid": "d7", "score": 14.2}, …]}, …]                 RankLLM, or JSONL
    [{"query": "…", "hits": [{"qid": 1, "docid": "7", "rank": 1, "score": 14.2}, …]}, …]   RankGPT

As with TREC runs, the score decides, and of equal scores the order of trec_eval (``ties``). Reading
TREC runs is left to ``trec``, which comes here for files that end in .json or .jsonl.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rank_rl.data.files import identifier, json_lines, kind, lines
from rank_rl.data.ties import evaluated_order
from rank_rl.errors import DataError

SUFFIXES = (".json", ".jsonl")
Scored = tuple[tuple[str, float], ...]
Entry = tuple[str, str, Any]  # docid, where it stands, its score


def read_json_run(path: Path) -> dict[str, Scored]:
    """Read a run as query id → ((docid, score), …), best first.

    Raises:
        DataError: a file of another form, a query or a document of a query that is listed twice, or
            a score that is no finite number.
    """
    if kind(path) == ".jsonl":
        return _of_lists(json_lines(path))
    try:
        content = json.loads(
            "\n".join(line for _, line in lines(path)), object_pairs_hook=_no_repetition
        )
    except _RepeatedError as error:
        raise DataError(f"{error} appears twice", where=str(path)) from error
    except ValueError as error:
        raise DataError(f"invalid JSON: {error}", where=str(path)) from error
    if isinstance(content, list):
        return _of_lists((f"{path}: query {i}", r) for i, r in enumerate(content, 1))
    if not isinstance(content, dict) or not content:
        raise DataError("no run", where=str(path), expected="{query id: {docid: score}} or a list")
    found = {}
    for qid, by in content.items():
        where = f"{path}: query {qid!r}"
        if not isinstance(by, dict):
            raise DataError("no documents", where=where, expected="{docid: score}")
        found[qid] = _ranked((docid, where, score) for docid, score in by.items())
    return found


class _RepeatedError(ValueError):
    """A key that an object has twice; plain JSON readers keep the last one in silence."""


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedError(repr(next(key for key in keys if keys.count(key) > 1)))
    return found


def _of_lists(records: Iterable[tuple[str, Any]]) -> dict[str, Scored]:
    found: dict[str, Scored] = {}
    for where, record in records:
        if not isinstance(record, dict):
            raise DataError("not an object", where=where, expected='{"query": …, "candidates": …}')
        listed = record.get("candidates", record.get("hits"))
        if not isinstance(listed, list) or not all(isinstance(c, dict) for c in listed):
            raise DataError("no candidates", where=where, expected="a list of objects")
        if not listed and "hits" in record:
            continue  # a query for which RankGPT's retriever found nothing has no id
        qid = _qid(record, listed, where)
        if qid in found:
            raise DataError(f"query {qid!r} appears twice", where=where)
        found[qid] = _ranked(_entries(listed, where))
    if not found:
        raise DataError("no run", where="run", expected="at least one query")
    return found


def _qid(record: Mapping[str, Any], listed: list[Mapping[str, Any]], where: str) -> str:
    query = record.get("query")
    if isinstance(query, dict):
        return identifier(query, ("qid",), where)
    ids = {identifier(hit, ("qid",), where) for hit in listed}
    if len(ids) != 1:
        raise DataError(f"{len(ids)} query ids in one list", where=where, expected="one")
    return ids.pop()


def _entries(listed: list[Mapping[str, Any]], where: str) -> Iterator[Entry]:
    for number, entry in enumerate(listed, 1):
        at = f"{where}, document {number}"
        yield identifier(entry, ("docid",), at), at, entry.get("score")


def _ranked(entries: Iterable[Entry]) -> Scored:
    """Documents with their scores as trec_eval orders them."""
    found: dict[str, float] = {}
    for docid, where, score in entries:
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise DataError(f"score {score!r} of {docid!r}", where=where, expected="a number")
        if not math.isfinite(score):
            raise DataError(f"score {score!r} of {docid!r}", where=where, expected="finite")
        if docid in found:
            raise DataError(f"document {docid!r} appears twice", where=where)
        found[docid] = float(score)
    return tuple((docid, found[docid]) for docid in evaluated_order(found))
