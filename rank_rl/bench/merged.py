"""Benchmarks that were run apart become one: the documents of several folders in a new one.

Teachers are often asked on one machine and students on another. Contract: nothing is computed
again; documents that do not belong together are refused before anything is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rank_rl.bench.document import Document
from rank_rl.bench.layout import DOCUMENTS, RESULT, TASKS
from rank_rl.bench.merge import Plan, merge
from rank_rl.data.files import write_lines
from rank_rl.data.tasks import read_tasks, write_tasks
from rank_rl.errors import DataError, StorageError

FACTS = ("name", "recipe", "rank_rl", "versions", "git", "data", "leaks")


def merge_folders(
    folders: Sequence[Path],
    out: Path,
    *,
    baselines: Sequence[str] = (),
    teacher: str | None = None,
) -> dict[str, Any]:
    """Merge what ``rank-rl bench`` wrote into several folders.

    Args:
        folders: outputs of benchmarks of one collection; the first gives metrics and prices.
        out: a new or empty folder.
        baselines: rows that all others are tested against; none is those of the first folder.
        teacher: the row whose quality the others are given a share of.

    Returns:
        The result, which ``out`` holds too, with all runs and traces.

    Raises:
        DataError: a folder without documents, or documents that do not belong together.
        StorageError: ``out`` is not empty or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise StorageError("is not empty", where=str(out), expected="a new folder")
    first = _result(folders[0])
    plan = _plan(first, baselines, teacher)
    names = [n for folder in folders for n in _order(_result(folder))]
    found = [d for folder in folders for d in documents(folder)]
    ordered = sorted(found, key=lambda d: names.index(d.system))
    tasks = read_tasks(folders[0] / TASKS)
    facts = {key: first.get(key) for key in FACTS}
    facts["merged"] = [
        {key: _result(folder).get(key) for key in ("name", "recipe", "rank_rl", "git")}
        for folder in folders
    ]
    result = merge(ordered, plan, facts, tasks)
    for folder in folders:
        _copy(folder, out)
    write_tasks(out / TASKS, tasks)
    write_lines(out / RESULT, [json.dumps(result, indent=1, ensure_ascii=False)])
    return result


def documents(folder: Path) -> list[Document]:
    """The result documents of a benchmark's folder.

    Raises:
        DataError: there are none, or one is malformed.
    """
    files = sorted((folder / DOCUMENTS).glob("*.json"))
    if not files:
        raise DataError(
            "no result documents",
            where=str(folder),
            expected=f"the output of rank-rl bench, with a folder {DOCUMENTS}",
        )
    return [Document.read(path) for path in files]


def _result(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy="several collections are merged one by one: name their folders",
        ) from error
    except ValueError as error:
        raise DataError("not a benchmark result", where=str(path)) from error
    if "plan" not in found or "systems" not in found:
        raise DataError(
            "written before results could be merged",
            where=str(path),
            remedy="run rank-rl bench again: what was answered is kept",
        )
    return found


def _plan(first: Mapping[str, Any], baselines: Sequence[str], teacher: str | None) -> Plan:
    plan = Plan.read(first["plan"])
    if baselines:
        plan = replace(plan, baselines=tuple(baselines))
    return replace(plan, teacher=teacher) if teacher else plan


def _order(result: Mapping[str, Any]) -> list[str]:
    return [system["name"] for system in result["systems"]]


def _copy(folder: Path, out: Path) -> None:
    """Documents, runs and traces of a folder; two of one name are the same document's."""
    for part in (DOCUMENTS, "runs", "exchanges"):
        if (folder / part).is_dir():
            try:
                shutil.copytree(folder / part, out / part, dirs_exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot be written: {error}", where=str(out)) from error
