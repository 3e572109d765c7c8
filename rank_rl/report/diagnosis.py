"""Where a system's quality comes from: input order, calibration, formatting, failures, wins.

Contract: measured by the benchmark and only shown here; what a result does not have is left out.
Wins and losses alone are counted here, from the values of each query, so that every result has
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rank_rl.bench.diagnosis import describe
from rank_rl.report import shape, shown, sparks
from rank_rl.report.biases import formatting, position
from rank_rl.report.calibrated import calibration
from rank_rl.report.parts import Part, each
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Table, names, numbers, text

TIE = 1e-9
OUTCOMES = ("win", "tie", "loss")
STATUSES = ("ok", "repaired", "failed")


def parts(source: Source) -> list[Part]:
    """What this result can say, in a fixed order."""
    made = [position(source), formatting(source), calibration(source), failures(source)]
    return [part for part in (*made, wins(source)) if part is not None]


def counted(source: Source, system: str, baseline: str) -> tuple[int, int, int] | None:
    """Queries that a system wins, ties and loses against a baseline in the main metric."""
    values = source.result["per_query"]
    one = (values.get(system) or {}).get(source.metric)
    other = (values.get(baseline) or {}).get(source.metric)
    if not one or not other:
        return None
    gaps = [one[q] - other[q] for q in one if q in other]
    won, lost = sum(g > TIE for g in gaps), sum(g < -TIE for g in gaps)
    return won, len(gaps) - won - lost, lost


def failures(source: Source) -> Part | None:
    """Answers by how they could be read, and what was wrong with them by kind."""
    systems = [s for s in source.result["systems"] if sum(s["statuses"].values())]
    if not systems:
        return None
    rows = []
    for system in systems:
        values = [float(system["statuses"].get(status, 0)) for status in STATUSES]
        cells = [Cell(text=shown.count(v), value=v) for v in values]
        rows.append((text(system["name"]), *cells, Cell(plot=sparks.parts(values, STATUSES))))
    columns = (*names("system"), *numbers(*STATUSES), Column(title="shares", drawn=True))
    caption = f"Answers (or label slots) by how they could be read, {source.label}"
    tables = [Table(caption=caption, columns=columns, rows=tuple(rows))]
    for title, found in (
        ("Failures by kind", {s["name"]: s["diagnosis"].get("failures") or {} for s in systems}),
        ("Rules of the formats that answers broke", {s["name"]: s["issues"] for s in systems}),
    ):
        if table := _kinds(f"{title}, {source.label}", found):
            tables.append(table)
    return Part(
        title="Answers that could not be read",
        words="A failed answer counts as the first-stage order; a repaired one broke a rule of "
        "its format.",
        tables=tuple(tables),
    )


def wins(source: Source) -> Part | None:
    """Queries won and lost against each baseline, and by type and length of the query."""
    rows = [
        (name, baseline, *found)
        for baseline in _compared_with(source)
        for name in (s["name"] for s in shape.asked(source.result))
        if name != baseline and (found := counted(source, name, baseline)) is not None
    ]
    if not rows:
        return None
    cells = tuple(
        (text(name), text(baseline), *_outcomes((won, ties, lost)))
        for name, baseline, won, ties, lost in rows
    )
    columns = (
        *names("system", "against"),
        *numbers("wins", "ties", "losses"),
        Column(title="shares", drawn=True),
    )
    caption = f"Queries won and lost in {source.metric}, {source.label}"
    return Part(
        title="Wins and losses",
        words="A query is won when the system has the higher value on it, and tied when the two "
        "are equal. Nothing is tested within a type or a length; of few queries they say little.",
        tables=(Table(caption=caption, columns=columns, rows=cells), *_sliced(source)),
    )


def _kinds(caption: str, found: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Counts by kind, one column a system, with what each kind means."""
    known = dict.fromkeys(kind for counts in found.values() for kind in counts)
    if not known:
        return None
    rows = tuple(
        (
            text(kind.replace("_", " ")),
            *(Cell(text=shown.count(c.get(kind)), value=c.get(kind)) for c in found.values()),
            text(describe(kind)),
        )
        for kind in known
    )
    columns = (*names("kind"), *numbers(*found), *names("meaning"))
    return Table(caption=caption, columns=columns, rows=rows).filled()


def _compared_with(source: Source) -> list[str]:
    named = list(shape.baselines(source.result))
    first = shape.first_stage(source.result)
    return named or ([first["name"]] if first else [])


def _outcomes(values: tuple[float, float, float]) -> tuple[Cell, ...]:
    cells = [Cell(text=shown.count(v), value=v) for v in values]
    return (*cells, Cell(plot=sparks.parts(values, OUTCOMES)))


def _sliced(source: Source) -> Iterator[Table]:
    """Wins and losses by type and by length of the query, where the result has them."""
    found = each(source, "wins")
    for key, what in (("by_type", "type"), ("by_length", "length")):
        rows = [(n, w.get("baseline", ""), part) for n, w in found for part in w.get(key) or []]
        if not rows:
            continue
        columns = (
            *names("system", "against", f"{what} of the query"),
            *numbers("queries", "difference", "wins", "ties", "losses"),
            Column(title="shares", drawn=True),
        )
        cells = tuple(
            (
                text(name),
                text(baseline),
                text(part["slice"] or "none"),
                Cell(text=shown.count(part["n"]), value=part["n"]),
                Cell(text=shown.signed(part["difference"]), value=part["difference"]),
                *_outcomes((part["wins"], part["ties"], part["losses"])),
            )
            for name, baseline, part in rows
        )
        caption = f"Wins and losses by {what} of the query, {source.label}"
        yield Table(caption=caption, columns=columns, rows=cells)
