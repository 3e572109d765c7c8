"""``rank-rl arms``: matched arms from the same data, trained and printed side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rank_rl.cli.run import Force, Launch, StageOverrides, announced, run_all
from rank_rl.cli.show import line


def arms(
    folder: Annotated[
        Path, typer.Argument(help="Recipe folder with arms.yaml, or that file.", show_default=False)
    ],
    set_: StageOverrides = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Run this stage of all arms and on again."),
    ] = None,
    force: Force = False,
    launch: Launch = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would run; start nothing.")
    ] = False,
) -> None:
    """Train arms that differ in one thing each, such as reasoning, and compare them in one bench.

    What arms share is trained once; stages that are done are skipped, a killed run goes on.
    """
    from rank_rl.cli import arm_plan
    from rank_rl.cli.pipeline import choose

    plan = arm_plan.load(folder, set_ or [], launch)
    if not dry_run:
        run_all(plan, first=from_, force=force)
        return
    chosen = choose(plan.steps, first=from_, force=force)
    for number, wanted in enumerate(chosen):
        line(announced(plan, number, wanted=wanted))
    line(f"{sum(chosen)} of {len(chosen)} stages would run; outputs are in {plan.out_dir}")
