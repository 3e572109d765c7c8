"""What the parts of the diagnosis have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rank_rl.report.charts import Figure
from rank_rl.report.reading import Source
from rank_rl.report.tables import Table

Found = list[tuple[str, Any]]  # system, and what was found about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question of the diagnosis: a heading, what to see, and figures or tables."""

    title: str
    words: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def each(source: Source, key: str) -> Found:
    """The systems about which a diagnosis says something, in the order of the recipe."""
    systems = source.result["systems"]
    return [(s["name"], s["diagnosis"][key]) for s in systems if s["diagnosis"].get(key)]
