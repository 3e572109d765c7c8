"""``rank-rl run``: all stages of a recipe folder, each in its own ``accelerate launch``."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli.boundary import EXIT_INTERRUPT, EXIT_USER, say_error
from rank_rl.cli.process import Terminated
from rank_rl.cli.show import line, show_checkpoint_use, show_summary

if TYPE_CHECKING:
    from rank_rl.cli.pipeline import Clock, Pipeline, Step


StageOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="[STAGE:]A.B=C", help="Change a value in every stage, or in one."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run every stage again.")]
Launch = Annotated[
    str | None,
    typer.Option(
        "--launch", metavar="FILE", help="An accelerate configuration instead of its own."
    ),
]


def run(
    folder: Annotated[
        Path, typer.Argument(help="Recipe folder with pipeline.yaml.", show_default=False)
    ],
    set_: StageOverrides = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Run this stage and all behind it again."),
    ] = None,
    force: Force = False,
    launch: Launch = None,
) -> None:
    """Run all stages of a recipe; stages that are done are skipped, a killed run goes on."""
    from rank_rl.cli import pipeline as pipelines

    run_all(pipelines.load(folder, set_ or [], launch), first=from_, force=force)


def run_all(pipeline: Pipeline, *, first: str | None, force: bool) -> None:
    """Launch what of a pipeline must run, one step after the other, and report.

    Raises:
        RecipeError: ``first`` is no stage here, or one before it has not run.
        typer.Exit: a stage failed; the status is its own.
    """
    from rank_rl.cli import pipeline as pipelines

    signal.signal(signal.SIGTERM, _terminate)
    env = pipelines.launch_environment(pipeline.launch, os.environ)
    chosen = pipelines.choose(pipeline.steps, first=first, force=force)
    clock = pipelines.Clock(pipeline)
    for number, (step, wanted) in enumerate(zip(pipeline.steps, chosen, strict=True)):
        line(announced(pipeline, number, wanted=wanted))
        if not wanted:
            continue
        for later in (
            s for s, w in zip(pipeline.steps[number:], chosen[number:], strict=True) if w
        ):
            (later.out_dir / pipelines.DONE).unlink(missing_ok=True)
        _stop_on(pipelines.run_step(pipeline, step, clock, env), step)
    _report(pipeline, clock)


def announced(pipeline: Pipeline, number: int, *, wanted: bool) -> str:
    """One line for a step: its place, its name, and its command or where its outputs are."""
    from rank_rl.cli import pipeline as pipelines

    step = pipeline.steps[number]
    title = f"[{number + 1}/{len(pipeline.steps)}] {step.title}"
    if not wanted:
        return f"{title}: done before, {step.out_dir}"
    command = ["accelerate", "launch", *pipelines.launch_arguments(pipeline, step)]
    return f"{title}: {shlex.join(command)}"


def _terminate(*_: object) -> None:
    raise Terminated


def _stop_on(status: int, step: Step) -> None:
    """Stop the pipeline when a stage failed; what the stage said about it stands alone."""
    if status == 0:
        return
    if status < 0:  # the launcher itself was ended by a signal
        status = 128 - status
    if status in (EXIT_USER, EXIT_INTERRUPT):
        raise typer.Exit(status)
    if status > 128:
        name = signal.Signals(status - 128).name if status - 128 in set(signal.Signals) else status
        memory = " (out of memory?)" if status == 128 + signal.SIGKILL else ""
        say_error(f"error: stage {step.title} was ended by {name}{memory}; start again to go on")
    raise typer.Exit(status)


def _report(pipeline: Pipeline, clock: Clock) -> None:
    """The end of a run: the table, where everything is, what it took, what to type next."""
    summaries = [step.summary() for step in pipeline.steps]
    bench: dict[str, Any] = next((s for s in reversed(summaries) if s.get("table")), {})
    show_summary({key: bench[key] for key in ("table", "legend", "steps") if bench.get(key)})
    for step, summary in zip(pipeline.steps, summaries, strict=True):
        line(f"{step.title}: {step.out_dir}")
        for key, value in summary.items():
            if isinstance(value, str) and os.path.exists(value):
                line(f"  {key}: {value}")
    total, peak = clock.seconds(), clock.record["peak_memory_mb"]
    each = ", ".join(f"{step.title} {clock.seconds(step):.0f}" for step in pipeline.steps)
    line(f"seconds: {total:.0f} ({each}); peak memory {peak} MiB; {clock.path}")
    checkpoints = [s["checkpoint"] for s in summaries if s.get("checkpoint")]
    if checkpoints:
        show_checkpoint_use(str(checkpoints[-1]))
