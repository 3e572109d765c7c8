"""Trackers: their own files hold what a run logs; one that is missing is one line, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_runs import SLOTS, TRAINING, learned
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.errors import RecipeError
from rank_rl.specs import RecipeSpec
from rank_rl.training import arguments, grpo
from rank_rl.training.trackers import CHECKS, EXTRAS, check_trackers, installed

Recipe = Callable[..., RecipeSpec]


def run(recipe: Recipe, report_to: str, **training: Any) -> RecipeSpec:
    spec = recipe(
        format=SLOTS,
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "group_size": 8},
        training={**TRAINING, "max_steps": 2, "report_to": report_to, **training},
    )
    grpo.run(spec, {})
    return spec


def python(*arguments: str) -> str:
    """Standard output of a Python process that must succeed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_tensorboard_holds_rewards_and_validation(recipe: Recipe) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = run(recipe, "tensorboard")
    (folder,) = (Path(spec.run.output_dir) / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    logged = learned(spec.run.output_dir)
    for name in ("reward", "entropy", "ranking/copy", "rewards/ndcg/group_std"):
        found = [(e.step, e.value) for e in events.Scalars(f"train/{name}")]
        assert found == [(r["step"], pytest.approx(r[name], rel=1e-5)) for r in logged]
    assert [e.step for e in events.Scalars("eval/ndcg@10")] == [0, 2]
    assert [e.step for e in events.Scalars("eval/first_stage")] == [0, 2]


@pytest.mark.slow  # two processes that import torch
def test_trackio_holds_rewards_and_validation(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("trackio")
    spec = recipe(
        format=SLOTS,
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "group_size": 8},
        training={**TRAINING, "max_steps": 2, "report_to": "trackio", "project": "mine",
                  "run_name": "first"},
    )  # fmt: skip
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    train = "import sys; from rank_rl.recipe import load; from rank_rl.training import grpo;"
    python("-c", train + "grpo.run(load(sys.argv[1]).spec, {})", str(file))
    # Read by another process: the tracker writes until the one that logs has ended.
    storage = "import json; from trackio.sqlite_storage import SQLiteStorage as S;"
    said = python("-c", storage + "print(json.dumps(S.get_logs('mine', 'first'), default=str))")
    records = json.loads(said.splitlines()[-1])
    rewards = [r["train/reward"] for r in records if "train/reward" in r]
    expected = [r["reward"] for r in learned(spec.run.output_dir)]
    assert rewards == [pytest.approx(r, rel=1e-5) for r in expected]
    assert sum("eval/ndcg@10" in r for r in records) == 2
    assert sum("train/ranking/copy" in r for r in records) == 2


def test_wandb_offline_takes_what_is_logged(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    spec = run(recipe, "wandb", run_name="first")
    summary = dict(wandb.run.summary)
    wandb.finish()
    last = learned(spec.run.output_dir)[-1]
    assert summary["train/ranking/copy"] == pytest.approx(last["ranking/copy"])
    assert "eval/ndcg@10" in summary
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("report_to", ["none", "all", [], ["none"], None])
def test_what_needs_no_tracker_passes(report_to: Any) -> None:
    check_trackers(report_to)


def test_every_tracker_is_there_or_named_with_its_extra() -> None:
    for name, extra in EXTRAS.items():
        if installed(name):
            check_trackers([name])
            continue
        with pytest.raises(RecipeError) as error:
            check_trackers([name])
        assert str(error.value) == (
            f"training.report_to: tracker {name!r} is not installed "
            f'(pip install "rank-rl[{extra}]")'
        )


def test_extras_are_those_of_the_package() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "pyproject.toml").read_text()
    for name, extra in EXTRAS.items():
        (line,) = [x for x in text.splitlines() if x.startswith(f"{extra} = ")]
        assert f'"{name}>=' in line


def test_a_tracker_that_is_not_there_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r'pip install "rank-rl\[trackers\]"'):
        arguments.check_training("sft", {"report_to": "trackio"})


def test_an_unknown_tracker_is_one_line_before_anything_is_loaded(tmp_path: Path) -> None:
    content = {
        "run": {"name": "t", "output_dir": str(tmp_path / "out")},
        "model": {"name": "/no/such/model"},
        "data": {"source": "jsonl", "path": "/no/such/file"},
        "format": {"name": "permutation"},
        "rewards": [{"name": "ndcg"}],
        "training": {"report_to": "tensorbord"},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    done = CliRunner().invoke(app, ["grpo", str(file)])
    assert done.exit_code == 2
    said = done.output.strip().splitlines()
    assert len(said) == 1, said
    assert "training.report_to: unknown tracker 'tensorbord' (nearest: tensorboard" in said[0]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("flyte", "pip install flytekit"),
        ("codecarbon", "pip install codecarbon"),
        ("azure_ml", "pip install azureml-sdk"),
        ("kubeflow", "KUBEFLOW_TRAINER_SERVER_URL"),
    ],
)
def test_every_tracker_of_others_is_checked(name: str, remedy: str) -> None:
    if installed(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(RecipeError, match=f"tracker '{name}' is not installed.*{remedy}"):
        check_trackers(name)


def test_transformers_has_a_check_for_every_tracker_it_names() -> None:
    from transformers.integrations import integration_utils

    names = {"flyte", *integration_utils.INTEGRATION_TO_CALLBACK} - EXTRAS.keys()
    checks = {name: CHECKS.get(name, f"is_{name}_available") for name in names}
    assert not {n: c for n, c in checks.items() if not hasattr(integration_utils, c)}


def test_a_tracker_of_others_that_is_not_installed_is_refused() -> None:
    if installed("mlflow"):
        pytest.skip("mlflow is installed")
    with pytest.raises(RecipeError, match="tracker 'mlflow' is not installed"):
        check_trackers("mlflow")
