"""Small drawings inside table cells: an interval on a common axis, and parts of a whole.

They repeat what the cells beside them say in numbers, so screen readers skip them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rank_rl.report.scales import Scale
from rank_rl.report.svg import Drawing

WIDTH, HEIGHT = 132.0, 18.0
BAR = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def interval(
    value: Spread, bounds: tuple[float, float], *, reference: float | None = None, style: str = ""
) -> Markup:
    """A point with its interval on an axis from ``bounds``; ``reference`` is a thin line."""
    scale = Scale(low=bounds[0], high=bounds[1], start=5, end=WIDTH - 5)
    middle = HEIGHT / 2
    drawing = Drawing(WIDTH, HEIGHT)
    drawing.line((5, middle), (WIDTH - 5, middle), "base")
    if reference is not None:
        at = scale.place(reference)
        drawing.line((at, 1), (at, HEIGHT - 1), "reference")
    low, high = scale.place(value.low), scale.place(value.high)
    drawing.line((low, middle), (high, middle), "whisker")
    drawing.mark((scale.place(value.mean), middle), "circle", "dot", size=3.5)
    return drawing.hidden(f"spark {style}".strip())


def parts(values: Sequence[float], styles: Sequence[str]) -> Markup:
    """Parts of a whole next to each other; nothing at all is an empty bar."""
    total = sum(values)
    drawing = Drawing(WIDTH, HEIGHT)
    drawing.rect((0, (HEIGHT - BAR) / 2), (WIDTH, BAR), "empty")
    at = 0.0
    for value, style in zip(values, styles, strict=True):
        width = WIDTH * value / total if total else 0.0
        if width:
            drawing.rect((at, (HEIGHT - BAR) / 2), (max(width - 1, 0.5), BAR), style)
        at += width
    return drawing.hidden("spark")
