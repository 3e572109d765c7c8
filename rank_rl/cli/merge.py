"""``rank-rl merge``: benchmarks that were run apart, as one result and one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rank_rl.cli.show import show_summary


def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Output folders of rank-rl bench, of one collection.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder.", show_default=False)],
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="Test all others against this row; repeatable."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Give the others' share of this row's quality.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
) -> None:
    """Merge benchmarks that were run apart; refused when they do not belong together."""
    from rank_rl import report as reports
    from rank_rl.bench import tables
    from rank_rl.bench.layout import REPORT, RESULT
    from rank_rl.bench.merged import merge_folders

    result = merge_folders(folders, out, baselines=baseline or (), teacher=teacher)
    summary = {
        "table": tables.rows(result),
        "legend": tables.legend(result),
        "steps": tables.step_lines(result),
        "result": str(out / RESULT),
    }
    if report:
        summary["report"] = str(reports.write([out / RESULT], out / REPORT))
    show_summary({key: value for key, value in summary.items() if value})
