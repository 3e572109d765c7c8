"""Names beside the points of a chart: each where it covers no other name and no point.

Contract: greedy and the same for the same points. A name that fits nowhere near its point stands
further above or below it, and a thin line leads there; a long one is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rank_rl.report.safe import shortened
from rank_rl.report.svg import text_width

Box = tuple[float, float, float, float]  # left, top, right, bottom
GAP, RADIUS = 7.0, 5.0
LONGEST = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A name and its point."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a name is written; ``far`` when a line has to lead to it, from point to anchor."""

    text: str
    x: float
    y: float
    left: float
    base: float
    far: bool
    anchor_x: float
    anchor_y: float


def placed(labels: Sequence[Label], taken: Sequence[Box], area: Box, size: float) -> list[Placed]:
    """Find a place for every name.

    Args:
        labels: names with their points.
        taken: places that are not free.
        area: where names may stand.
        size: of the font, in pixels.
    """
    boxes = [*taken, *((p.x - RADIUS, p.y - RADIUS, p.x + RADIUS, p.y + RADIUS) for p in labels)]
    found: dict[int, Placed] = {}
    for index in sorted(range(len(labels)), key=lambda i: (labels[i].y, labels[i].x)):
        best = _best(labels[index], boxes, area, size)
        found[index] = best
        boxes.append(_box(best.text, best.left, best.base, size))
    return [found[i] for i in range(len(labels))]


def _best(point: Label, boxes: Sequence[Box], area: Box, size: float) -> Placed:
    """The first place that is free, or else the one that covers least."""
    text = shortened(point.text, LONGEST)
    width = text_width(text, size)
    options = []
    for far in range(9):
        away = far * size * 1.1
        for base in dict.fromkeys((point.y + size * 0.35 - away, point.y + size * 0.35 + away)):
            options += [(point.x + GAP, base, far), (point.x - GAP - width, base, far)]
        if not far:
            middle = point.x - width / 2
            options += [(middle, point.y - GAP, 0), (middle, point.y + GAP + size * 0.8, 0)]
    scored = []
    for number, (left, base, far) in enumerate(options):
        box = _box(text, left, base, size)
        covered = sum(_overlap(box, other) for other in boxes) + 10 * _outside(box, area)
        scored.append((covered, number, left, base, far > 1))
        if not covered:
            break
    _, _, left, base, is_far = min(scored)
    ahead = left > point.x
    return Placed(
        text=text,
        x=point.x,
        y=point.y,
        left=left,
        base=base,
        far=is_far,
        anchor_x=left - 1 if ahead else left + width + 1,
        anchor_y=base - size * 0.35,
    )


def _box(text: str, left: float, base: float, size: float) -> Box:
    return left, base - size * 0.8, left + text_width(text, size), base + size * 0.2


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, area: Box) -> float:
    left, top, right, bottom = area
    across = max(0.0, left - box[0]) + max(0.0, box[2] - right)
    down = max(0.0, top - box[1]) + max(0.0, box[3] - bottom)
    return across * 12 + down * 12
