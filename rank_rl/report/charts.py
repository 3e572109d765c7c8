"""Charts: lines and points on two axes, drawn once for wide pages and once for phones.

Contract: a chart is values and words; how it looks is drawn here and coloured by the style sheet.
Every series has its own colour, mark and dash, so that none is told by its colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from rank_rl.report.labels import Label, placed
from rank_rl.report.scales import Scale, around, around_log, label
from rank_rl.report.svg import SHAPES, Drawing, text_width
from rank_rl.report.tables import Table

WIDE, NARROW = 720.0, 360.0
COLOURS = 6
FONT = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A value with what it is called, its interval (y) and how large it is drawn."""

    x: float
    y: float
    name: str = ""
    low: float | None = None
    high: float | None = None
    size: float = 3.5
    strong: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together; ``joined`` by a line, ``named`` one by one."""

    name: str
    points: tuple[Point, ...]
    joined: bool = True
    named: bool = False
    style: int = 0

    @property
    def shape(self) -> str:
        """The mark of its points."""
        return SHAPES[self.style % len(SHAPES)]

    @property
    def colour(self) -> str:
        """Classes of its colour and dash."""
        return f"s{self.style % COLOURS} d{self.style // COLOURS % 3}"

    @property
    def swatch(self) -> Markup:
        """What its line and mark look like, for the legend."""
        drawing = Drawing(28, 12)
        if self.joined:
            drawing.line((0, 6), (28, 6), f"line {self.colour}")
        drawing.mark((14, 6), self.shape, f"point {self.colour}", size=3.5)
        return drawing.hidden("swatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis shows; ``bounds`` None takes them from the values."""

    title: str
    log: bool = False
    bounds: tuple[float, float] | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series on two axes.

    Attributes:
        title, description: what it shows, and in words what is to be seen in it.
        references: horizontal lines by name.
        path: points of a line of its own, such as a frontier or a diagonal.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    references: tuple[tuple[str, float], ...] = ()
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart on the page: its pictures, a legend where there are several series, its numbers."""

    name: str
    chart: Chart
    table: Table
    pictures: tuple[Markup, ...]
    note: str = ""

    @property
    def legend(self) -> tuple[Series, ...]:
        """Series that need a name beside the picture."""
        return tuple(s for s in self.chart.series if s.name and not s.named)


def figure(name: str, chart: Chart, table: Table, *, large: bool = False, note: str = "") -> Figure:
    """A chart as a figure; a ``large`` one is drawn for wide pages and for phones.

    Args:
        name: what its ids begin with; letters, digits and hyphens.
        chart, table: what is drawn, and the same as numbers.
        note: a sentence below it.
    """
    widths = (("wide", WIDE), ("narrow", NARROW)) if large else (("small", NARROW),)
    pictures = tuple(
        drawn(chart, width).picture(f"{name}-{style}", chart.title, chart.description, style)
        for style, width in widths
    )
    return Figure(name=name, chart=chart, table=table, pictures=pictures, note=note)


def drawn(chart: Chart, width: float) -> Drawing:
    """Draw a chart ``width`` pixels wide."""
    drawing = Drawing(width, round(width * (0.55 if width > NARROW else 0.72)))
    x, y = _scales(chart, drawing)
    _axes(drawing, chart, x, y)
    for name, at, base in _references(chart, y):
        drawing.line((x.start, at), (x.end, at), "reference")
        drawing.text((x.end - 2, base), name, "reference-name", "end")
    if chart.path:
        drawing.path([(x.place(a), y.place(b)) for a, b in chart.path], "frontier")
    for series in chart.series:
        _series(drawing, series, x, y)
    _names(drawing, chart, x, y)
    return drawing


def _scales(chart: Chart, drawing: Drawing) -> tuple[Scale, Scale]:
    points = [p for s in chart.series for p in s.points]
    heights = [p.y for p in points] + [v for _, v in chart.references]
    heights += [v for p in points for v in (p.low, p.high) if v is not None]
    across = [p.x for p in points]
    lows, highs = chart.x.bounds or (around_log(across) if chart.x.log else around(across))
    bottom, top = chart.y.bounds or around(heights)
    labels = Scale(low=bottom, high=top, start=1, end=0).ticks()
    left = 28 + max(text_width(label(v), FONT) for v in labels)
    return (
        Scale(low=lows, high=highs, start=left, end=drawing.width - 10, log=chart.x.log),
        Scale(low=bottom, high=top, start=drawing.height - 40, end=10),
    )


def _axes(drawing: Drawing, chart: Chart, x: Scale, y: Scale) -> None:
    for value in y.ticks():
        at = y.place(value)
        drawing.line((x.start, at), (x.end, at), "grid")
        drawing.text((x.start - 6, at + 4), label(value), "tick", "end")
    for value in x.ticks(9 if drawing.width > NARROW else 6):
        if chart.x.whole and value != int(value):
            continue
        at = x.place(value)
        drawing.line((at, y.start), (at, y.start + 4), "axis")
        drawing.text((at, y.start + 17), label(value), "tick", "middle")
    drawing.line((x.start, y.start), (x.end, y.start), "axis")
    drawing.text(((x.start + x.end) / 2, drawing.height - 6), chart.x.title, "title", "middle")
    drawing.turned((12, (y.start + y.end) / 2), chart.y.title, "title")


def _references(chart: Chart, y: Scale) -> list[tuple[str, float, float]]:
    """Horizontal lines: name, height, and where the name stands, below where one is just above."""
    found: list[tuple[str, float, float]] = []
    for name, value in sorted(chart.references, key=lambda r: -r[1]):
        at = y.place(value)
        near = any(at - other < FONT + 6 for _, other, _ in found)
        found.append((name, at, at + FONT if near else at - 4))
    return found


def _series(drawing: Drawing, series: Series, x: Scale, y: Scale) -> None:
    places = [(x.place(p.x), y.place(p.y)) for p in series.points]
    bounded = [p for p in series.points if p.low is not None and p.high is not None]
    if series.joined and len(bounded) > 1 and len(bounded) == len(series.points):
        upper = [(x.place(p.x), y.place(p.high or 0.0)) for p in bounded]
        lower = [(x.place(p.x), y.place(p.low or 0.0)) for p in reversed(bounded)]
        drawing.path([*upper, *lower], f"band {series.colour}", closed=True)
    elif bounded:
        for p in bounded:
            at = x.place(p.x)
            drawing.line((at, y.place(p.low or 0.0)), (at, y.place(p.high or 0.0)), "error")
    if series.joined and len(places) > 1:
        drawing.path(places, f"line {series.colour}")
    for point, place in zip(series.points, places, strict=True):
        style = f"point {series.colour}" + ("" if point.strong else " hollow")
        title = point.name or f"{series.name}: {label(point.x)}, {label(point.y)}"
        drawing.mark(place, series.shape, style, size=point.size, title=title)


def _names(drawing: Drawing, chart: Chart, x: Scale, y: Scale) -> None:
    """The names of points beside them, where they hide nothing."""
    every = [(p, s.named) for s in chart.series for p in s.points]
    wanted = [
        Label(text=p.name.split("\n")[0], x=x.place(p.x), y=y.place(p.y)) for p, n in every if n
    ]
    if not wanted:
        return
    lines = _references(chart, y)
    taken = [(x.end - text_width(n, FONT), base - FONT, x.end, base) for n, _, base in lines]
    taken += [(x.start, at - 1, x.end, at + 1) for _, at, _ in lines]
    for found in placed(wanted, taken, (x.start, y.end, x.end, y.start), FONT):
        if found.far:
            drawing.line((found.x, found.y), (found.anchor_x, found.anchor_y), "leader")
        drawing.text((found.left, found.base), found.text, "name")
