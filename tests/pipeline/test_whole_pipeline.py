"""The whole way through real ``accelerate launch``: kill, go on, skip, change, rerank, import.

One collection and one recipe folder, run several times in turn by a single test, because every
launch starts Python and torch anew. That a change runs what stands behind it is tested without
processes (``tests/cli/test_pipeline.py``, ``test_arms_run.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from rank_rl import Reranker, metrics
from rank_rl.cli.app import app
from rank_rl.data import tasks, trec
from rank_rl.training.resume import latest_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("score", "sft", "grpo", "bench")
PATIENCE = 1200  # seconds after which something hangs, even on a busy machine
STARTED: list[subprocess.Popen[str]] = []
COLOURS = ("red", "blue", "green", "grey", "pink", "black")
RECIPES = {
    "common": """
run: {name: demo, output_dir: out, seed: 3}
model: {name: MODEL, autocast: "off"}
data:
  {source: jsonl, path: tasks.jsonl, validation: 0, first_stage: {name: given},
   sampler: {size: 4, negatives_per_positive: 2}}
format: {name: slots, mode: reason, wording: plain, doc_tokens: 16}
eval: {strategy: {name: by_score}, max_new_tokens: 12}
training: {max_steps: 2, per_device_train_batch_size: 2, warmup_steps: 0, disable_tqdm: true}
""",
    # Long enough to be killed after its first checkpoint.
    "score": """
extends: common.yaml
run: {output_dir: out/score}
training: {max_steps: 30, save_steps: 1, learning_rate: 1e-3}
""",
    # Long enough to write the sentences of the training rows by heart.
    "sft": """
extends: common.yaml
run: {output_dir: out/sft}
model: {name: out/score/final}
training: {max_steps: 150, learning_rate: 5e-3}
""",
    "grpo": """
extends: common.yaml
run: {output_dir: out/grpo}
model: {name: out/sft/final}
grpo: {policy: slots, group_size: 4}
rewards: [{name: ndcg}]
""",
    "bench": """
extends: common.yaml
run: {output_dir: out/bench}
bench:
  metrics: [ndcg@10, mrr@10]
  baselines: [first stage]
  steps: [[base, + grpo]]
  samples: 100
  systems:
    - {name: first stage, kind: first_stage}
    - {name: base, kind: slots, model: MODEL}
    - {name: + grpo, kind: slots, model: out/grpo/final, explain: 1, max_new_tokens: 12}
    - {name: perfect order, kind: perfect}
""",
}


def task(number: int, split: str) -> dict[str, Any]:
    """A query that names a colour; of four documents the one of that colour is relevant."""
    colours = [COLOURS[(number + i) % len(COLOURS)] for i in range(4)]
    documents = [{"docid": f"d{i}", "text": f"the house is {c}"} for i, c in enumerate(colours)]
    wanted = number % 4
    return {
        "qid": f"{split}{number}",
        "query": f"which house of {split} street {number} is {colours[wanted]}?",
        "metadata": {"decomposition": f"1) which house is {colours[wanted]} => house {number}"},
        "candidates": documents,
        "grades": {f"d{wanted}": 1},
        "split": split,
    }


@pytest.fixture
def here(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with ``tasks.jsonl`` and a recipe folder; no process outlives it."""
    monkeypatch.chdir(tmp_path)
    made = [task(i, split) for split, count in (("train", 8), ("test", 3)) for i in range(count)]
    Path("tasks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in made), encoding="utf-8")
    Path("recipes").mkdir()
    for name, text in RECIPES.items():
        Path("recipes", f"{name}.yaml").write_text(text.replace("MODEL", str(tiny_model_dir)))
    stages = "".join(f"  - {{stage: {s}, recipe: {s}.yaml}}\n" for s in STAGES)
    launch = ROOT / "accelerate_configs" / "cpu.yaml"
    Path("recipes/pipeline.yaml").write_text(f"name: demo\nlaunch: {launch}\nstages:\n{stages}")
    yield tmp_path
    while STARTED:
        kill_tree(STARTED.pop())


def kill_tree(process: subprocess.Popen[str]) -> None:
    """End a process and everything it started, without a chance to say anything."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for member in [*root.children(recursive=True), root]:
            member.send_signal(signal.SIGKILL)


def start(*arguments: str) -> subprocess.Popen[str]:
    """``rank-rl`` with these arguments, in the current folder."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rank_rl", *arguments],
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def run(*overrides: str) -> tuple[str, str]:
    """Run the pipeline to its end and return what it printed on stdout and stderr."""
    sets = [part for item in overrides for part in ("--set", item)]
    process = start("run", "recipes", *sets)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out, err


