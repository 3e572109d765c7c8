"""``rank-rl run``: all stages of a recipe folder, each in its own ``accelerate launch``."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_rl.cli.boundary import EXIT_INTERRUPT, EXIT_USER, say_error
from rank_rl.cli.process import Terminated
from rank_rl.cli.show import line, show_checkpoint_use, show_summary

if TYPE_CHECKING:
    from rank_rl.cli.pipeline import Clock, Pipeline, Step


def run(
    folder: Annotated[
        Path, typer.Argument(help="Recipe folder with pipeline.yaml.", show_default=False)
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="[STAGE:]A.B=C", help="Change a value in every stage, or in one."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Run this stage and all behind it again."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False,
    launch: Annotated[
        str | None,
        typer.Option(
            "--launch", metavar="FILE", help="An accelerate configuration instead of its own."
        ),
    ] = None,
) -> None:
    """Run all stages of a recipe; stages that are done are skipped, a killed run goes on."""
    from rank_rl.cli import pipeline as pipelines

    signal.signal(signal.SIGTERM, _terminate)
    pipeline = pipelines.load(folder, set_ or [], launch)
    env = pipelines.launch_environment(pipeline.launch, os.environ)
    chosen = pipelines.choose(pipeline.steps, first=from_, force=force)
    clock = pipelines.Clock(pipeline)
    for number, (step, wanted) in enumerate(zip(pipeline.steps, chosen, strict=True)):
        title = f"[{number + 1}/{len(pipeline.steps)}] {step.stage}"
        if not wanted:
            line(f"{title}: done before, {step.out_dir}")
            continue
        command = shlex.join(["accelerate", "launch", *pipelines.launch_arguments(pipeline, step)])
        line(f"{title}: {command}")
        for later in pipeline.steps[number:]:
            (later.out_dir / pipelines.DONE).unlink(missing_ok=True)
        _stop_on(pipelines.run_step(pipeline, step, clock, env), step)
    _report(pipeline, clock)


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
        say_error(f"error: stage {step.stage} was ended by {name}{memory}; start again to go on")
    raise typer.Exit(status)


def _report(pipeline: Pipeline, clock: Clock) -> None:
    """The end of a run: the table, where everything is, what it took, what to type next."""
    summaries = {step.stage: step.summary() for step in pipeline.steps}
    bench = summaries.get("bench", {})
    show_summary({key: bench[key] for key in ("table", "legend", "steps") if bench.get(key)})
    for step in pipeline.steps:
        line(f"{step.stage}: {step.out_dir}")
        for key, value in summaries[step.stage].items():
            if isinstance(value, str) and os.path.exists(value):
                line(f"  {key}: {value}")
    total, peak = clock.seconds(), clock.record["peak_memory_mb"]
    each = ", ".join(f"{step.stage} {clock.seconds(step):.0f}" for step in pipeline.steps)
    line(f"seconds: {total:.0f} ({each}); peak memory {peak} MiB; {clock.path}")
    checkpoints = [s["checkpoint"] for s in summaries.values() if s.get("checkpoint")]
    if checkpoints:
        show_checkpoint_use(str(checkpoints[-1]))
