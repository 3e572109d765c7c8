"""Numbers as people read them; the page, the exports and the terminal write them the same way.

Contract: an unknown number is an empty text, never a zero or a dash.
"""

from __future__ import annotations

from typing import Any

LEVEL = 0.05


def score(value: float | None) -> str:
    """A metric, three digits."""
    return "" if value is None else f"{value + 0.0:.3f}"


def signed(value: float | None) -> str:
    """A difference, three digits, always with its sign; what rounds to zero is +0.000."""
    return "" if value is None else f"{round(value, 3) + 0.0:+.3f}"


def between(low: float | None, high: float | None) -> str:
    """An interval of a metric."""
    return "" if low is None or high is None else f"{score(low)}–{score(high)}"


def from_to(low: float | None, high: float | None) -> str:
    """An interval of a difference, where a dash would look like a sign."""
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def probability(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return "" if share is None else f"{share:.{digits}%}".replace("%", " %")


def amount(value: float | None) -> str:
    """A cost: three digits that matter, thousands apart."""
    if value is None:
        return ""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"


def count(value: float | None) -> str:
    """A whole number, thousands apart."""
    return "" if value is None else f"{value:,.0f}"


def word(value: Any) -> str:
    """A setting or a fact as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def number(value: Any) -> float | None:
    """A value of a result file as a number, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(value)
