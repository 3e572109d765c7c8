"""A recipe folder as a chain of launches: what is done, what must run, how long it took.

A stage is done when ``done.json`` in its output folder bears the hash of its recipe. A stage that
runs makes those behind it undone, because they read its checkpoint. Times add up over restarts in
``pipeline.json``, in the folder that all stages' outputs share. Matched arms (``arm_plan``) are a
pipeline too, whose stages do not all stand behind one another.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rank_rl import recipe as recipes
from rank_rl.cli import provenance
from rank_rl.cli.process import PARENT, Terminated, end_tree, peak_memory_mb, physical_cores
from rank_rl.cli.stages import DONE
from rank_rl.errors import RecipeError
from rank_rl.specs import PipelineSpec

_FOR_STAGE = re.compile(r"(teach|rank|score|sft|grpo|bench):(.*)", re.DOTALL)
_HEARTBEAT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage of a pipeline with its checked recipe and the overrides that apply to it.

    ``after`` are the positions of the steps whose outputs it reads; ``arm`` is empty outside arms.
    """

    stage: str
    recipe: recipes.Recipe
    overrides: tuple[str, ...]
    after: tuple[int, ...] = ()
    arm: str = ""

    @property
    def title(self) -> str:
        """How the step is called where people read it."""
        return f"{self.arm} {self.stage}".lstrip()

    @property
    def out_dir(self) -> Path:
        """Where the stage writes."""
        return Path(self.recipe.spec.run.output_dir)

    def summary(self) -> dict[str, Any]:
        """What the stage returned when it was done; empty when it is not."""
        return dict(provenance.read_json(self.out_dir / DONE).get("summary") or {})

    def is_done(self) -> bool:
        """Whether the outputs of exactly this recipe are complete and still there."""
        same = provenance.read_json(self.out_dir / DONE).get("hash") == self.recipe.hash
        left = [self.summary().get(key) for key in ("checkpoint", "run")]
        return same and all(os.path.exists(path) for path in left if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A checked pipeline: name, launch configuration and steps in order."""

    name: str
    launch: Path
    steps: tuple[Step, ...]

    @property
    def out_dir(self) -> Path:
        """The folder that the outputs of all stages share."""
        return Path(os.path.relpath(os.path.commonpath([s.out_dir.resolve() for s in self.steps])))


def load(folder: Path, overrides: Sequence[str] = (), launch: str | None = None) -> Pipeline:
    """Read a pipeline and all its recipes, so that bad input is met before anything is computed.

    Args:
        folder: a folder with ``pipeline.yaml``, or that file.
        overrides: ``a.b=c`` for every stage, ``sft:a.b=c`` for one.
        launch: an accelerate configuration instead of the one that the pipeline names.

    Raises:
        RecipeError: pipeline, recipe, override or launch configuration is wrong.
    """
    spec, path = recipes.load_pipeline(folder)
    if not spec.stages:
        raise RecipeError("no stages", where=f"{path}: stages", expected="at least one stage")
    stages: set[str] = {entry.stage for entry in spec.stages}
    split = [for_stage(item, stages) for item in overrides]
    _check_model(spec, path, split)
    steps = []
    for number, entry in enumerate(spec.stages):
        own = tuple(text for stage, text in split if stage in ("", entry.stage))
        recipe = recipes.load(beside(path, entry.recipe), own)
        after = (number - 1,) if number else ()
        steps.append(Step(stage=entry.stage, recipe=recipe, overrides=own, after=after))
    _check_folders(steps, path)
    found = find_launch(launch or spec.launch, path)
    check_launch(found)
    return Pipeline(name=spec.name, launch=found, steps=tuple(steps))


def for_stage(item: str, stages: set[str]) -> tuple[str, str]:
    """An override as (stage or "", ``a.b=c``).

    Raises:
        RecipeError: it names a stage that is not among ``stages``.
    """
    match = _FOR_STAGE.fullmatch(item)
    if match and match[1] not in stages:
        raise RecipeError(
            f"no stage {match[1]!r}", where=f"--set {item}", expected=", ".join(sorted(stages))
        )
    return (match[1], match[2]) if match else ("", item)


def _check_model(spec: PipelineSpec, path: Path, split: Sequence[tuple[str, str]]) -> None:
    """Refuse one model for stages that start from different ones, such as one from another.

    Raises:
        RecipeError: naming overrides, or single stages to run, that change the first model only.
    """
    found = [item for item in split if _sets_model(item[1])]
    if not found:
        return
    others = [item for item in split if item not in found]
    names: list[str | None] = []
    for entry in spec.stages:
        own = [text for stage, text in others if stage in ("", entry.stage)]
        try:
            names.append(recipes.load(beside(path, entry.recipe), own).spec.model.name)
        except RecipeError:
            names.append(None)  # incomplete without the override; what else is wrong is said later
    for stage, text in found:
        meant = {n for e, n in zip(spec.stages, names, strict=True) if stage in ("", e.stage) and n}
        if len(meant) > 1:
            raise RecipeError(
                f"every stage{f' {stage}' if stage else ''} would start from this model, not from "
                "the one before it",
                where=f"--set {stage}:{text}" if stage else f"--set {text}",
                expected=_instead(spec, path, names, (stage, text), split),
            )


def _sets_model(text: str) -> bool:
    return text.partition("=")[0].strip() in ("model", "model.name")


def _instead(
    spec: PipelineSpec,
    path: Path,
    names: Sequence[str | None],
    asked: tuple[str, str],
    split: Sequence[tuple[str, str]],
) -> str:
    """How to give the model asked for to the first stage meant, and those that start like it.

    By overrides of stages, unless some recipes of such a stage start from another model: then by
    running the stages one by one.
    """
    stage, text = asked
    known = list(zip(spec.stages, names, strict=True))
    first = next(name for entry, name in known if stage in ("", entry.stage) and name)
    given = [stage in ("", entry.stage) and name in (first, None) for entry, name in known]
    wanted = dict.fromkeys(e.stage for e, own in zip(spec.stages, given, strict=True) if own)
    if all(own or e.stage not in wanted for e, own in zip(spec.stages, given, strict=True)):
        return " ".join(f"--set {name}:{text}" for name in wanted)
    others = [item for item in split if item != asked]
    commands = []
    for entry, own in zip(spec.stages, given, strict=True):
        sets = [item for name, item in others if name in ("", entry.stage)] + [text] * own
        words = ["rank-rl", entry.stage, str(beside(path, entry.recipe))]
        commands.append(shlex.join([*words, *(w for item in sets for w in ("--set", item))]))
    return f"the stages one by one: {'; '.join(commands)}"


def beside(path: Path, name: str) -> Path:
    """A recipe named in a pipeline file, which it lies beside."""
    return Path(os.path.relpath(path.parent / name))


def _check_folders(steps: Sequence[Step], path: Path) -> None:
    seen: dict[Path, str] = {}
    for step in steps:
        folder = step.out_dir.resolve()
        if folder in seen:
            raise RecipeError(
                f"stages {seen[folder]} and {step.stage} both write to {step.out_dir}",
                where=f"{path}: run.output_dir",
                expected="one folder for each stage",
            )
        seen[folder] = step.stage


def find_launch(name: str, pipeline: Path) -> Path:
    """The accelerate configuration: from the current folder, or from one above the pipeline.

    Raises:
        RecipeError: there is none.
    """
    folders = [Path(), *pipeline.resolve().parents]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise RecipeError(
        f"no such file: {name}",
        where=f"{pipeline}: launch, or --launch",
        expected="an accelerate configuration, from the current folder or above the recipe",
    )


def check_launch(launch: Path) -> None:
    """What a launch configuration needs must be installed; accelerate says so by a traceback.

    Raises:
        RecipeError: it is not, or the configuration is not a YAML mapping.
    """
    kind = str(_launch_settings(launch).get("distributed_type") or "").upper()
    if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(
            "distributed_type DEEPSPEED, but deepspeed is not installed",
            where=str(launch),
            remedy="pip install 'rank-rl[deepspeed]'",
        )


def _launch_settings(launch: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(launch.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError("not valid YAML", where=str(launch)) from error
    if not isinstance(config, dict):
        raise RecipeError("not a mapping", where=str(launch), expected="accelerate's settings")
    return config


def choose(steps: Sequence[Step], *, first: str | None, force: bool) -> list[bool]:
    """Which steps must run: those not done and all behind them; all from ``first`` if given.

    Raises:
        RecipeError: ``first`` is no stage here, or one before it has not run.
    """
    chosen: list[bool] = []
    for step in steps:
        own = step.stage == first if first else force or not step.is_done()
        chosen.append(own or any(chosen[i] for i in step.after))
    names = list(dict.fromkeys(step.stage for step in steps))
    if first and first not in names:
        raise RecipeError(f"no stage {first!r}", where="--from", expected=", ".join(names))
    for step, wanted in zip(steps, chosen, strict=True):
        if first and not wanted and not (step.out_dir / DONE).is_file():
            raise RecipeError(
                f"stage {step.title} has not run", where=f"--from {first}",
                expected=f"{step.out_dir / DONE}", remedy="start without --from",
            )  # fmt: skip
    return chosen


def launch_arguments(pipeline: Pipeline, step: Step) -> list[str]:
    """What follows ``accelerate launch`` for one step."""
    sets = [text for item in step.overrides for text in ("--set", item)]
    start = ["--config_file", str(pipeline.launch), "-m", "rank_rl", step.stage]
    return [*start, step.recipe.path, *sets]


def launch_environment(launch: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The stage's environment: processes on a CPU share its physical cores, unless that is set.

    Threads of several processes must not wait by spinning, which made them twenty times slower.

    Raises:
        RecipeError: the launch configuration is not a YAML mapping.
    """
    config = _launch_settings(launch)
    env = {**environ, PARENT: str(os.getpid())}
    if config.get("use_cpu"):
        processes = int(config.get("num_processes") or 1)
        env.setdefault("OMP_NUM_THREADS", str(max(1, physical_cores() // processes)))
        if processes > 1:
            env.setdefault("OMP_WAIT_POLICY", "passive")
    return env


class Clock:
    """``pipeline.json``: seconds of every stage, added up over restarts, kept while they run."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.path = pipeline.out_dir / "pipeline.json"
        old = provenance.read_json(self.path).get("stages") or {}
        self.record: dict[str, Any] = {
            "name": pipeline.name,
            "launch": str(pipeline.launch),
            "peak_memory_mb": provenance.read_json(self.path).get("peak_memory_mb", 0),
            "stages": {},
        }
        for step in pipeline.steps:
            new = {"recipe": step.recipe.path, "hash": step.recipe.hash, "seconds": 0.0}
            kept = old.get(str(step.out_dir), {})
            # Time spent on another recipe in the same folder is not time of this one.
            self.record["stages"][str(step.out_dir)] = {
                "stage": step.stage,
                **new,
                "status": "waiting",
                **(kept if kept.get("hash") == step.recipe.hash else {}),
            }

    def seconds(self, step: Step | None = None) -> float:
        """Seconds of one step, or of all."""
        entries = self.record["stages"]
        chosen = [entries[str(step.out_dir)]] if step else entries.values()
        return float(sum(entry["seconds"] for entry in chosen))

    def update(self, step: Step, status: str, seconds: float) -> None:
        """Set the status and seconds of a step and write the file."""
        self.record["stages"][str(step.out_dir)].update(
            status=status, hash=step.recipe.hash, seconds=round(seconds, 1)
        )
        peak = max(self.record["peak_memory_mb"], peak_memory_mb())
        self.record.update(seconds=round(self.seconds(), 1), peak_memory_mb=peak)
        provenance.make_folder(self.path.parent)
        provenance.write_json(self.path, self.record)


def run_step(pipeline: Pipeline, step: Step, clock: Clock, env: Mapping[str, str]) -> int:
    """Launch one step, count its seconds while it runs, and return its exit status."""
    command = [sys.executable, "-m", "rank_rl.cli.launch", *launch_arguments(pipeline, step)]
    before, start = clock.seconds(step), time.monotonic()
    process = subprocess.Popen(command, env=dict(env))
    status: int | None = None
    try:
        while status is None:
            clock.update(step, "running", before + time.monotonic() - start)
            try:
                status = process.wait(timeout=_HEARTBEAT_S)
            except subprocess.TimeoutExpired:
                continue
    except Terminated:
        end_tree(process.pid)
        raise
    finally:
        # After an interrupt: the stage got the signal too and may still be saving.
        process.wait()
        clock.update(step, "done" if status == 0 else "stopped", before + time.monotonic() - start)
    return status
