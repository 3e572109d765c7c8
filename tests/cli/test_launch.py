"""``rank-rl run`` through a real ``accelerate launch``: what is said when a stage fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from rank_rl.cli.run import _stop_on

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
run: {name: demo, output_dir: out/sft}
model: {name: empty}
data: {source: jsonl, params: {train: tasks.jsonl}, test_split: "", validation: 0}
format: {name: permutation}
training: {max_steps: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sft.yaml").write_text(RECIPE)
    launch = ROOT / "accelerate_configs" / "cpu.yaml"
    stages = "[{stage: sft, recipe: sft.yaml}]"
    (tmp_path / "pipeline.yaml").write_text(f"name: demo\nlaunch: {launch}\nstages: {stages}\n")
    candidates = [{"docid": "a", "text": "x"}, {"docid": "b", "text": "y"}]
    task = {"qid": "q", "query": "who?", "candidates": candidates, "grades": {"a": 1}}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rank_rl", "run", str(folder), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_model_folder_without_weights_is_one_line_through_accelerate(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: model folder 'empty': no weights; expected")
    assert done.stderr.count("\n") == 1
    assert "[1/1] sft: accelerate launch --config_file" in done.stdout
    record = json.loads((folder / "out" / "sft" / "pipeline.json").read_text())
    (entry,) = record["stages"].values()
    assert entry["status"] == "stopped" and entry["seconds"] > 0
    assert not (folder / "out" / "sft" / "done.json").exists()
    provenance = json.loads((folder / "out" / "sft" / "provenance.json").read_text())
    assert provenance["hash"] == entry["hash"] and "torch" in provenance["versions"]


def test_bad_input_is_found_before_anything_is_launched(folder: Path) -> None:
    done = run(folder, "--set", "sft:run.sede=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown key 'sede' (nearest: seed)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize("status", [-9, 137])
def test_a_stage_or_launcher_that_was_killed_is_named(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    step = SimpleNamespace(stage="sft", title="sft")
    with pytest.raises(typer.Exit) as stop:
        _stop_on(status, step)
    assert stop.value.exit_code == 137
    said = "error: stage sft was ended by SIGKILL (out of memory?); start again to go on\n"
    assert capsys.readouterr().err == said
