"""Two real processes below ``accelerate launch`` leave what one leaves, also after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import write_tasks
from reranking import ROOT, done, summary, without_seconds


def launched(folder: Path, *options: Any) -> subprocess.Popen[str]:
    """The command in two processes."""
    config = yaml.safe_load((ROOT / "accelerate_configs" / "ddp.yaml").read_text())
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        config |= {"use_cpu": True, "main_process_port": probe.getsockname()[1]}
    (folder / "ddp.yaml").write_text(yaml.safe_dump(config))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "ACCELERATE_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "ddp.yaml"]
    return subprocess.Popen(
        [*start, "-m", "rank_rl", "rerank", *map(str, options)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(pid: int) -> None:
    """Kill a launcher and its workers, which are sessions apart."""
    process = psutil.Process(pid)
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def answered(folder: Path) -> int:
    return sum(max(0, p.read_bytes().count(b"\n") - 1) for p in folder.glob("part-*.jsonl"))


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_leave_the_bytes_of_one(checkpoint: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    write_tasks(tasks, 64)
    base = ["--model", checkpoint, "--tasks", tasks]
    two = [*base, "--output", tmp_path / "two.trec", "--exchanges", tmp_path / "two.jsonl"]
    two += ["--explain", "--top-k", "3"]
    kept = tmp_path / "two.trec.kept"

    killed = launched(tmp_path, *two)
    while answered(kept) < 12 and killed.poll() is None:
        time.sleep(0.005)
    end(killed.pid)
    said, _ = killed.communicate()
    assert 12 <= answered(kept) < 64, said

    process = launched(tmp_path, *two)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "64 queries reranked" in said and "were answered before" in said
    assert sorted(p.name for p in kept.iterdir()) == ["part-0.jsonl", "part-1.jsonl"]
    assert summary(tmp_path / "two.trec")["processes"] == 2

    one = [*base, "--output", tmp_path / "one.trec", "--exchanges", tmp_path / "one.jsonl"]
    done(*one, "--explain", "--top-k", "3")
    assert (tmp_path / "two.trec").read_bytes() == (tmp_path / "one.trec").read_bytes()
    assert without_seconds(tmp_path / "two.jsonl") == without_seconds(tmp_path / "one.jsonl")
    # What two processes kept is enough for one.
    again = done(*two, "--scores")
    assert "64 of 64 queries were answered before" in again.stderr
    records = (json.loads(line) for line in (kept / "part-1.jsonl").read_text().splitlines()[1:])
    assert 0 < len({r["qid"] for r in records}) < 64
