"""Calibration: reliability diagrams with their expected calibration error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rank_rl.report import shown
from rank_rl.report.charts import Axis, Chart, Figure, Point, Series, figure
from rank_rl.report.parts import Part, each
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Table, names, numbers, text


def calibration(source: Source) -> Part | None:
    """A diagram for each system whose answers say how sure they are."""
    found = each(source, "calibration")
    if not found:
        return None
    rows = tuple(
        (
            text(name),
            Cell(text=shown.score(c.get("ece")), value=c.get("ece")),
            Cell(text=shown.count(c.get("documents")), value=c.get("documents")),
            Cell(text=shown.percent(c.get("relevant")), value=c.get("relevant")),
            text(c.get("basis") or ""),
        )
        for name, c in found
    )
    columns = (
        *names("system"), *numbers("ECE", "documents", "of them relevant"), *names("confidence is")
    )  # fmt: skip
    caption = f"Expected calibration error (0: calibrated), {source.label}"
    return Part(
        title="Calibration",
        words="Documents by the confidence that they are relevant, against the share that is. "
        "On the diagonal a system means what it says; larger points hold more documents.",
        figures=tuple(_reliability(source, n, name, c) for n, (name, c) in enumerate(found)),
        tables=(Table(caption=caption, columns=columns, rows=rows).filled(),),
    )


def _reliability(source: Source, number: int, name: str, found: Mapping[str, Any]) -> Figure:
    bins = [b for b in found.get("bins") or [] if b.get("n")]
    most = max([1, *(b["n"] for b in bins)])
    points = tuple(
        Point(x=b["confidence"], y=b["relevant"], size=2.5 + 5 * (b["n"] / most) ** 0.5)
        for b in bins
    )
    ece = shown.score(found.get("ece"))
    chart = Chart(
        title=f"{name}: reliability, ECE {ece}",
        description=f"{len(bins)} bins of confidence against the share relevant in each; "
        f"expected calibration error {ece}.",
        x=Axis(title="confidence", bounds=(0.0, 1.0)),
        y=Axis(title="share relevant", bounds=(0.0, 1.0)),
        series=(Series(name=name, points=points, style=number),),
        path=((0.0, 0.0), (1.0, 1.0)),
    )
    rows = tuple(
        (
            Cell(text=f"{b['low']:.2f} to {b['high']:.2f}", value=b["low"]),
            Cell(text=shown.count(b["n"]), value=b["n"]),
            Cell(text=shown.score(b["confidence"]), value=b["confidence"]),
            Cell(text=shown.score(b["relevant"]), value=b["relevant"]),
        )
        for b in bins
    )
    columns = numbers("bin", "documents", "confidence", "share relevant")
    table = Table(caption=f"{name}: bins of confidence", columns=columns, rows=rows)
    return figure(f"{source.slug}-calibration-{number}", chart, table)
