"""Where a system's quality comes from: position, calibration, formatting, failures, wins.

Contract: measured by the benchmark and only shown here; what a result does not have is left out.
Wins and losses alone are counted here, from the values of each query, where an old result does not
have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl.report import shape, shown, sparks
from rank_rl.report.charts import Axis, Chart, Figure, Point, Series, figure
from rank_rl.report.differences import bounds, difference
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Table, names, numbers, text

TIE = 1e-9
OUTCOMES = ("win", "tie", "loss")
STATUSES = ("ok", "repaired", "failed")
Found = list[tuple[str, Any]]  # system and what was found about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question of the diagnosis: a heading, what to see, and figures or tables."""

    title: str
    words: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def parts(source: Source) -> list[Part]:
    """What this result can say, in a fixed order."""
    made = [_position(source), _calibration(source), _formatting(source), _failures(source)]
    return [part for part in (*made, _wins(source)) if part is not None]


def counted(source: Source, system: str, baseline: str) -> tuple[int, int, int] | None:
    """Queries that a system wins, ties and loses against a baseline in the main metric."""
    values = source.result["per_query"]
    one = (values.get(system) or {}).get(source.metric)
    other = (values.get(baseline) or {}).get(source.metric)
    if not one or not other:
        return None
    gaps = [one[q] - other[q] for q in one if q in other]
    wins, losses = sum(g > TIE for g in gaps), sum(g < -TIE for g in gaps)
    return wins, len(gaps) - wins - losses, losses


def _each(source: Source, key: str) -> Found:
    return [
        (s["name"], s["diagnosis"][key]) for s in source.result["systems"] if s["diagnosis"].get(key)
    ]  # fmt: skip


def _position(source: Source) -> Part | None:
    found = _each(source, "position")
    if not found:
        return None
    series = tuple(
        Series(
            name=name,
            points=tuple(
                Point(x=p["input_rank"], y=p["mean_gain"]) for p in position.get("promotion") or []
            ),
            style=number,
        )
        for number, (name, position) in enumerate(found)
    )
    words = [f"{name}: consistency {shown.score(p.get('consistency'))}" for name, p in found]
    chart = Chart(
        title=f"Places gained by position in the input, {source.label}",
        description=f"A system without position bias is flat over shuffles. {'; '.join(words)}.",
        x=Axis(title="position in the input", whole=True),
        y=Axis(title="places gained on average"),
        series=tuple(s for s in series if s.points),
        references=(("no move", 0.0),),
    )
    drawn = [figure(f"{source.slug}-position", chart, _promotions(source, found), large=True)]
    columns = (*names("system"), *numbers("consistency (tau)", "queries", "shuffles"))
    rows = tuple(
        (
            text(name),
            Cell(text=shown.score(p.get("consistency")), value=p.get("consistency")),
            *(Cell(text=shown.count(p.get(k)), value=p.get(k)) for k in ("queries", "shuffles")),
        )
        for name, p in found
    )
    caption = f"Agreement of rankings under other input orders, {source.label}"
    return Part(
        title="Position bias",
        words="The same queries were ranked again with their candidates in random orders. "
        "Consistency is the mean Kendall tau of the rankings of one query (1: the order shown "
        "does not matter).",
        figures=tuple(drawn) if chart.series else (),
        tables=(Table(caption=caption, columns=columns, rows=rows),),
    )


def _promotions(source: Source, found: Found) -> Table:
    by_rank: dict[int, dict[str, float]] = {}
    shares: dict[str, dict[int, float]] = {}
    for name, position in found:
        for point in position.get("promotion") or []:
            by_rank.setdefault(point["input_rank"], {})[name] = point["mean_gain"]
        shares[name] = _shares(position.get("top1_share") or [])
    titles = [t for name, _ in found for t in (f"{name}: gain", f"{name}: put first")]
    rows = tuple(
        (
            Cell(text=str(rank), value=float(rank)),
            *(
                cell
                for name, _ in found
                for cell in (
                    Cell(text=shown.signed(gains.get(name)), value=gains.get(name)),
                    Cell(text=shown.percent(shares[name].get(rank)), value=shares[name].get(rank)),
                )
            ),
        )
        for rank, gains in sorted(by_rank.items())
    )
    caption = f"Places gained, and share put first, by position in the input, {source.label}"
    columns = numbers("position", *titles)
    return Table(caption=caption, columns=columns, rows=rows).filled()


