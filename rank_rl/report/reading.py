"""Result files found and read: each becomes a source of the page, with a name of its own.

Contract: a folder is read as the output of one benchmark, or of one that ranked several
collections; the main metric comes first everywhere. What lies beside a result file is left to
``beside``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_rl.bench.layout import RESULT, RESULTS
from rank_rl.errors import DataError, RecipeError
from rank_rl.registry import nearest
from rank_rl.report.beside import Beside
from rank_rl.report.shape import completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One result file.

    Attributes:
        label: what it is called on the page; no two are called the same.
        slug: short, safe in HTML ids.
        path: the result file.
        result: its content, completed (``shape.completed``), the main metric first.
        beside: what lies beside it.
    """

    label: str
    slug: str
    path: Path
    result: dict[str, Any]
    beside: Beside

    @property
    def metric(self) -> str:
        """The main metric."""
        return str(self.result["metrics"][0])

    def system(self, name: str) -> dict[str, Any]:
        """The row called ``name``; KeyError without one."""
        return next(s for s in self.result["systems"] if s["name"] == name)


def sources(paths: Sequence[Path], metric: str | None = None) -> list[Source]:
    """Read the results that ``paths`` name, each file once.

    Args:
        paths: result files, output folders of ``rank-rl bench``, or folders of several of them.
        metric: what is shown first; None is the first that each result names.

    Raises:
        DataError: there is no result, or a file is none.
        RecipeError: a result does not have the metric.
    """
    files = list(dict.fromkeys(file.resolve() for path in paths for file in _files(path)))
    if not files:
        raise DataError("no results named", where="report", expected="files or folders of results")
    results = [_ordered(completed(_read(file), str(file)), metric, file) for file in files]
    labels = _labels(results, files)
    return [
        Source(
            label=label,
            slug=f"c{number}",
            path=file,
            result=result,
            beside=Beside(folder=file.parent, result=result),
        )
        for number, (label, file, result) in enumerate(
            zip(labels, files, results, strict=True), start=1
        )
    ]


def holds_results(path: Path) -> bool:
    """Whether a path is a file, or a folder with results in it."""
    if path.is_dir():
        return any((path / n).is_file() for n in (RESULT, RESULTS)) or any(path.glob(f"*/{RESULT}"))
    return path.is_file()


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))
    if path.name == RESULTS or (path / RESULTS).is_file():
        return _listed(path if path.is_file() else path / RESULTS)
    if path.is_file():
        return [path]
    if (path / RESULT).is_file():
        return [path / RESULT]
    found = sorted(path.glob(f"*/{RESULT}"))
    if not found:
        raise DataError(
            f"no {RESULT}", where=str(path), expected="an output folder of rank-rl bench"
        )
    return found


def _listed(index: Path) -> list[Path]:
    """The results of several collections, in the order of their index."""
    content = _read(index)
    named = content.get("collections") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise DataError("no collections", where=str(index), expected="an index of results")
    return [index.parent / str(path) for path in named.values()]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            "not a benchmark result", where=str(path), expected="a result.json of rank-rl bench"
        ) from error


def _ordered(result: dict[str, Any], metric: str | None, file: Path) -> dict[str, Any]:
    """The result with ``metric`` in front."""
    if metric is None:
        return result
    known: list[str] = result["metrics"]
    if metric not in known:
        raise RecipeError(
            f"no metric {metric!r}",
            where=str(file),
            expected=f"one of {', '.join(known)}",
            remedy=nearest(metric, known),
        )
    return {**result, "metrics": [metric, *(m for m in known if m != metric)]}


def _labels(results: Sequence[dict[str, Any]], files: Sequence[Path]) -> list[str]:
    """Names of collections; where two are the same, with the run's name, folder or number."""
    labels = [str(r["collection"]["name"]) for r in results]
    for further in (
        [str(r["name"]) for r in results],
        [f"{f.parent.name}/{f.name}" for f in files],
        [str(n) for n in range(1, len(files) + 1)],
    ):
        shared = {label for label in labels if labels.count(label) > 1}
        labels = [
            f"{label} ({more})" if label in shared and more else label
            for label, more in zip(labels, further, strict=True)
        ]
    return labels
