"""Tables as the report makes them: one form for page, Markdown and terminal.

Contract: the first cell of a row names it. A cell holds the text that is printed and the value that
it is sorted by; columns that are empty in every row are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Sortable = float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A difference from a baseline that is significant: ``+a`` better, ``-a`` worse."""

    letter: str
    baseline: str
    better: bool

    @property
    def text(self) -> str:
        """As the tables print it."""
        return f"{'+' if self.better else '-'}{self.letter}"

    @property
    def spoken(self) -> str:
        """As a screen reader says it."""
        return f"significantly {'better' if self.better else 'worse'} than {self.baseline}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: what is printed.
        value: what it is sorted by; None comes last.
        detail: what stands smaller beside it, such as an interval.
        marks: significant differences.
        plot: a small drawing, on the page alone; what it shows is in the texts too.
        warn: what is wrong with this row, in words.
    """

    text: str = ""
    value: Sortable = None
    detail: str = ""
    marks: tuple[Mark, ...] = ()
    plot: str = ""
    warn: str = ""

    @property
    def plain(self) -> str:
        """All of it as one text."""
        parts = [self.text, f"({self.detail})" if self.detail else ""]
        return " ".join(p for p in (*parts, "".join(m.text for m in self.marks)) if p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column's heading; ``help`` says what it holds, ``drawn`` that it is on the page alone."""

    title: str
    help: str = ""
    numeric: bool = True
    drawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under columns; ``kinds`` names what each row is, for the filter."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kinds: tuple[str, ...] = ()

    def filled(self) -> Table:
        """Without the columns that are empty in every row."""
        kept = [
            i
            for i in range(len(self.columns))
            if i == 0 or any(row[i].text or row[i].plot for row in self.rows)
        ]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
        )

    def written(self) -> list[dict[str, str]]:
        """Rows by heading, as ``rank_rl.cli.show`` prints them."""
        shown = [(i, c) for i, c in enumerate(self.columns) if not c.drawn]
        return [{c.title: row[i].plain for i, c in shown} for row in self.rows]


def text(value: object, *, by: Sortable = None) -> Cell:
    """A cell of words."""
    return Cell(text=str(value), value=str(value).casefold() if by is None else by)


def names(*titles: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(title=t, numeric=False) for t in titles)


def numbers(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(title=t) for t in titles)


def markdown(table: Table) -> str:
    """A table in Markdown; its caption is left to the caller."""
    rows = table.written()
    if not rows:
        return ""
    columns = [c for c in table.columns if not c.drawn]
    lines = [_line([c.title for c in columns])]
    lines.append("|" + "|".join("---:" if c.numeric else "---" for c in columns) + "|")
    lines += [_line([row[c.title] for c in columns]) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |"


def escaped(value: str) -> str:
    """A cell in which nothing ends it and nothing is read as HTML."""
    one_line = " ".join(value.split())
    for character in ("\\", "|", "<", "`", "*", "_", "[", "]"):
        one_line = one_line.replace(character, f"\\{character}")
    return one_line
