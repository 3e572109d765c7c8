"""The ``rank-rl`` command: registers the subcommands, starts nothing heavy by itself."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import rank_rl
from rank_rl.cli import (
    arms,
    attack,
    check,
    leaks,
    lint,
    merge,
    process,
    publish,
    report,
    rerank,
    run,
    serve,
    stages,
    teach,
)
from rank_rl.cli.boundary import Boundary

app = typer.Typer(
    name="rank-rl",
    cls=Boundary,
    help="Train small rerankers that reason, from queries, documents and judgements.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("check")(check.check)
app.command("lint-rewards")(lint.lint_rewards)
app.command("leaks")(leaks.leaks)
app.command("teach", help=teach.HELP)(teach.teach)
for _stage in stages.STAGES:
    app.command(_stage, help=stages.STAGES[_stage])(stages.command(_stage))
app.command("rerank")(rerank.rerank)
app.command("serve")(serve.serve)
app.command("attack")(attack.attack)
app.command("merge")(merge.merge)
app.command("publish")(publish.publish)
app.command("run")(run.run)
app.command("arms")(arms.arms)
app.command("report")(report.report)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"rank-rl {rank_rl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``rank-rl`` script and of ``python -m rank_rl``."""
    try:
        app()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            process.exit_at_once(end.code)
        raise
