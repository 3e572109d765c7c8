"""Matched arms through real launches: killed, gone on with, and nothing done twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from small_recipes import content, write_tasks

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200  # seconds after which something hangs, even on a busy machine
TITLES = ["answer-sft sft", "answer-sft+grpo grpo", "reason-sft sft", "bench"]
ARMS = """
name: tiny
output_dir: out
launch: LAUNCH
stages: {sft: sft.yaml, grpo: grpo.yaml}
bench: bench.yaml
arms:
  - {name: answer-sft, stages: [sft], set: {format.mode: answer}}
  - {name: answer-sft+grpo, stages: [sft, grpo], set: {format.mode: answer}}
  - {name: reason-sft, stages: [sft], set: {format.mode: reason}}
"""


@pytest.fixture
def here(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a collection and recipes of two stages and a bench."""
    monkeypatch.chdir(tmp_path)
    write_tasks(Path("tasks.jsonl"), tests=3)
    Path("recipes").mkdir()
    grpo = {"num_generations": 2, "max_completion_length": 16}
    sections = {
        "sft": {"training": {"max_steps": 20, "save_steps": 1}},
        "grpo": {"rewards": [{"name": "format"}], "training": grpo},
        "bench": {"bench": {"systems": [], "metrics": ["ndcg@10"], "samples": 100}},
    }
    for stage, own in sections.items():
        made = content(tiny_model_dir, Path("tasks.jsonl"), Path("unused"), own)
        Path("recipes", f"{stage}.yaml").write_text(yaml.safe_dump(made))
    launch = str(ROOT / "accelerate_configs" / "cpu.yaml")
    Path("recipes/arms.yaml").write_text(ARMS.replace("LAUNCH", launch))
    return tmp_path


def start(*overrides: str) -> subprocess.Popen[str]:
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    sets = [part for item in overrides for part in ("--set", item)]
    return subprocess.Popen(
        [sys.executable, "-m", "rank_rl", "arms", "recipes", *sets],
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*overrides: str) -> tuple[list[str], str]:
    """The titles of the stages that were launched, and all that was printed."""
    process = start(*overrides)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    lines = re.findall(r"^\[(\d)/4\] (.+): (accelerate launch|done before)", out, re.MULTILINE)
    assert [title for _, title, _ in lines] == TITLES
    return [title for _, title, how in lines if how == "accelerate launch"], out


def kill_while_the_first_stage_trains() -> None:
    process = start()
    log, patience = Path("out/answer-sft/sft/training_log.jsonl"), time.monotonic() + PATIENCE
    while not log.is_file() or '"step": 2' not in log.read_text():
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.05)
    root = psutil.Process(process.pid)
    for member in [*root.children(recursive=True), root]:
        member.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_arms_are_trained_once_compared_and_then_left_alone(here: Path) -> None:
    kill_while_the_first_stage_trains()
    launched, out = run()
    assert launched == TITLES
    log = Path("out/answer-sft/sft/training_log.jsonl").read_text()
    steps = [r["step"] for r in map(json.loads, log.splitlines()) if "loss" in r]
    assert steps == list(range(1, 21))  # gone on with, not begun anew

    result = json.loads(Path("out/bench/result.json").read_text())
    names = [system["name"] for system in result["systems"]]
    bases = ["untrained base, answer", "untrained base, reason"]
    arms = ["answer-sft", "answer-sft+grpo", "reason-sft"]
    assert names == ["random", "first stage", *bases, *arms, "perfect order"]
    modes = {s["name"]: s["setting"].get("mode") for s in result["systems"]}
    assert [modes[arm] for arm in arms] == ["answer", "answer", "reason"]
    models = {s["name"]: s["model"].get("name") for s in result["systems"]}
    assert models["answer-sft+grpo"] == "out/answer-sft+grpo/grpo/final"
    pairs = [(s["from"], s["to"]) for s in result["steps"]]
    assert pairs == [
        (bases[0], "answer-sft"),
        (bases[1], "reason-sft"),
        ("answer-sft", "answer-sft+grpo"),
        ("answer-sft", "reason-sft"),
    ]
    for from_, to in pairs:
        assert f"{from_} → {to}: ndcg@10" in out

    launched, again = run()
    assert launched == []
    assert f"{pairs[0][0]} → {pairs[0][1]}: ndcg@10" in again
    assert json.loads(Path("out/bench/result.json").read_text()) == result

    launched, _ = run("grpo:training.learning_rate=1e-5")
    assert launched == ["answer-sft+grpo grpo", "bench"]
