"""Ranking tasks as JSONL, one task a line; reading what was written gives the same tasks.

    {"qid": "q1", "query": "who …", "instruction": "…", "metadata": {…},
     "candidates": [{"docid": "d1", "text": "…", "title": "…", "rank": 1, "score": 7.5}, …],
     "grades": {"d1": 2}, "source": "…", "split": "train"}

Required: qid, query, candidates with docid and text, in first-stage order. ``rank`` counts from 1
and is the position when absent. No ``grades`` means unjudged. Other keys are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rank_rl.data import first_stage, splits
from rank_rl.data.files import identifier, json_lines, sha256, text_field, write_lines
from rank_rl.data.sources import SourceData, params_of, required_path
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec

TASK_KEYS = {"qid", "query", "instruction", "metadata", "candidates", "grades", "source", "split"}
CANDIDATE_KEYS = {"docid", "text", "title", "rank", "score"}
PARAMS = ("train", "validation", "test")


def load_files(spec: DataSpec) -> SourceData:
    """Load tasks from ``spec.path`` (splits by their ``split`` field) or ``params.train`` ….

    Raises:
        DataError: no file named, a malformed line, or a query id that appears twice in a split.
    """
    return load_splits(spec, params_of(spec, PARAMS), read_tasks)


def load_splits(
    spec: DataSpec, params: Mapping[str, Any], read: Callable[[Path], list[RankingTask]]
) -> SourceData:
    """Load files of whole tasks with ``read``: one a split, or one for all; see ``load_files``."""
    files = {
        key: required_path(params[key], f"params.{key}")
        for key in ("train", "validation", "test")
        if params.get(key) is not None
    }
    if "validation" in files and not spec.validation_split:
        spec = spec.model_copy(update={"validation_split": "validation"})
    parts: dict[str, list[RankingTask]] = {}
    if files:
        names = {
            "train": spec.train_split,
            "validation": spec.validation_split or "",
            "test": spec.test_split,
        }
        for key, path in files.items():
            parts[names[key]] = read(path)
    else:
        files = {"tasks": required_path(spec.path, "path")}
        for task in read(files["tasks"]):
            parts.setdefault(task.split or splits.UNSPLIT, []).append(task)
    used = splits.wanted(spec, list(parts))
    _check_unique({name: parts[name] for name in used})
    tasks = [t for name in used for t in parts[name]]
    ordered, description = first_stage.reorder(tasks, spec.first_stage)
    remaining = iter(ordered)
    return SourceData(
        name=_called(list(files.values())) or spec.source,
        splits={name: tuple(next(remaining) for _ in parts[name]) for name in used},
        provenance={
            "files": {key: sha256(path) for key, path in files.items()},
            "documents": len({d for t in tasks for d in t.docids}),
            "first_stage": description,
        },
        validation_split=spec.validation_split,
    )


def _called(files: Sequence[Path]) -> str:
    """The name of a collection: its only file's, else that of the folder that its files share.

    Several files are called after their split, which says nothing about what is in them.
    """
    if len(files) == 1:
        return files[0].stem
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in files])).name


def read_tasks(path: Path) -> list[RankingTask]:
    """Read tasks in file order.

    Raises:
        DataError: a line that does not follow the schema above.
    """
    return [read_task(record, where) for where, record in json_lines(path)]


def write_tasks(path: Path, tasks: Iterable[RankingTask]) -> None:
    """Write tasks, one a line.

    Raises:
        StorageError: the file cannot be written.
    """
    write_lines(path, (json.dumps(_record(task), ensure_ascii=False) for task in tasks))


def _record(task: RankingTask) -> dict[str, Any]:
    query = task.query
    record: dict[str, Any] = {"qid": query.qid, "query": query.text}
    if query.instruction is not None:
        record["instruction"] = query.instruction
    if query.metadata:
        record["metadata"] = dict(query.metadata)
    record["candidates"] = [
        {
            "docid": c.docid,
            "text": c.text,
            **({"title": c.title} if c.title else {}),
            "rank": c.rank,
            **({"score": c.score} if c.score is not None else {}),
        }
        for c in task.candidates
    ]
    if task.grades is not None:
        record["grades"] = dict(task.grades)
    return record | {k: v for k, v in (("source", task.source), ("split", task.split)) if v}


def read_task(record: Mapping[str, Any], where: str) -> RankingTask:
    """Read one task from a JSON object; ``where`` is named in errors.

    Raises:
        DataError: an object that does not follow the schema above.
    """
    _closed(record, TASK_KEYS, where)
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(c, dict) for c in candidates):
        raise DataError("no candidates", where=where, expected="a list of objects")
    instruction = record.get("instruction")
    if instruction is not None:
        instruction = text_field(record, ("instruction",), where)
    query = Query(
        qid=identifier(record, ("qid",), where),
        text=text_field(record, ("query",), where),
        instruction=instruction,
        metadata=_mapping(record, "metadata", where) or {},
    )
    try:
        return RankingTask(
            query=query,
            candidates=_candidates(candidates, where),
            grades=_mapping(record, "grades", where),
            source=text_field(record, ("source",), where, default=""),
            split=text_field(record, ("split",), where, default=""),
        )
    except DataError as error:
        if error.where.startswith(where):
            raise
        raise DataError(
            error.what, where=f"{where}, {error.where}", expected=error.expected
        ) from error


def _candidates(records: Iterable[Mapping[str, Any]], where: str) -> tuple[Candidate, ...]:
    candidates: list[Candidate] = []
    for position, record in enumerate(records, 1):
        at = f"{where}, candidate {position}"
        _closed(record, CANDIDATE_KEYS, at)
        rank, score = record.get("rank", position), record.get("score")
        least = candidates[-1].rank + 1 if candidates else 1
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < least:
            raise DataError(f"rank {rank!r}", where=at, expected=f"an integer, {least} or more")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise DataError(f"score {score!r}", where=at, expected="a number")
        candidates.append(
            Candidate(
                docid=identifier(record, ("docid",), at),
                text=text_field(record, ("text",), at),
                title=text_field(record, ("title",), at, default=""),
                rank=rank,
                score=score,
            )
        )
    return tuple(candidates)


def _mapping(record: Mapping[str, Any], key: str, where: str) -> dict[str, Any] | None:
    value = record.get(key)
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{key} is {value!r}", where=where, expected="an object")
    return value


def _closed(record: Mapping[str, Any], keys: set[str], where: str) -> None:
    if unknown := sorted(set(record) - keys):
        raise DataError(
            f"unknown key {unknown[0]!r}",
            where=where,
            expected=f"only {', '.join(sorted(keys))}",
        )


def _check_unique(parts: Mapping[str, list[RankingTask]]) -> None:
    for name, tasks in parts.items():
        seen: set[str] = set()
        for task in tasks:
            if task.query.qid in seen:
                raise DataError(f"query id {task.query.qid!r} appears twice", where=f"split {name}")
            seen.add(task.query.qid)
