"""``rank-rl report``: results as one HTML page, tables and figures, and two systems compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_rl.cli.show import heading, line, show_table

if TYPE_CHECKING:
    from rank_rl.report import Report
    from rank_rl.report.reading import Source
    from rank_rl.report.tables import Table


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Output folders of rank-rl bench, or result files.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    training: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Output folder of a training stage whose curves are shown, beside those found by "
            "the checkpoints; may be given more than once.",
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Two systems, checkpoints or result folders (FOLDER::SYSTEM), B minus A.",
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables in Markdown.")
    ] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write the tables in LaTeX.")] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also draw figures, as PNG and SVG.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="The metric shown first, e.g. ndcg@10; the first by default.")
    ] = None,
) -> None:
    """Write results as one HTML page that needs nothing else, and as tables and figures."""
    from rank_rl.report import Report

    found = Report.of(results, training=training or (), compare=compare, metric=metric)
    written = [found.html(out)]
    written += [found.markdown(markdown)] if markdown else []
    written += [found.latex(latex)] if latex else []
    drawn = found.figures(figures) if figures else []
    summarise(found)
    line("")
    for path in written:
        line(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", style="bold")
    if drawn:
        line(f"{figures}: {len(drawn)} files", style="bold")


def summarise(found: Report) -> None:
    """Print leaderboards, steps and comparisons."""
    from rank_rl.report.compared import shown
    from rank_rl.report.macro import macro

    for source in found.sources:
        _result(source)
    table, said = macro(found.sources)
    if said:
        heading("All collections")
        line(said)
    if table is not None:
        show_table(table.written())
    for number, comparison in enumerate(found.comparisons):
        tables = shown(comparison, f"compare-{number}")
        heading(tables.summary.caption)
        for warning in comparison.warnings:
            line(f"warning: {warning}")
        show_table(tables.summary.written())
        for part in (tables.gains, tables.falls):
            _titled(part)
        for change, said, part in (*tables.gained[:1], *tables.lost[:1]):
            heading(f"{change.query}: {said}")
            show_table(part.written())


def _result(source: Source) -> None:
    from rank_rl.report import leaderboard
    from rank_rl.report.differences import steps
    from rank_rl.report.finding import finding
    from rank_rl.report.listing import legend

    heading(f"{source.label}, {source.result['queries']:,} queries")
    if said := finding(source):
        line(said)
    show_table(leaderboard.leaderboard(source).written())
    for told in legend(source):
        line(told)
    for name, listed in leaderboard.warnings(source).items():
        for warning in listed:
            line(f"warning: {name}: {warning}")
    if (table := steps(source, [source.metric])) is not None:
        heading("steps")
        show_table(table.written())


def _titled(table: Table) -> None:
    if table.rows:
        heading(table.caption)
        show_table(table.written())
