"""Wins and losses by kinds of queries: their type, as the data names it, and their length.

Contract: plain values in, plain rows out. A slice of few queries says so (``small``): differences
there are mostly noise, and no test is made on slices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rank_rl.records import RankingTask

# Keys of a query's metadata that may name its type; the first that any query has counts.
TYPE_KEYS = ("type", "query_type", "query_set", "category", "kind", "topic", "domain", "subset")
SMALL = 20  # queries, below which a slice says little
LENGTHS = ("short", "medium", "long")

# MuSiQue's ids begin with the number of hops, 2hop__ or 3hop1__.
_HOPS = re.compile(r"(\d+hop)\d*__")
_EASTERN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_EASTERN}]|[^\W{_EASTERN}]+(?:['’-][^\W{_EASTERN}]+)*")
_SAME = 1e-9


def slices(tasks: Sequence[RankingTask]) -> dict[str, dict[str, str]]:
    """``type`` and ``length`` of every query.

    The type is what the first of ``TYPE_KEYS`` in the queries' metadata says, else the number of
    hops in an id of MuSiQue, else empty; a key whose values all differ names no types. Lengths are
    thirds of these queries by number of words (of characters where a script has no spaces between
    words); queries of equal length stay together, and all are medium when none is longer.
    """
    types = _types(tasks)
    lengths = {task.query.qid: len(_WORD.findall(task.query.text)) for task in tasks}
    ordered = sorted(lengths.values())
    count = len(ordered)
    first, second = (ordered[-(-i * count // 3) - 1] if ordered else 0 for i in (1, 2))
    level = not ordered or ordered[0] == ordered[-1]

    def length(words: int) -> str:
        if level or first < words <= second:
            return "medium"
        return "short" if words <= first else "long"

    return {qid: {"type": types[qid], "length": length(n)} for qid, n in lengths.items()}


def _types(tasks: Sequence[RankingTask]) -> dict[str, str]:
    for key in TYPE_KEYS:
        said = {t.query.qid: t.query.metadata.get(key) for t in tasks}
        found = {qid: v.strip() if isinstance(v, str) else "" for qid, v in said.items()}
        named = [v for v in found.values() if v]
        if named and (len(set(named)) < len(named) or len(named) == 1):
            return found
    hops = {t.query.qid: _HOPS.match(t.query.qid) for t in tasks}
    return {qid: match[1] if match else "" for qid, match in hops.items()}


def wins(
    system: Mapping[str, float],
    baseline: Mapping[str, float],
    kinds: Mapping[str, Mapping[str, str]],
    *,
    name: str = "",
) -> dict[str, Any]:
    """Queries that a system answers better, as well and worse than a baseline, in all and by slice.

    Args:
        system: value of a metric by query id.
        baseline: the same of what it is compared with; queries of both count.
        kinds: ``slices``.
        name: the baseline's.

    Returns:
        ``baseline``, ``wins``, ``ties``, ``losses``, mean ``difference``, and ``by_type`` and
        ``by_length``: rows of ``slice``, ``n``, the same four, and ``small``. Queries without a
        type are in no row of ``by_type``.
    """
    differences = {q: system[q] - baseline[q] for q in system if q in baseline}
    types = sorted({kinds[q]["type"] for q in differences if q in kinds} - {""})
    return {
        "baseline": name,
        **_counted(list(differences.values())),
        "by_type": _rows(differences, kinds, "type", types),
        "by_length": _rows(differences, kinds, "length", LENGTHS),
    }


def _rows(
    differences: Mapping[str, float],
    kinds: Mapping[str, Mapping[str, str]],
    by: str,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        own = [v for q, v in differences.items() if q in kinds and kinds[q][by] == name]
        if own:
            small = len(own) < SMALL
            rows.append({"slice": name, "n": len(own), **_counted(own), "small": small})
    return rows


def _counted(differences: Sequence[float]) -> dict[str, Any]:
    """Differences beyond what sums in another order can make."""
    won = sum(d > _SAME for d in differences)
    lost = sum(d < -_SAME for d in differences)
    return {
        "wins": won,
        "ties": len(differences) - won - lost,
        "losses": lost,
        "difference": sum(differences) / len(differences) if differences else 0.0,
    }
