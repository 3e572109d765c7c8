"""From values to places on an axis, and the values at which an axis has its marks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear or logarithmic axis from ``low`` to ``high``, drawn from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies; outside the axis it lies at its end."""
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        share = 0.5 if high == low else (at - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """At most about ``most`` round values on the axis, in order."""
        return _log_ticks(self.low, self.high, most) if self.log else self._linear(most)

    def _linear(self, most: int) -> list[float]:
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        size = 10 ** math.floor(math.log10(span / most))
        step = next(size * s for s in (*STEPS, 20) if span / (size * s) <= most)
        first = math.ceil(self.low / step - 1e-9)
        count = int(math.floor(self.high / step + 1e-9)) - first + 1
        return [round((first + i) * step, 12) + 0.0 for i in range(count)]


def around(values: Iterable[float], *, share: float = 0.06) -> tuple[float, float]:
    """Bounds of a linear axis that shows all values with a little room."""
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def around_log(values: Iterable[float]) -> tuple[float, float]:
    """Bounds of a logarithmic axis that shows all (positive) values with a little room."""
    found = [v for v in values if v > 0]
    low, high = (min(found), max(found)) if found else (1.0, 10.0)
    factor = max((high / low) ** 0.08, 1.25)
    return low / factor, high * factor


def label(value: float) -> str:
    """A value as an axis shows it, with a real minus sign."""
    return _label(value).replace("-", "−")


def _label(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for marks in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [m * 10.0**e for e in range(first, last + 1) for m in marks]
        shown = [v for v in values if low <= v <= high]
        if len(shown) <= most:
            break
    return shown[:: max(1, math.ceil(len(shown) / most))] or [math.sqrt(low * high)]
