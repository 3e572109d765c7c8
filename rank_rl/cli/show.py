"""Printing for people: summaries, tables and paths, with rich, on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """A console on stdout that leaves the colours of numbers and paths alone."""
    return Console(highlight=False, soft_wrap=True)


def line(text: str, style: str = "") -> None:
    """Print text as it is, without markup or wrapping."""
    console().print(Text(text, style=style))


def heading(text: str) -> None:
    """Print a heading below an empty line."""
    line(f"\n{text}", style="bold")


def show_summary(summary: Mapping[str, Any]) -> None:
    """Print a stage's summary: its ``table`` if it has one, then its other values."""
    if summary.get("table"):
        show_table(summary["table"])
    for key, value in summary.items():
        if key != "table":
            _show_value(key, value, indent=2)


def _show_value(key: str, value: Any, indent: int) -> None:
    """One line for a value; nested values below their key, two levels deep."""
    start = " " * indent + f"{key}:"
    if isinstance(value, Mapping) and indent < 6:
        line(start)
        for name, inner in value.items():
            _show_value(str(name), inner, indent + 2)
    elif isinstance(value, (list, tuple)) and any(isinstance(v, str) for v in value):
        line(start)
        for item in value:
            line(" " * indent + f"  {plain(item)}")
    else:
        line(f"{start} {plain(value)}")


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with one column for each key; wide ones in parts that repeat the first column.

    Numbers are written to three digits, and columns that are empty in all rows are left out.
    """
    cells = [{key: plain(value) for key, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(key for row in cells for key in row))
    filled = [key for key in columns if any(row.get(key) for row in cells)]
    widths = {key: _width(key, [row.get(key, "") for row in cells]) for key in filled}
    out = console()
    for part in _parts(filled, widths, out.width):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
        for key in part:
            left = key == filled[0] or any(isinstance(row.get(key), str) for row in rows)
            numeric = all(_is_number(row.get(key, "")) for row in cells)
            table.add_column(
                key, justify="left" if left and not numeric else "right", min_width=widths[key]
            )
        for row in cells:
            table.add_row(*(Text(row.get(key, "")) for key in part))
        out.print(table, soft_wrap=False)


def _parts(columns: Sequence[str], widths: Mapping[str, int], room: int) -> list[list[str]]:
    """Columns in as few tables as fit next to each other, each beginning with the first."""
    if not columns:
        return []
    first = columns[0]
    gap = 3  # padding and the line between columns
    start = widths[first] + gap + 1
    parts, used = [[first]], start
    for key in columns[1:]:
        if used + widths[key] + gap > room and len(parts[-1]) > 1:
            parts.append([first])
            used = start
        parts[-1].append(key)
        used += widths[key] + gap
    return parts


def _width(key: str, cells: Sequence[str]) -> int:
    """The longest cell or word of the heading; longer than 24 may be folded."""
    return min(24, max(map(len, [*key.split(), *cells])))


def _is_number(text: str) -> bool:
    return not text or text[0] in "-+<0123456789"


def plain(value: Any) -> str:
    """A value as a reader wants it: numbers to three digits, mappings and lists on one line."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) >= 1000
        small = 0 < abs(value) < 0.001
        return f"{value:.0f}" if whole else f"{value:.2g}" if small else f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    return str(value)


def show_checkpoint_use(checkpoint: str) -> None:
    """Say how to rerank with a checkpoint, on the command line and in Python."""
    line("\nRerank with it:")
    line(f'  rank-rl rerank --model {checkpoint} --query "…" --documents docs.jsonl')
    line("or in Python:")
    line("  from rank_rl import Reranker")
    line(f'  reranker = Reranker.from_pretrained("{checkpoint}")')
    line('  reranker.rank("…", ["…", "…"], explain=True)')
