"""Steps, and how small a difference the queries could have shown.

Contract: rows as the result file has them; drawings repeat what the cells say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rank_rl.report import shape, shown, sparks
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Table, names, numbers, text

Bounds = tuple[float, float]


def steps(source: Source, metrics: Sequence[str] | None = None) -> Table | None:
    """What each stage added, metric by metric (those named, or all); None without steps."""
    wanted = source.result["metrics"] if metrics is None else metrics
    order = {m: i for i, m in enumerate(wanted)}
    rows = [r for r in source.result["steps"] if r["metric"] in order]
    rows.sort(key=lambda r: order[r["metric"]])
    if not rows:
        return None
    axis = bounds(rows)
    has_t = any("p_t" in r for r in rows)
    columns = (
        *names("step", "metric"),
        *numbers("difference"),
        Column(title="interval", drawn=True),
        *numbers("p", *(["p (t-test)"] if has_t else [])),
        *names("verdict"),
    )
    cells = tuple(
        (
            text(f"{r['from']} → {r['to']}"),
            text(r["metric"], by=float(order[r["metric"]])),
            *difference(r, axis),
            Cell(text=shown.probability(r["p"]), value=r["p"]),
            *([Cell(text=shown.probability(r.get("p_t")), value=r.get("p_t"))] if has_t else []),
            text(verdict(r["difference"], r["p"])),
        )
        for r in rows
    )
    said = ", ".join(dict.fromkeys(r["metric"] for r in rows))
    caption = f"What each step changed in {said}, {source.label}"
    return Table(caption=caption, columns=columns, rows=cells)


def difference(row: Mapping[str, Any], axis: Bounds) -> tuple[Cell, Cell]:
    """A difference with its interval, and the same drawn around zero."""
    spread = sparks.Spread(mean=row["difference"], low=row["low"], high=row["high"])
    style = "" if row["low"] <= 0 <= row["high"] else "up" if row["difference"] > 0 else "down"
    return (
        Cell(
            text=shown.signed(row["difference"]),
            value=row["difference"],
            detail=shown.from_to(row["low"], row["high"]),
        ),
        Cell(plot=sparks.interval(spread, axis, reference=0.0, style=style)),
    )


def bounds(rows: Sequence[Mapping[str, Any]]) -> Bounds:
    """An axis around zero that holds all intervals."""
    reach = max([0.01, *(abs(r[key]) for r in rows for key in ("low", "high"))])
    return -reach, reach


def verdict(value: float, p: float) -> str:
    """What a test says, in a word."""
    if p >= shown.LEVEL:
        return "not significant"
    return "better" if value > 0 else "worse"


def sensitivity(source: Source) -> Table | None:
    """Ceilings and smallest differences that would be found; None where neither is known."""
    result = source.result
    smallest: Mapping[str, Any] = result["minimal_difference"]
    known = dict.fromkeys(b for found in smallest.values() for b in found or {})
    if not known and not result["ceiling"]:
        return None
    first = shape.first_stage(result)
    columns = (
        *names("metric"),
        *numbers("first stage", "ceiling", *(f"smallest difference from {b}" for b in known)),
    )
    rows = []
    for metric in result["metrics"]:
        found = smallest.get(metric) or {}
        values = [shown.number(found.get(b)) for b in known]
        top = shown.number(result["ceiling"].get(metric))
        start = shape.mean(first, metric) if first else None
        rows.append(
            (
                text(metric),
                *(Cell(text=shown.score(v), value=v) for v in (start, top, *values)),
            )
        )
    caption = f"What could be found with these queries, {source.label}"
    return Table(caption=caption, columns=columns, rows=tuple(rows)).filled()