def launched(out: str) -> list[str]:
    """The stages that were started, in order; the others must be said to be done."""
    lines = re.findall(r"^\[(\d)/4\] (\w+): (accelerate launch|done before)", out, re.MULTILINE)
    assert [(int(n), stage) for n, stage, _ in lines] == list(enumerate(STAGES, 1))
    return [stage for _, stage, how in lines if how == "accelerate launch"]


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def kill_while_score_trains() -> int:
    """Kill everything after the stage's first checkpoint; the last complete checkpoint's step."""
    process = start("run", "recipes")
    saved = Path("out/score")
    deadline = time.monotonic() + PATIENCE
    while latest_checkpoint(saved) is None:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    kill_tree(process)
    process.communicate(timeout=60)
    assert not (saved / "done.json").exists() and not (saved / "final").exists()
    assert read("out/pipeline.json")["stages"]["out/score"]["status"] == "running"
    last = latest_checkpoint(saved)
    assert last is not None
    return int(last.name.partition("-")[2])


def trained_steps(stage: str) -> list[int]:
    """Steps whose loss the stage's log holds."""
    lines = Path(f"out/{stage}/training_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [r["step"] for r in map(json.loads, lines) if "loss" in r]


def check_files(out: str) -> None:
    """Table, result JSON, run files and exchanges must tell the same story."""
    result = read("out/bench/result.json")
    test = {t.query.qid: t for t in tasks.read_tasks(Path("tasks.jsonl")) if t.split == "test"}
    printed = " ".join(out.split())
    assert [s["name"] for s in result["systems"]] == [
        "first stage",
        "base",
        "+ grpo",
        "perfect order",
    ]
    for system in result["systems"]:
        name, mean = system["name"], system["metrics"]["ndcg@10"]["mean"]
        orders = trec.read_run(Path("out/bench", system["run"]))
        assert set(orders) == set(test)
        ndcg = {q: metrics.ndcg([d for d, _ in o], test[q].grades or {}) for q, o in orders.items()}
        assert result["per_query"][name]["ndcg@10"] == pytest.approx(ndcg)
        assert mean == pytest.approx(sum(ndcg.values()) / 3)
        assert f"{name} {mean:.3f} (" in printed
        if system["exchanges"]:
            check_exchanges(Path("out/bench", system["exchanges"]), orders, name == "+ grpo")
    assert (read("out/bench/result.json")["systems"][-1]["metrics"]["ndcg@10"]["mean"]) == 1.0


def check_exchanges(path: Path, orders: Mapping[str, Any], explained: bool) -> None:
    """Every question with the answer that the run file follows, and the notes asked for."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [r for r in records if "outcome" in r]
    assert {r["qid"]: r["outcome"]["order"] for r in asked} == {
        qid: [docid for docid, _ in order] for qid, order in orders.items()
    }
    notes = {r["qid"]: r["explains"] for r in records if "explains" in r}
    assert notes == ({qid: order[0][0] for qid, order in orders.items()} if explained else {})


def check_reranking(model: str) -> None:
    """The command line and the Python form give the same order, with reasoning."""
    documents = ["the house is red", "the house is blue", "the river runs"]
    query = ["rerank", "--model", model, "--query", "which house is blue?", "--documents", "-"]
    done = CliRunner().invoke(app, query, input="\n".join(documents))
    assert done.exit_code == 0, done.output
    out = done.stdout
    assert re.search(r"^1\. \[\d\] It \w+", out, re.MULTILINE), out
    shown = re.findall(r"^ +(\d) +\S+ +(\d) +(\S.*?) *$", out, re.MULTILINE)
    assert sorted(text for _, _, text in shown) == sorted(documents)

    reranker = Reranker.from_pretrained(model)
    results = reranker.rank("which house is blue?", documents)
    assert [(str(r.rank), r.docid, r.text) for r in results] == shown


def test_killed_continued_skipped_changed_and_used(here: Path) -> None:
    killed_at = kill_while_score_trains()
    out, err = run()
    assert launched(out) == list(STAGES)
    assert 1 <= killed_at < 30 and f"going on from out/score/checkpoint-{killed_at}" in err
    assert trained_steps("score") == list(range(1, 31))
    assert "Traceback" not in err and "Warning" not in err
    check_files(out)
    record = read("out/pipeline.json")
    assert {entry["stage"]: entry["status"] for entry in record["stages"].values()} == (
        dict.fromkeys(STAGES, "done")
    )
    assert record["seconds"] == pytest.approx(
        sum(entry["seconds"] for entry in record["stages"].values())
    )

    first = read("out/bench/result.json")
    out, _ = run()
    assert launched(out) == []
    check_files(out)
    assert read("out/bench/result.json") == first

    out, _ = run("bench:bench.samples=200")
    assert launched(out) == ["bench"]
    check_files(out)
    again = read("out/bench/result.json")
    assert again["per_query"] == first["per_query"]
    assert again["recipe"]["hash"] != first["recipe"]["hash"]
    model = out.rpartition("rank-rl rerank --model ")[2].split()[0]
    assert model == "out/grpo/final"
    check_reranking(model)
