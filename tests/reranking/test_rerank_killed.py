"""A real process that is killed, and one that is interrupted: the same command goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import write_tasks
from reranking import done, started, summary, without_seconds

QUERIES = 160
PORTION = 4


def answered(part: Path) -> int:
    """How many queries are in whole lines; the first line holds the settings."""
    lines = part.read_bytes().split(b"\n")[1:-1] if part.exists() else []
    return len({json.loads(line)["qid"] for line in lines})


def until(process: subprocess.Popen[str], part: Path, more: int) -> None:
    """Wait until more than so many queries are kept; a process that ended is shown."""
    while answered(part) <= more:
        if process.poll() is not None:
            pytest.fail(f"ended before it was stopped: {process.communicate()}")
        time.sleep(0.005)


def test_a_run_that_was_stopped_twice_is_the_run_that_was_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks.jsonl"
    write_tasks(tasks, QUERIES)
    base = ["--model", checkpoint, "--tasks", tasks]
    given = [*base, "--output", tmp_path / "s.trec", "--exchanges", tmp_path / "s.jsonl"]
    given += ["--explain", "--top-k", "1", "--batch-size", str(PORTION)]
    part = tmp_path / "s.trec.kept" / "part-0.jsonl"

    killed = started(*given, cwd=tmp_path)
    until(killed, part, PORTION)
    killed.kill()
    killed.communicate()
    first = answered(part)
    assert 0 < first < QUERIES and not (tmp_path / "s.trec").exists()
    with part.open("ab") as file:  # a kill may come in the middle of a line
        file.write(b'{"qid": "q9')

    interrupted = started(*given, cwd=tmp_path)
    until(interrupted, part, first)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate()
    second = answered(part)
    assert interrupted.returncode == 130 and first < second < QUERIES
    (before,) = re.findall(rf"(\d+) of {QUERIES} queries were answered before", said)
    assert PORTION <= int(before) <= first
    assert f"{second} of {QUERIES} queries are answered and kept in" in said
    assert "the same command goes on\ninterrupted\n" in said and "Traceback" not in said

    done(*given)
    assert summary(tmp_path / "s.trec")["answered_before"] == second
    whole = [*base, "--output", tmp_path / "w.trec", "--exchanges", tmp_path / "w.jsonl"]
    done(*whole, "--explain", "--top-k", "1", "--batch-size", str(PORTION))
    assert (tmp_path / "s.trec").read_bytes() == (tmp_path / "w.trec").read_bytes()
    assert without_seconds(tmp_path / "s.jsonl") == without_seconds(tmp_path / "w.jsonl")
