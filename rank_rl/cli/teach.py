"""``rank-rl teach``: ask teachers, filter their answers, write lessons and labelled tasks.

Limits and switches may be given here or in the recipe; the work is done by ``rank_rl.teachers``.
A run that a limit stopped has written what is complete, says how to go on, and exits with status 2.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rank_rl.cli.boundary import main_process
from rank_rl.cli.process import PARENT, die_with_parent
from rank_rl.cli.show import heading, line, show_summary, show_table
from rank_rl.cli.stages import DONE, Overrides, RecipePath, leave_process_group, set_up_logging

HELP = "Ask teacher models about ranking tasks; filtered, resumable, at a known price."


def teach(
    recipe: RecipePath,
    set_: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be sent and its price; send nothing."),
    ] = False,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Stop before so much money is spent, in all runs.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Stop before so many requests are sent, in all runs.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send requests again that were given up.")
    ] = False,
) -> None:
    """Ask teacher models about ranking tasks; filtered, resumable, at a known price."""
    from rank_rl import recipe as recipes
    from rank_rl.cli import provenance
    from rank_rl.teachers.checks import check_secrets
    from rank_rl.teachers.run import Options, run

    die_with_parent()
    set_up_logging()
    loaded = recipes.load(recipe, set_ or [])
    check_secrets(loaded.spec)  # before the recipe is written beside the outputs
    out_dir = Path(loaded.spec.run.output_dir)
    options = Options(
        dry_run=dry_run, max_cost=max_cost, max_requests=max_requests, retry_failed=retry_failed
    )
    if dry_run:
        _show_estimate(run(loaded.spec, loaded.info(), options), out_dir)
        return
    if main_process():
        given = dataclasses.asdict(options)
        provenance.write_provenance(out_dir, loaded, {"stage": "teach", "options": given})
        (out_dir / DONE).unlink(missing_ok=True)
    try:
        summary = run(loaded.spec, loaded.info(**provenance.facts()), options)
    finally:
        leave_process_group()
    if main_process():
        mark = {"stage": "teach", "hash": loaded.hash, "summary": summary}
        provenance.write_json(out_dir / DONE, mark)
        if PARENT not in os.environ:
            show_summary(summary)


def _show_estimate(summary: dict[str, Any], out_dir: Path) -> None:
    heading(f"what {out_dir} still needs; nothing was sent")
    show_table(summary["table"])
    show_summary({key: value for key, value in summary.items() if key != "table"})
    line("tokens in are counted with the student's tokenizer; a teacher's own may differ")
