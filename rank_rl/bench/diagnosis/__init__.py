"""What the metrics do not tell about a system: position bias, calibration, failures, slices.

``of_answers`` reads what was answered anyway; ``position`` and ``formatting`` ask some queries
again; ``wins`` and ``warnings`` look at a row beside others. All return JSON-safe values. What the
numbers mean stands in docs/diagnosis.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rank_rl.bench.diagnosis.again import Rank, by, some
from rank_rl.bench.diagnosis.calibration import calibration, grades_of, tied, worths
from rank_rl.bench.diagnosis.failures import ISSUES, KINDS, describe, failures, issues
from rank_rl.bench.diagnosis.formatting import VARIANTS, formatting
from rank_rl.bench.diagnosis.position import position
from rank_rl.bench.diagnosis.slices import slices, wins
from rank_rl.bench.diagnosis.warnings import Facts, warnings
from rank_rl.errors import DataError
from rank_rl.metrics import kendall
from rank_rl.records import Ranking, RankingTask
from rank_rl.specs import DiagnosisSpec

__all__ = [
    "ISSUES",
    "KINDS",
    "VARIANTS",
    "Facts",
    "Rank",
    "by",
    "calibration",
    "describe",
    "failures",
    "formatting",
    "grades_of",
    "input_tau",
    "issues",
    "of_answers",
    "position",
    "records",
    "slices",
    "some",
    "tied",
    "warnings",
    "wins",
    "worths",
]


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of an ``exchanges`` file, without their prompts, which no diagnosis reads.

    Raises:
        DataError: the file is missing or malformed; the line is named.
    """
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                record = json.loads(line)
                if "explains" not in record and not {"outcome", "completion"} <= record.keys():
                    raise DataError("no exchange", where=f"{path}, line {number}")
                record.pop("prompt", None)
                found.append(record)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError("not JSON objects", where=f"{path}, line {len(found) + 1}") from error
    return found


def of_answers(
    asked: Sequence[Mapping[str, Any]],
    tasks: Sequence[RankingTask],
    spec: DiagnosisSpec,
    *,
    rankings: Mapping[str, Ranking] | None = None,
    statuses: Mapping[str, int] | None = None,
    values: Sequence[float] = (),
) -> dict[str, Any]:
    """What a system's answers show without asking again; a key is absent where nothing is known.

    Args:
        asked: ``records`` of the system.
        tasks: the queries, for grades and input orders.
        spec: whether calibration is wanted, and in how many bins.
        rankings: the system's, by query id.
        statuses: the system's, see ``failures``.
        values: what the format's labels or scores are worth, see ``worths``.

    Returns:
        ``calibration``, ``failures``, ``tied`` (share of scored documents that share their score)
        and ``input_tau`` (mean Kendall tau between rankings and input orders).
    """
    found: dict[str, Any] = {"failures": failures(asked, statuses), "tied": tied(asked)}
    if spec.calibration:
        found["calibration"] = calibration(asked, grades_of(tasks), bins=spec.bins, values=values)
    if rankings is not None:
        found["input_tau"] = input_tau(rankings, tasks)
    return {name: value for name, value in found.items() if value is not None}


def input_tau(rankings: Mapping[str, Ranking], tasks: Sequence[RankingTask]) -> float | None:
    """Mean Kendall tau between rankings and input orders; None where no task has two candidates."""
    taus = [
        kendall(task.docids, rankings[task.query.qid].docids)
        for task in tasks
        if task.query.qid in rankings and len(task.candidates) > 1
    ]
    return sum(taus) / len(taus) if taus else None
