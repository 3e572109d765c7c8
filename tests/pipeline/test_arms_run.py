"""Matched arms trained and compared: nothing is done twice, and a change runs what stands behind.

The stages run in this process; ``test_whole_pipeline`` starts and kills real ones.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from small_recipes import content, write_tasks
from typer.testing import CliRunner

from rank_rl.cli import pipeline
from rank_rl.cli.app import app
from rank_rl.cli.process import PARENT

ROOT = Path(__file__).resolve().parents[2]
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


class Launched:
    """In place of a launched process: the same command, run to its end in this one."""

    pid = 0

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        assert list(command[1:3]) == ["-m", "rank_rl.cli.launch"] and PARENT in env
        stage = list(command[command.index("rank_rl") + 1 :])
        self.done = CliRunner().invoke(app, stage, env={PARENT: env[PARENT]})

    def wait(self, timeout: float | None = None) -> int:
        assert self.done.exit_code == 0, self.done.output
        return self.done.exit_code


@pytest.fixture
def here(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a collection and recipes of two stages and a bench."""
    monkeypatch.chdir(tmp_path)
    write_tasks(Path("tasks.jsonl"), tests=3)
    Path("recipes").mkdir()
    grpo = {"num_generations": 2, "max_completion_length": 16}
    sections = {
        "sft": {"training": {"max_steps": 4}},
        "grpo": {"rewards": [{"name": "format"}], "training": grpo},
        "bench": {"bench": {"systems": [], "metrics": ["ndcg@10"], "samples": 100}},
    }
    for stage, own in sections.items():
        made = content(tiny_model_dir, Path("tasks.jsonl"), Path("unused"), own)
        Path("recipes", f"{stage}.yaml").write_text(yaml.safe_dump(made))
    launch = str(ROOT / "accelerate_configs" / "cpu.yaml")
    Path("recipes/arms.yaml").write_text(ARMS.replace("LAUNCH", launch))
    started = SimpleNamespace(Popen=Launched, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(pipeline, "subprocess", started)
    monkeypatch.setattr("rank_rl.cli.stages.die_with_parent", lambda: None)
    ended = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, ended)


def run(*overrides: str) -> tuple[list[str], str]:
    """The titles of the stages that were launched, and all that was printed."""
    sets = [part for item in overrides for part in ("--set", item)]
    done = CliRunner().invoke(app, ["arms", "recipes", *sets])
    assert done.exit_code == 0, done.output
    out = done.stdout
    lines = re.findall(r"^\[(\d)/4\] (.+): (accelerate launch|done before)", out, re.MULTILINE)
    assert [title for _, title, _ in lines] == TITLES
    return [title for _, title, how in lines if how == "accelerate launch"], out


def test_arms_are_trained_once_compared_and_then_left_alone(here: Path) -> None:
    launched, out = run()
    assert launched == TITLES
    result: dict[str, Any] = json.loads(Path("out/bench/result.json").read_text())
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
