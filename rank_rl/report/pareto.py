"""Quality against cost: which systems nobody beats in both, for each kind of cost measured.

Contract: only systems with a cost above zero are points; first stage, random order and runs ask
nothing and are lines. A system is on the frontier when no other one costs as little or less and is
better, or costs less and is as good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl.report import shown
from rank_rl.report.charts import Axis, Chart, Figure, Point, Series, figure
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Table, text

System = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A kind of cost: what it is called, its axis, and how much of it a system takes."""

    key: str
    name: str
    axis: str
    of: Callable[[System], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A system with its quality and what it costs."""

    name: str
    quality: float
    low: float
    high: float
    cost: float


def costs(source: Source) -> list[Cost]:
    """Kinds of cost that at least one system has."""
    currency = source.result["currency"]

    def tokens(system: System) -> float | None:
        read = shown.number(system["costs"].get("prompt_tokens"))
        written = shown.number(system["costs"].get("completion_tokens"))
        return None if read is None and written is None else (read or 0.0) + (written or 0.0)

    every = [
        Cost(key="seconds", name="seconds", axis="seconds a query",
             of=lambda s: shown.number(s["costs"].get("seconds"))),
        Cost(key="tokens", name="tokens", axis="tokens a query, read and written", of=tokens),
        Cost(key="price", name="price", axis=f"{currency} for 1000 queries",
             of=lambda s: shown.number((s["price"] or {}).get("per_1000_queries"))),
        Cost(key="latency", name="median seconds", axis="seconds a query, median",
             of=lambda s: shown.number((s["latency"] or {}).get("p50"))),
        Cost(key="energy", name="energy", axis="kWh for 1000 queries",
             of=lambda s: shown.number((s["energy"] or {}).get("kwh_per_1000_queries"))),
    ]  # fmt: skip
    return [c for c in every if priced(source, c)]


def priced(source: Source, cost: Cost) -> list[Priced]:
    """Systems with quality and cost, in the order of the recipe."""
    found = []
    for system in source.result["systems"]:
        quality, value = system["metrics"].get(source.metric), cost.of(system)
        if quality is not None and value:
            found.append(
                Priced(
                    name=system["name"],
                    quality=quality["mean"],
                    low=quality["low"],
                    high=quality["high"],
                    cost=value,
                )
            )
    return found


def frontier(systems: Sequence[Priced]) -> list[Priced]:
    """Those that no other beats in quality and cost, from the cheapest on."""

    def beaten(one: Priced) -> bool:
        return any(
            o.cost <= one.cost
            and o.quality >= one.quality
            and (o.cost < one.cost or o.quality > one.quality)
            for o in systems
        )

    return sorted((s for s in systems if not beaten(s)), key=lambda s: (s.cost, s.quality))


def references(source: Source) -> list[tuple[str, float]]:
    """Systems that ask nothing, as lines; the perfect order would leave the others no room."""
    return [
        (s["name"], s["metrics"][source.metric]["mean"])
        for s in source.result["systems"]
        if not s["model"]
        and not s["costs"]
        and s["kind"] != "perfect"
        and source.metric in s["metrics"]
    ]


def figures(source: Source) -> list[tuple[Cost, Figure]]:
    """A figure for every kind of cost."""
    return [(cost, _figure(source, cost)) for cost in costs(source)]


def _figure(source: Source, cost: Cost) -> Figure:
    systems = priced(source, cost)
    best = frontier(systems)
    points = tuple(
        Point(x=s.cost, y=s.quality, name=s.name, low=s.low, high=s.high, size=4.5,
              strong=s in best)
        for s in systems
    )  # fmt: skip
    listed = ", ".join(f"{s.name} ({shown.amount(s.cost)}, {shown.score(s.quality)})" for s in best)
    chart = Chart(
        title=f"{source.metric} against {cost.axis}, {source.label}",
        description=f"On the frontier, where nothing is better and cheaper at once: {listed}.",
        x=Axis(title=f"{cost.axis} (logarithmic)", log=True),
        y=Axis(title=source.metric),
        series=(Series(name="systems", points=points, joined=False, named=True),),
        references=tuple(references(source)),
        path=tuple((s.cost, s.quality) for s in best),
    )
    note = "Filled points and the line: the frontier. Bars: 95 % intervals over queries."
    return figure(
        f"{source.slug}-cost-{cost.key}",
        chart,
        _table(source, cost, systems, best),
        large=True,
        note=note,
    )


def _table(source: Source, cost: Cost, systems: list[Priced], best: list[Priced]) -> Table:
    rows = tuple(
        (
            text(s.name),
            Cell(text=shown.score(s.quality), value=s.quality, detail=shown.between(s.low, s.high)),
            Cell(text=shown.amount(s.cost), value=s.cost),
            text("yes" if s in best else "no"),
        )
        for s in systems
    )
    columns = (
        Column(title="system", numeric=False),
        Column(title=source.metric),
        Column(title=cost.axis),
        Column(title="on the frontier", numeric=False),
    )
    caption = f"{source.metric} and {cost.axis}, {source.label}"
    return Table(caption=caption, columns=columns, rows=rows)