def _shares(listed: Sequence[Any]) -> dict[int, float]:
    """Share of being put first by input rank, given as numbers or as objects."""
    found = {}
    for rank, item in enumerate(listed, start=1):
        if isinstance(item, Mapping):
            number = shown.number(item.get("share"))
            rank = int(item.get("input_rank", rank))
        else:
            number = shown.number(item)
        if number is not None:
            found[rank] = number
    return found


def _calibration(source: Source) -> Part | None:
    found = _each(source, "calibration")
    if not found:
        return None
    drawn = tuple(_reliability(source, n, name, c) for n, (name, c) in enumerate(found))
    columns = (*names("system"), *numbers("ECE"), *names("confidence is"))
    rows = tuple(
        (
            text(name),
            Cell(text=shown.score(c.get("ece")), value=c.get("ece")),
            text(c.get("basis") or ""),
        )
        for name, c in found
    )
    caption = f"Expected calibration error (0: calibrated), {source.label}"
    return Part(
        title="Calibration",
        words="Documents by the confidence that they are relevant, against the share that is. "
        "On the diagonal a system means what it says; larger points hold more documents.",
        figures=drawn,
        tables=(Table(caption=caption, columns=columns, rows=rows),),
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


def _formatting(source: Source) -> Part | None:
    rows = [
        (name, variant)
        for name, found in _each(source, "formatting")
        for variant in found.get("variants") or []
    ]
    if not rows:
        return None
    axis = bounds([variant for _, variant in rows])
    columns = (
        *names("system", "documents written"),
        *numbers(f"difference in {source.metric}"),
        Column(title="interval", drawn=True),
        *numbers("tau with the usual order"),
    )
    cells = tuple(
        (
            text(name),
            text(v["name"]),
            *difference(v, axis),
            Cell(text=shown.score(v.get("tau")), value=v.get("tau")),
        )
        for name, v in rows
    )
    caption = f"Documents written in other ways, {source.label}"
    return Part(
        title="Formatting",
        words="The same queries were ranked again with documents written in other ways; a ranking "
        "should not depend on that.",
        tables=(Table(caption=caption, columns=columns, rows=cells),),
    )


def _failures(source: Source) -> Part | None:
    systems = [s for s in source.result["systems"] if sum(s["statuses"].values())]
    if not systems:
        return None
    rows = []
    for system in systems:
        values = [float(system["statuses"].get(status, 0)) for status in STATUSES]
        cells = [Cell(text=shown.count(v), value=v) for v in values]
        rows.append(
            (text(system["name"]), *cells, Cell(plot=sparks.parts(values, STATUSES)))
        )  # fmt: skip
    columns = (*names("system"), *numbers(*STATUSES), Column(title="shares", drawn=True))
    tables = [Table(caption=f"Answers (or label slots) by how they could be read, {source.label}",
                    columns=columns, rows=tuple(rows))]  # fmt: skip
    kinds = [(s["name"], s["diagnosis"].get("failures") or s["issues"]) for s in systems]
    known = dict.fromkeys(k for _, found in kinds for k in found)
    if known:
        cells_by_kind = tuple(
            (
                text(kind),
                *(Cell(text=shown.count(f.get(kind)), value=f.get(kind)) for _, f in kinds),
            )
            for kind in known
        )
        columns = (*names("kind"), *numbers(*(name for name, _ in kinds)))
        caption = f"Failures by kind, {source.label}"
        tables.append(Table(caption=caption, columns=columns, rows=cells_by_kind))
    return Part(
        title="Answers that could not be read",
        words="A failed answer counts as the first-stage order; a repaired one broke a rule of "
        "its format.",
        tables=tuple(tables),
    )


def _wins(source: Source) -> Part | None:
    rows = [
        (name, baseline, *found)
        for baseline in _compared_with(source)
        for name in (s["name"] for s in shape.asked(source.result))
        if name != baseline and (found := counted(source, name, baseline)) is not None
    ]
    if not rows:
        return None
    cells = tuple(
        (text(name), text(baseline), *_outcomes((wins, ties, losses)))
        for name, baseline, wins, ties, losses in rows
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
        "are equal.",
        tables=(Table(caption=caption, columns=columns, rows=cells), *_sliced(source)),
    )


def _compared_with(source: Source) -> list[str]:
    named = list(shape.baselines(source.result))
    first = shape.first_stage(source.result)
    return named or ([first["name"]] if first else [])


def _outcomes(values: tuple[float, float, float]) -> tuple[Cell, ...]:
    cells = [Cell(text=shown.count(v), value=v) for v in values]
    return (*cells, Cell(plot=sparks.parts(values, OUTCOMES)))


def _sliced(source: Source) -> Iterator[Table]:
    """Wins and losses by type and by length of the query, where the result has them."""
    found = _each(source, "wins")
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
