"""Stages of a recipe in real launches on a CPU: the shipped configurations, changed to run here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_recipes import content, write_tasks

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / "accelerate_configs"
# What accelerate calls them, in the summary of a stage.
KINDS = {
    "ddp": "MULTI_CPU",
    "fsdp2": "FSDP2",
    "zero2": "DEEPSPEED ZeRO-2",
    "zero3": "DEEPSPEED ZeRO-3",
    "zero2_offload": "DEEPSPEED ZeRO-2",
    "zero3_offload": "DEEPSPEED ZeRO-3",
}
# Of a log record, what depends on the machine or on how batches are counted.
UNCOMPARED = ("seconds", "epoch", "step_time", "shared/computed")


def write_recipe(
    folder: Path, model: Path, /, *, name: str, accumulate: int = 1, **sections: Any
) -> Path:
    """A recipe for a tiny model that writes to ``folder/NAME``; sections are merged into it."""
    data = folder / "tasks.jsonl"
    write_tasks(data, tests=1, longer=" please say")  # rows of different length
    training = {"max_steps": 3, "gradient_accumulation_steps": accumulate}
    sections["run"] = {"name": name, **sections.get("run", {})}
    sections["training"] = {**training, **sections.get("training", {})}
    made = content(model, data, folder / name, sections)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    return path


def on_cpu(name: str, folder: Path) -> Path:
    """A copy of a shipped configuration that runs on a CPU, with 2 processes where it has more."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    config["use_cpu"] = config["distributed_type"] in ("MULTI_GPU", "NO")
    config["num_processes"] = min(2, config["num_processes"])
    config["main_process_port"] = free_port()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def alone(stage: str, recipe: Path) -> dict[str, Any]:
    """Run a stage of a recipe in this process."""
    from rank_rl import recipe as recipes
    from rank_rl import training

    summary: dict[str, Any] = training.stage(stage)(recipes.load(recipe).spec, {})
    return summary


def records(out: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    lines = (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def curve(out: Path) -> list[dict[str, Any]]:
    """What a run logged about learning, step by step."""
    kept = [r for r in records(out) if "loss" in r]
    return [{k: v for k, v in r.items() if k not in UNCOMPARED} for r in kept]


def weights(folder: Path | str) -> dict[str, Any]:
    """The weights of a checkpoint, loaded as for use."""
    from rank_rl.models import loading
    from rank_rl.specs import ModelSpec

    return dict(loading.load(ModelSpec(name=str(folder))).model.state_dict())


def needs(config: str) -> None:
    """Skip a test whose configuration cannot run here."""
    if config.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed; `make test-distributed` installs it")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def environment(config: str) -> dict[str, str]:
    """The environment of a launch; FSDP and DeepSpeed are told to take the CPU."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "PYTEST_"))}
    paths = [str(ROOT), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.startswith("fsdp"):
        own["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if config.startswith("zero"):
        own["DS_ACCELERATOR"] = "cpu"
    return {**kept, **own}


def command(config: str, stage: str, recipe: Path) -> list[str]:
    """``accelerate launch`` of one stage, as docs/scaling.md writes it."""
    module = "fsdp_on_cpu" if config.startswith("fsdp") else "rank_rl"
    file = on_cpu(config, recipe.parent)
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*start, "-m", module, stage, str(recipe)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Exit status of a command and what it wrote to both streams."""

    status: int
    said: str


def execute(
    arguments: Sequence[str],
    config: str,
    folder: Path,
    *,
    until: Callable[[], bool] = lambda: False,
    timeout: float = 900,
) -> Ended:
    """Run a command to its end, or kill it with all it started as soon as ``until`` holds."""
    with (folder / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            arguments, cwd=folder, env=environment(config), stdout=said, stderr=said
        )
        latest = time.monotonic() + timeout
        while process.poll() is None:
            if until() or time.monotonic() > latest:
                kill(process.pid)
            time.sleep(0.01)
        said.seek(0)
        return Ended(status=process.wait(), said=said.read())


def kill(pid: int) -> None:
    """End a process and everything below it at once; the launcher's workers are sessions apart."""
    import psutil

    process = psutil.Process(pid)
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def launch(
    config: str, stage: str, recipe: Path, until: Callable[[], bool] = lambda: False
) -> Ended:
    """Run a stage under a configuration; see ``execute``."""
    return execute(command(config, stage, recipe), config, recipe.parent, until=until)
