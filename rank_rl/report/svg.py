"""SVG by hand: a drawing collects shapes whose colours come from the page's style sheet.

Contract: coordinates are pixels of the drawing, y downwards, rounded to tenths, so that the same
values give the same text; every text is escaped. What is drawn is said by a title and a
description; small drawings beside their own numbers are hidden from screen readers instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from rank_rl.report.safe import clean

Point = tuple[float, float]
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
TEXT_WIDTH = 0.6  # mean width of a character of the usual sans-serif fonts, in font sizes


class Drawing:
    """A picture of ``width`` times ``height`` pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, start: Point, end: Point, style: str) -> None:
        """A straight line of a class of the style sheet."""
        (x1, y1), (x2, y2) = start, end
        place = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
        self._parts.append(f'<line {place} class="{style}"/>')

    def path(self, points: Sequence[Point], style: str, *, closed: bool = False) -> None:
        """A line through points, or an area."""
        steps = " ".join(f"{'L' if i else 'M'}{_n(x)} {_n(y)}" for i, (x, y) in enumerate(points))
        self._parts.append(f'<path d="{steps}{"Z" if closed else ""}" class="{style}"/>')

    def rect(self, corner: Point, size: Point, style: str, title: str = "") -> None:
        """A rectangle by its upper left corner."""
        (x, y), (w, h) = corner, size
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
        self._parts.append(_with_title(f'<rect {place} class="{style}"', title))

    def text(self, at: Point, text: str, style: str = "", anchor: str = "start") -> None:
        """A text whose base line begins, ends or is centred at a point."""
        place = f'x="{_n(at[0])}" y="{_n(at[1])}" text-anchor="{anchor}" class="{style}"'
        self._parts.append(f"<text {place}>{escape(clean(text))}</text>")

    def turned(self, at: Point, text: str, style: str = "") -> None:
        """A text that runs upwards, centred at a point."""
        x, y = _n(at[0]), _n(at[1])
        place = f'x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})"'
        self._parts.append(f'<text {place} class="{style}">{escape(clean(text))}</text>')

    def mark(self, at: Point, shape: str, style: str, *, size: float = 4, title: str = "") -> None:
        """A point as one of ``SHAPES``; ``size`` is about its radius."""
        x, y = at
        if shape == "circle":
            found = f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}" class="{style}"'
        elif shape == "square":
            side, corner = _n(2 * size * 0.9), (_n(x - size * 0.9), _n(y - size * 0.9))
            found = f'<rect x="{corner[0]}" y="{corner[1]}" width="{side}" height="{side}"'
            found += f' class="{style}"'
        else:
            found = f'<path d="{_outline(x, y, shape, size * 1.25)}" class="{style}"'
        self._parts.append(_with_title(found, title))

    def picture(self, name: str, title: str, description: str, style: str = "") -> Markup:
        """The drawing with its title and description, whose ids begin with ``name``."""
        said = (
            f'<title id="{name}-t">{escape(clean(title))}</title>'
            f'<desc id="{name}-d">{escape(clean(description))}</desc>'
        )
        names = f'role="img" aria-labelledby="{name}-t" aria-describedby="{name}-d"'
        return self._whole(f"{names} {self._class(style)}", said)

    def hidden(self, style: str) -> Markup:
        """The drawing for the eye alone."""
        size = f'width="{_n(self.width)}" height="{_n(self.height)}"'
        return self._whole(f'{size} aria-hidden="true" focusable="false" {self._class(style)}', "")

    @staticmethod
    def _class(style: str) -> str:
        return f'class="{style}"'

    def _whole(self, attributes: str, head: str) -> Markup:
        box = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        return Markup(f"<svg {box} {attributes}>{head}{''.join(self._parts)}</svg>")


def text_width(text: str, size: float) -> float:
    """About how wide a text of a font size is."""
    return len(text) * size * TEXT_WIDTH


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _with_title(opened: str, title: str) -> str:
    if not title:
        return f"{opened}/>"
    name = opened[1:].split(" ", 1)[0]
    return f"{opened}><title>{escape(clean(title))}</title></{name}>"


def _outline(x: float, y: float, shape: str, size: float) -> str:
    if shape == "triangle":
        points = [(0.0, -size), (size * 0.95, size * 0.75), (-size * 0.95, size * 0.75)]
    elif shape == "diamond":
        points = [(0.0, -size), (size, 0.0), (0.0, size), (-size, 0.0)]
    else:  # cross
        a = size * 0.35
        points = [
            (-a, -size), (a, -size), (a, -a), (size, -a), (size, a), (a, a),
            (a, size), (-a, size), (-a, a), (-size, a), (-size, -a), (-a, -a),
        ]  # fmt: skip
    return "M" + "L".join(f"{_n(x + dx)} {_n(y + dy)}" for dx, dy in points) + "Z"
