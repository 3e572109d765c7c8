"""Two processes decide together when to stop, and each keeps its own completions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml
from stage_runs import PATH, ROOT, SLOTS, TRAINING, records, training

from rank_rl.specs import RecipeSpec

Recipe = Callable[..., RecipeSpec]


def launched(stage: str, spec: RecipeSpec) -> dict[str, Any]:
    """Run a stage in two processes over gloo; returns the summary that it left."""
    out = Path(spec.run.output_dir)
    file = out.with_name("recipe.yaml")
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    config = str(ROOT / "accelerate_configs" / "ddp.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    command += ["--num_processes", "2", "--main_process_port", "0"]
    done = subprocess.run(
        [*command, "-m", "rank_rl", stage, str(file)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    summary: dict[str, Any] = json.loads((out / "done.json").read_text())["summary"]
    return summary


@pytest.mark.distributed
@pytest.mark.slow
def test_patience_ends_both_processes(recipe: Recipe) -> None:
    # Nothing is learned at a rate of 0, so the second validation is no gain.
    settings = {**TRAINING, "max_steps": 5, "learning_rate": 0.0}
    spec = recipe(format=SLOTS, eval={"every": 1, "patience": 1}, training=settings)
    summary = launched("score", spec)
    assert summary["steps"] == 2
    assert summary["metrics"]["stopped"]["why"].startswith("no gain in ndcg@10 for 1 validations")
    assert [r["step"] for r in records(spec.run.output_dir) if "stopped" in r] == [2]


@pytest.mark.distributed
@pytest.mark.slow
def test_an_alarm_ends_both_processes_and_all_their_answers_are_kept(recipe: Recipe) -> None:
    spec = recipe(
        rewards=[{"name": "format"}, {"name": "chance:Digits", "weight": 0.1}],
        grpo={"alarm": {"window": 1, "action": "stop", "flat": None, "truncated": None},
              "log_completions": 1},
        eval={"every": 1, "max_new_tokens": 2},
        training=training(max_steps=5),
    )  # fmt: skip
    summary = launched("grpo", spec)
    assert summary["steps"] == 2
    assert summary["metrics"]["stopped"] == {"step": 2, "why": "alarm unreadable"}
    assert len([r for r in records(spec.run.output_dir) if "alarm" in r]) == 1
    folder = Path(spec.run.output_dir) / "completions"
    assert sorted(p.name for p in folder.iterdir()) == [
        "step_000001.parquet", "step_000001.rank1.parquet",
        "step_000002.parquet", "step_000002.rank1.parquet",
    ]  # fmt: skip
    rows = pandas.read_parquet(folder)
    assert len(rows) == 2 * 2 * 4
    for _, group in rows.groupby(["step", "rank", "group"]):
        assert len(group) == 4
        # Advantages belong to their answers: highest where the reward is.
        assert (group["advantage"].rank() == group["reward"].rank()).all()
        assert group["advantage"].sum() == pytest.approx(0, abs=1e-4)
