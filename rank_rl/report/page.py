"""One HTML page of results: everything in one file, nothing loaded from anywhere.

Contract: the page has at most ``BYTES`` bytes; texts of the explorer are cut, then queries left
out, by the first rule of ``CUTS`` that fits, and the page says which. Scripts that the page did not
bring do not run (content security policy by hash), whatever a document says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import rank_rl
from rank_rl.report import diagnosis, differences, explorer, leaderboard, pareto, provenance
from rank_rl.report import shown as numbers
from rank_rl.report.charts import Figure
from rank_rl.report.compare import Comparison
from rank_rl.report.compared import Shown, shown
from rank_rl.report.explorer import Cut
from rank_rl.report.finding import finding
from rank_rl.report.macro import macro
from rank_rl.report.parts import Part as Question
from rank_rl.report.reading import Source
from rank_rl.report.safe import clean, embedded
from rank_rl.report.tables import Mark, Table
from rank_rl.report.training import Stage

BYTES = 5_800_000
_NEGATIVE = re.compile(r"(?<![\w.,-])-(?=\d)")
CUTS = (
    Cut(),
    *(Cut(characters=n) for n in (8000, 4000, 2000, 1000, 500, 250, 120)),
    *(Cut(characters=120, queries=q) for q in (1000, 500, 300, 200, 150, 100, 60, 30, 10, 0)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a page shows."""

    sources: Sequence[Source]
    stages: Sequence[Stage] = ()
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the template needs of one result."""

    source: Source
    facts: list[tuple[str, str]]
    finding: str
    rules: list[str]
    leaderboard: Table
    legend: list[Mark]
    warnings: dict[str, list[str]]
    costs: list[tuple[pareto.Cost, Figure]]
    steps: Table | None
    other_steps: Table | None
    diagnosis: list[Question]
    sensitivity: Table | None
    provenance: provenance.Provenance
    data: Markup = Markup("{}")
    cut: Cut = Cut()


def page(content: Content) -> str:
    """The page as HTML."""
    parts = [_part(source) for source in content.sources]
    table, said = macro(content.sources)
    compared = [shown(c, f"compare-{i}") for i, c in enumerate(content.comparisons, start=1)]
    base = len(_render(content, parts, table, said, compared).encode())
    data, cut = _fitting(content.sources, BYTES - base)
    return _render(content, parts, table, said, compared, data=data, cut=cut)


def titled(sources: Sequence[Source]) -> str:
    """The benchmark's name; of several benchmarks, how many results there are."""
    names = {str(source.result["name"] or source.label) for source in sources}
    return names.pop() if len(names) == 1 else f"{len(sources)} results"


def _part(source: Source) -> Part:
    return Part(
        source=source,
        facts=provenance.headline(source),
        finding=finding(source),
        rules=provenance.rules(source),
        leaderboard=leaderboard.leaderboard(source),
        legend=leaderboard.legend(source),
        warnings=leaderboard.warnings(source),
        costs=pareto.figures(source),
        steps=differences.steps(source, [source.metric]),
        other_steps=differences.steps(source, source.result["metrics"][1:]),
        diagnosis=diagnosis.parts(source),
        sensitivity=differences.sensitivity(source),
        provenance=provenance.provenance(source),
    )


def _fitting(sources: Sequence[Source], room: int) -> tuple[list[Markup], Cut]:
    """The explorers' data under the first rule that fits into ``room`` bytes.

    Each rule gives less than the one before it, so that halving finds the first.
    """
    made: dict[int, list[Markup]] = {}

    def fits(rule: int) -> bool:
        made[rule] = [embedded(explorer.data(source, CUTS[rule])) for source in sources]
        return sum(len(text.encode()) for text in made[rule]) <= room

    low, high = 0, len(CUTS) - 1
    if not fits(0):
        low = min(1, high)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
    if low not in made:
        fits(low)
    return made[low], CUTS[low]


def _render(
    content: Content,
    parts: Sequence[Part],
    table: Table | None,
    said: str,
    compared: Sequence[Shown],
    **filled: Any,
) -> str:
    script, early = asset("report.js"), asset("theme.js")
    return environment().get_template("report.html.j2").render(
        parts=parts,
        data=filled.get("data") or [Markup("{}")] * len(parts),
        cut=filled.get("cut") or Cut(),
        title=titled(content.sources),
        macro=table,
        macro_words=said,
        compared=compared,
        stages=content.stages,
        style=Markup(asset("report.css")),
        script=Markup(script),
        early=Markup(early),
        hashes=[digest(script), digest(early)],
        version=rank_rl.__version__,
    )  # fmt: skip


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """What renders pages: everything is escaped, and unprintable characters are made harmless."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: clean(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
    )
    made.filters["minus"] = _minus
    made.filters["word"] = numbers.word
    return made


def asset(name: str) -> str:
    """A file of the report's: style, script or template."""
    folder = resources.files("rank_rl.report").joinpath("assets")
    return folder.joinpath(name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """SHA-256 of a script as a content security policy names it, base64."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _minus(text: str) -> str:
    """Numbers with a real minus sign."""
    return _NEGATIVE.sub("−", text)
