"""Means over several collections, each weighing the same.

Contract: only systems that every result has under the same name, and metrics that all have. A mean
over collections has no interval here: its noise is that of few collections.
"""

from __future__ import annotations

from collections.abc import Sequence

from rank_rl.report import shape, shown
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Table, names, text


def macro(sources: Sequence[Source]) -> tuple[Table | None, str]:
    """The table, and a sentence on what is in it and what is not; no table for one result."""
    if len(sources) < 2:
        return None, ""
    metrics = [m for m in sources[0].result["metrics"] if all(_has(s, m) for s in sources)]
    every = [s["name"] for s in sources[0].result["systems"]]
    others = [{s["name"] for s in source.result["systems"]} for source in sources]
    shared = [n for n in every if all(n in found for found in others)]
    known = {name for found in others for name in found}
    if not metrics or not shared:
        return None, "The results share no system or no metric, so there is no mean over them."
    metric = metrics[0]
    columns = (
        *names("system"),
        *(Column(title=f"mean {m}") for m in metrics),
        *(Column(title=f"{metric}, {s.label}") for s in sources),
    )
    rows = tuple(
        (
            text(name),
            *(_cell(_mean([_value(s, name, m) for s in sources])) for m in metrics),
            *(_cell(_value(s, name, metric)) for s in sources),
        )
        for name in shared
    )
    left = len(known) - len(shared)
    said = (
        f"Means over {len(sources)} collections, each weighing the same however many queries it "
        f"has. Only the {len(shared)} systems that all results have"
    )
    said += f"; {left} that some lack are left out." if left else "."
    caption = f"Mean over {len(sources)} collections"
    return Table(caption=caption, columns=columns, rows=rows), said


def _has(source: Source, metric: str) -> bool:
    return metric in source.result["metrics"]


def _value(source: Source, name: str, metric: str) -> float | None:
    return shape.mean(source.system(name), metric)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return sum(found) / len(found) if len(found) == len(values) else None


def _cell(value: float | None) -> Cell:
    return Cell(text=shown.score(value), value=value)
