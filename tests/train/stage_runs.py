"""What the tests of training stages share: reading what a run left, and stopping one halfway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from rank_rl import formats
from rank_rl.losses.group import ScoredGroup
from rank_rl.models import loading
from rank_rl.rerank import Reranker
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import common

ROOT = Path(__file__).resolve().parents[2]
# Where a process that a test starts finds rank_rl and the rewards of these tests.
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "train", ROOT / "tests")))
SLOTS = {"name": "slots", "mode": "answer"}
TRAINING = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "disable_tqdm": True,
}


def training(**changes: Any) -> dict[str, Any]:
    """Section ``training`` of a recipe for GRPO on texts: two steps, one group of four each."""
    return {
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 40,
        "learning_rate": 1e-3,
        **changes,
    }


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return dict(loading.load(ModelSpec(name=str(folder))).model.state_dict())


def moved(before: Path | str, after: Path | str) -> set[str]:
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def records(out: Path | str) -> list[dict[str, Any]]:
    lines = (Path(out) / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def learned(out: Path | str) -> list[dict[str, Any]]:
    """Training records, without the times."""
    kept = [r for r in records(out) if "loss" in r]
    return [{k: v for k, v in r.items() if k not in ("seconds", "epoch")} for r in kept]


def scores(folder: Path | str, spec: RecipeSpec) -> list[float]:
    tasks = common.begin("score", spec, {}).collection.validation
    loaded = loading.load(ModelSpec(name=str(folder), autocast="off"))
    results = Reranker(loaded=loaded, fmt=formats.make(spec.format)).rank_tasks(tasks)
    return [s for r in results for s in r.ranking.scores]


def in_two_processes(script: str, spec: RecipeSpec, folder: Path) -> list[Any]:
    """Run a script in two processes, with a folder that holds ``spec.json`` as its argument.

    Returns what each of them left in ``rankR.json``.
    """
    (folder / "spec.json").write_text(spec.model_dump_json())
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(file), str(folder)],
        env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in (0, 1)]


# A loss that a recipe can name and that a test can make stop the run, as a kill would.
STOP = {"after": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Mean squared score; interrupts the run after STOP["after"] calls."""

    def __call__(self, group: ScoredGroup) -> torch.Tensor:
        if STOP["after"] == 0:
            raise KeyboardInterrupt
        STOP["after"] -= 1
        return (group.scores**2).mean() * 0.1


STOPPING = {"name": f"{__name__}:Stopping"}


def interrupted(run: Callable[[], Any], calls: int) -> None:
    STOP["after"] = calls
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
    finally:
        STOP["after"] = -1
