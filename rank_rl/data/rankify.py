"""Retrieved lists as Rankify publishes them (Abdallah et al., 2025, arXiv 2502.02464).

The format of DPR: a JSON list, or JSONL, of questions with what a retriever found, best first.

    {"question": "who wrote Faust?", "answers": ["Goethe"],
     "ctxs": [{"id": "12", "title": "…", "text": "…", "score": 81.2, "has_answer": true}, …]}

A passage that has the answer counts as relevant (grade 1), another one not (grade 0), one without
``has_answer`` is unjudged, and a question without any has no grades: such judgements come from
string matching, not from people. Lists that were published without texts need ``params.passages``,
DPR's table of Wikipedia passages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rank_rl.data.files import identifier, json_lines, lines, some, text_field
from rank_rl.data.sources import SourceData, params_of, required_path
from rank_rl.data.tasks import load_splits
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec

PARAMS = ("train", "validation", "test", "passages")
Passages = Mapping[str, tuple[str, str]]
Record = tuple[str, Mapping[str, Any]]


def load_files(spec: DataSpec) -> SourceData:
    """Load ``spec.path`` or ``params``: train, validation, test; ``passages`` gives the texts.

    Each list is cut to ``data.first_stage.depth``, unless BM25 is to order it (``pool``).

    Raises:
        DataError: no file named, malformed content, or a passage without a text.
    """
    params = params_of(spec, PARAMS)
    depth = None if spec.first_stage.pool else spec.first_stage.depth
    table = params.get("passages")

    def read(path: Path) -> list[RankingTask]:
        found = list(_records(path))
        passages: Passages = {}
        if table is not None:
            wanted = {str(c.get("id")) for where, r in found for _, c in _contexts(r, where)}
            passages = read_passages(required_path(table, "params.passages"), wanted)
        return [_task(record, where, depth, passages) for where, record in found]

    return load_splits(spec, params, read)


def read_passages(path: Path, wanted: Collection[str]) -> dict[str, tuple[str, str]]:
    """Text and title of the passages ``wanted``, from lines of id, text and title (tabs, header).

    Texts may stand in quotation marks, as in ``psgs_w100.tsv``.

    Raises:
        DataError: a line without three columns.
    """
    found: dict[str, tuple[str, str]] = {}
    for where, line in lines(path):
        cells = line.split("\t")
        if len(cells) != 3:
            raise DataError(
                f"{len(cells)} columns", where=where, expected="id, tab, text, tab, title"
            )
        if cells[0] in wanted:
            found[cells[0]] = (_unquoted(cells[1]), _unquoted(cells[2]))
    return found


def _records(path: Path) -> Iterator[Record]:
    """Yield where a question stands, and the question."""
    if path.suffix == ".jsonl":
        yield from json_lines(path)
        return
    try:
        content = json.loads("\n".join(line for _, line in lines(path)))
    except ValueError as error:
        raise DataError(
            f"invalid JSON: {error}", where=str(path), expected="a list; JSONL ends in .jsonl"
        ) from error
    if not isinstance(content, list) or not content:
        raise DataError("no list of questions", where=str(path), expected="[{…}, …]")
    for number, record in enumerate(content, 1):
        where = f"{path}: question {number}"
        if not isinstance(record, dict):
            raise DataError("not an object", where=where, expected="{…}")
        yield where, record


def _contexts(record: Mapping[str, Any], where: str) -> list[tuple[str, Mapping[str, Any]]]:
    contexts = record.get("ctxs", record.get("contexts"))
    if not isinstance(contexts, list) or not all(isinstance(c, dict) for c in contexts):
        raise DataError("no ctxs", where=where, expected="a list of objects")
    return [(f"{where}, ctxs {i}", c) for i, c in enumerate(contexts, 1)]


def _task(
    record: Mapping[str, Any], where: str, depth: int | None, passages: Passages
) -> RankingTask:
    text = text_field(record, ("question",), where)
    contexts = _contexts(record, where)
    ids = [identifier(c, ("id",), at) for at, c in contexts]
    if repeated := [d for d, count in Counter(ids).items() if count > 1]:
        raise DataError(f"listed twice: {some(repeated)}", where=where)
    grades = {
        docid: int(c["has_answer"])
        for docid, (at, c) in zip(ids, contexts, strict=True)
        if c.get("has_answer") is not None and _is_flag(c["has_answer"], at)
    }
    candidates = [
        _candidate(docid, rank, context, at, passages)
        for rank, (docid, (at, context)) in enumerate(zip(ids[:depth], contexts, strict=False), 1)
    ]
    answers = record.get("answers")
    if not candidates:
        raise DataError("no ctxs", where=where, expected="at least one passage")
    return RankingTask(
        query=Query(
            qid=_qid(record, text, where),
            text=text,
            metadata={} if answers is None else {"answers": answers},
        ),
        candidates=tuple(candidates),
        grades=grades or None,
        source="rankify",
    )


def _qid(record: Mapping[str, Any], question: str, where: str) -> str:
    """The id of a question; lists for question answering have none: made of the words there."""
    if record.get("query_id") is not None:
        return identifier(record, ("query_id",), where)
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def _candidate(
    docid: str, rank: int, context: Mapping[str, Any], at: str, passages: Passages
) -> Candidate:
    text, title = passages.get(docid, (None, None))
    if text is None and context.get("text") is None:
        raise DataError(
            f"passage {docid!r} has no text",
            where=at,
            expected="a text",
            remedy="lists published without texts need data.params.passages: psgs_w100.tsv",
        )
    return Candidate(
        docid=docid,
        text=text if text is not None else text_field(context, ("text",), at),
        title=title if title is not None else text_field(context, ("title",), at, default=""),
        rank=rank,
        score=_score(context, at),
    )


def _score(context: Mapping[str, Any], at: str) -> float | None:
    """The retriever's score, a number or the text of one; None where there is none."""
    score = context.get("score")
    if score is None:
        return None
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(value := float(score)):
            return value
    raise DataError(f"score {score!r}", where=at, expected="a finite number")


def _is_flag(value: object, at: str) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"has_answer {value!r}", where=at, expected="true or false")
    return True


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell
