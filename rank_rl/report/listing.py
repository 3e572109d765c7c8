"""The report's tables as Markdown: what the page shows without its drawings and queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rank_rl.report import leaderboard, provenance, shown
from rank_rl.report.compare import Comparison
from rank_rl.report.compared import shown as tables_of
from rank_rl.report.differences import sensitivity, steps
from rank_rl.report.finding import finding
from rank_rl.report.macro import macro
from rank_rl.report.page import titled
from rank_rl.report.reading import Source
from rank_rl.report.tables import Table, escaped
from rank_rl.report.tables import markdown as table_of


def markdown(sources: Sequence[Source], comparisons: Sequence[Comparison] = ()) -> str:
    """All tables of a report, each below a heading of its own."""
    parts = [f"# {escaped(titled(sources))}"]
    table, said = macro(sources)
    if said:
        parts += ["## All collections", escaped(said)]
    if table is not None:
        parts.append(table_of(table))
    for source in sources:
        parts += _result(source)
    for found in comparisons:
        parts += _comparison(found)
    return "\n\n".join(part for part in parts if part)


def legend(source: Source) -> list[str]:
    """What the marks of a leaderboard mean, one line a baseline."""
    return [
        f"{m.letter}: {m.baseline}; +{m.letter} better, -{m.letter} worse (p < {shown.LEVEL} after "
        "Holm's correction)"
        for m in leaderboard.legend(source)
    ]


def _result(source: Source) -> Iterator[str]:
    yield f"## {escaped(source.label)}"
    yield escaped(finding(source))
    yield "\n".join(f"- {name}: {escaped(value)}" for name, value in provenance.headline(source))
    yield table_of(leaderboard.leaderboard(source))
    warned = [
        f"{name}: {said}"
        for name, found in leaderboard.warnings(source).items()
        for said in found
    ]  # fmt: skip
    lines = [*legend(source), *(f"Warning, {line}" for line in warned)]
    yield "\n".join(f"- {escaped(line)}" for line in lines)
    yield " ".join(escaped(rule) for rule in provenance.rules(source))
    yield from _titled("Steps", steps(source))
    yield from _titled("What these queries can show", sensitivity(source))
    result = source.result
    recipe, git = result["recipe"], result["git"] or {}
    yield (
        f"Recipe `{recipe.get('path', '')}` ({recipe.get('hash', '')}), rank_rl "
        f"{result['rank_rl']}, commit {git.get('commit') or 'unknown'}."
    )


def _titled(title: str, table: Table | None) -> Iterator[str]:
    if table is not None:
        yield f"### {title}"
        yield table_of(table)


def _comparison(found: Comparison) -> Iterator[str]:
    tables = tables_of(found, "compare")
    yield f"## {escaped(found.second)} against {escaped(found.first)}"
    yield f"Differences are the second minus the first, paired over {found.queries:,} queries."
    yield "\n".join(f"- {escaped(warning)}" for warning in found.warnings)
    yield table_of(tables.summary)
    for table in (tables.gains, tables.falls):
        if table.rows:
            yield f"### {escaped(table.caption)}"
            yield table_of(table)
