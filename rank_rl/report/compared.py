"""A comparison as tables, for page, Markdown and terminal.

Contract: differences are the second minus the first, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

from rank_rl.report import shown as numbers
from rank_rl.report.compare import Change, Comparison, Ranked
from rank_rl.report.diagnosis import OUTCOMES
from rank_rl.report.differences import bounds, difference
from rank_rl.report.sparks import parts
from rank_rl.report.tables import Cell, Column, Table, names, text
from rank_rl.report.tables import numbers as columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A comparison ready to print.

    ``gains`` and ``falls`` list the queries that changed most; ``gained`` and ``lost`` hold the
    same ones, each with its values in words and both orders as a table.
    """

    slug: str
    comparison: Comparison
    summary: Table
    gains: Table
    falls: Table
    gained: tuple[tuple[Change, str, Table], ...]
    lost: tuple[tuple[Change, str, Table], ...]


def shown(found: Comparison, slug: str) -> Shown:
    """A comparison as tables; ``slug`` begins the ids of its place on the page."""
    metric = found.measured[0].metric
    return Shown(
        slug=slug,
        comparison=found,
        summary=summary(found),
        gains=changes(found.gains, f"Queries that gained most in {metric}", found),
        falls=changes(found.falls, f"Queries that lost most in {metric}", found),
        gained=tuple((c, _said(c), _orders(c, found)) for c in found.gains),
        lost=tuple((c, _said(c), _orders(c, found)) for c in found.falls),
    )


def summary(found: Comparison) -> Table:
    """One row a metric: both means, the difference, p, and queries won, tied and lost."""
    rows = [asdict(m) for m in found.measured]
    axis = bounds(rows)
    columns = (
        *names("metric"),
        *columns_of(found.first, found.second, "difference"),
        Column(title="interval", drawn=True),
        *columns_of("p", "wins", "ties", "losses"),
        Column(title="shares", drawn=True),
    )
    cells = []
    for row in rows:
        outcomes = [row["wins"], row["ties"], row["losses"]]
        cells.append(
            (
                text(row["metric"]),
                *(Cell(text=numbers.score(row[k]), value=row[k]) for k in ("first", "second")),
                *difference(row, axis),
                Cell(text=numbers.probability(row["p"]), value=row["p"]),
                *(Cell(text=numbers.count(n), value=n) for n in outcomes),
                Cell(plot=parts(outcomes, OUTCOMES)),
            )
        )
    caption = f"{found.second} against {found.first}, {found.queries:,} queries"
    return Table(caption=caption, columns=columns, rows=tuple(cells))


def changes(listed: Sequence[Change], caption: str, found: Comparison) -> Table:
    """Queries with both values and their difference."""
    rows = tuple(
        (
            text(c.query),
            *(Cell(text=numbers.score(v), value=v) for v in (c.first, c.second)),
            Cell(text=numbers.signed(c.second - c.first), value=c.second - c.first),
        )
        for c in listed
    )
    columns = (*names("query"), *columns_of(found.first, found.second, "difference"))
    return Table(caption=caption, columns=columns, rows=rows)


def _said(change: Change) -> str:
    gap = numbers.signed(change.second - change.first)
    return f"{numbers.score(change.first)} → {numbers.score(change.second)} ({gap})"


def _orders(change: Change, found: Comparison) -> Table:
    pairs = zip_longest(change.before, change.after)
    rows = tuple(
        (Cell(text=str(rank), value=float(rank)), _document(a), _document(b))
        for rank, (a, b) in enumerate(pairs, start=1)
    )
    columns = (Column(title="rank"), *names(found.first, found.second))
    return Table(caption=f"Both orders of: {change.query}", columns=columns, rows=rows)


def _document(document: Ranked | None) -> Cell:
    if document is None:
        return Cell()
    grade = "unjudged" if document.grade is None else f"grade {document.grade}"
    said = f"[{grade}] " if document.judged else ""
    return Cell(text=f"{said}{document.text or document.docid}", value=document.docid)
