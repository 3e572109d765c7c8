"""Running ``rank-rl rerank`` here or in a process of its own, and comparing what it leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from rank_rl.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


def invoke(*options: Any) -> Any:
    """The command in this process, with its exit code and what it said."""
    return CliRunner().invoke(app, ["rerank", *map(str, options)])


def done(*options: Any) -> Any:
    """The same, of a command that has to succeed."""
    result = invoke(*options)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*options: Any) -> str:
    """The one line that a command says whose user did something wrong."""
    result = invoke(*options)
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(said) == 1, (result.stderr, result.exception)
    return said[0]


def started(*options: Any, cwd: Path) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "ACCELERATE_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rank_rl", "rerank", *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def without_seconds(path: Path) -> str:
    """A file's text with all seconds the same."""
    return re.sub(r'"seconds": [-0-9.e]+', '"seconds": 0', path.read_text(encoding="utf-8"))


def summary(output: Path) -> dict[str, Any]:
    """The summary beside a run."""
    found: dict[str, Any] = json.loads(output.with_name(f"{output.name}.json").read_text())
    return found
