"""Figures for papers, as PNG and SVG, drawn by matplotlib from the charts of the page.

Contract: the same results give the same SVG, byte for byte; text in it stays text. matplotlib is
imported only here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rank_rl.errors import StorageError
from rank_rl.registry import need
from rank_rl.report import diagnosis, pareto
from rank_rl.report.charts import COLOURS, Chart, Figure
from rank_rl.report.reading import Source
from rank_rl.report.scales import label
from rank_rl.report.training import Stage

SIZE = (5.2, 3.5)  # inches
FORMATS = ("svg", "png")  # in this order: a PNG of another resolution moves the layout
# The page's colours on white.
PALETTE = ("#0a66b0", "#bd4a00", "#00775c", "#9a3d79", "#806300", "#545c66")
MARKERS = ("o", "s", "^", "D", "P")  # as svg.SHAPES
DASHES = ("-", "--", ":")
SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "figure.dpi": 200,
}


def write(sources: Sequence[Source], stages: Sequence[Stage], folder: Path) -> list[Path]:
    """Draw all figures into a folder, each as PNG and SVG.

    Returns:
        The files, in order.

    Raises:
        RecipeError: matplotlib is not installed.
        StorageError: the folder cannot be written.
    """
    matplotlib = need("matplotlib", "plots")
    matplotlib.use("agg")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(SETTINGS):
            for source in sources:
                name = _slug(source.label)
                written += _save(_intervals(source), folder / f"{name}-leaderboard")
                for figure in _figures(source):
                    stem = figure.name.removeprefix(f"{source.slug}-")
                    written += _save(_drawn(figure.chart), folder / f"{name}-{stem}")
            for figure in (f for stage in stages for f in stage.figures):
                written += _save(_drawn(figure.chart), folder / _slug(figure.chart.title))
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror}", where=str(error.filename or folder)
        ) from error
    return written


def _figures(source: Source) -> list[Figure]:
    costs = [figure for _, figure in pareto.figures(source)]
    return [*costs, *(f for part in diagnosis.parts(source) for f in part.figures)]


def _save(figure: Any, stem: Path) -> list[Path]:
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = stem.name  # the same ids in the same file
    files = []
    for kind in FORMATS:
        path = stem.parent / f"{stem.name}.{kind}"
        dateless = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(path, metadata=dateless)
        files.append(path)
    plt.close(figure)
    return files


def _intervals(source: Source) -> Any:
    """Every system's mean of the main metric with its interval, the first one on top."""
    import matplotlib.pyplot as plt

    systems = [s for s in source.result["systems"] if source.metric in s["metrics"]][::-1]
    height = 0.9 + 0.28 * len(systems)
    figure, axes = plt.subplots(figsize=(SIZE[0], height), layout="constrained")
    for place, system in enumerate(systems):
        found = system["metrics"][source.metric]
        error = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
        colour = PALETTE[0] if system["model"] else PALETTE[-1]
        axes.errorbar([found["mean"]], [place], xerr=error, fmt="o", color=colour, capsize=2)
    axes.set_yticks(range(len(systems)), [_literal(s["name"]) for s in systems])
    axes.set_xlabel(f"{_literal(source.metric)}, {_literal(source.label)}")
    return figure


def _drawn(chart: Chart) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    for series in chart.series:
        _series(axes, series)
    for name, value in chart.references:
        axes.axhline(value, color="#545c66", linestyle=":", linewidth=1)
        where = axes.get_yaxis_transform()
        axes.text(1, value, _literal(name), transform=where, ha="right", va="bottom", fontsize=7)
    if chart.path:
        xs, ys = zip(*chart.path, strict=True)
        axes.plot(xs, ys, color="#545c66", linestyle="--", linewidth=1, zorder=1)
    _axes(axes, chart)
    return figure


def _series(axes: Any, series: Any) -> None:
    colour = PALETTE[series.style % COLOURS]
    marker, dash = MARKERS[series.style % len(MARKERS)], DASHES[series.style // COLOURS % 3]
    xs, ys = [p.x for p in series.points], [p.y for p in series.points]
    line = {"linestyle": dash if series.joined else "none", "color": colour, "marker": marker}
    axes.plot(xs, ys, markersize=4, label=_literal(series.name), **line)
    hollow = [p for p in series.points if not p.strong]
    style = {"linestyle": "none", "color": colour, "markerfacecolor": "white", "zorder": 3}
    axes.plot([p.x for p in hollow], [p.y for p in hollow], marker, markersize=4, **style)
    for point in series.points:
        if point.low is not None and point.high is not None:
            error = [[point.y - point.low], [point.high - point.y]]
            axes.errorbar([point.x], [point.y], yerr=error, color=colour, alpha=0.5, capsize=2)
        if series.named:
            offset = {"textcoords": "offset points", "xytext": (5, 3), "fontsize": 7}
            axes.annotate(_literal(point.name), (point.x, point.y), **offset)


def _axes(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_xlabel(_literal(chart.x.title))
    axes.set_ylabel(_literal(chart.y.title))
    if chart.x.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap
    if chart.x.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, put in ((chart.x, axes.set_xlim), (chart.y, axes.set_ylim)):
        if axis.bounds:
            put(*axis.bounds)
    if len([s for s in chart.series if s.name and not s.named]) > 1:
        axes.legend(fontsize=7, frameon=False)


def _literal(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "result"
