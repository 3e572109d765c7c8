"""``rank-rl`` and Python code in a process that talks to the Hub of the tests, kept for many calls.

The Hub's client reads its address when it is imported, and the tests themselves run offline: hence
another process. It is started once, as importing torch takes longer than any of these tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_server import WRITE

LOOP = """
import contextlib, io, json, logging, os, sys, traceback, warnings
from rank_rl.cli.app import app
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    job = json.loads(line)
    os.environ.update(job["env"])
    for name in job["unset"]:
        os.environ.pop(name, None)
    os.chdir(job["cwd"])
    logging.getLogger().handlers.clear()
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if "code" in job:
                exec(compile(job["code"], "<test>", "exec"), {"__name__": "__test__"})
            else:
                app(job["args"])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
            status = 1
    answers.write(json.dumps([status, out.getvalue(), err.getvalue()]) + "\\n")
    answers.flush()
"""


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str


def environment(url: str, home: Path, token: str | None = WRITE) -> dict[str, str]:
    """Variables of a process that talks to the Hub at ``url`` and shares no cache with anybody."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",  # large files go over plain HTTP, which the Hub here speaks
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return {**kept, **own, **({"HF_TOKEN": token} if token else {})}


class Client:
    """The process."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=environment(url, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *args: str | Path, cwd: Path | None = None, token: str | None = WRITE) -> Done:
        """A command of ``rank-rl``."""
        return self._do({"args": [str(a) for a in args]}, cwd, token)

    def python(self, code: str) -> Done:
        """Code, in a namespace of its own."""
        return self._do({"code": code}, None, WRITE)

    def publish(self, *args: str | Path, cwd: Path | None = None, status: int = 0) -> Done:
        """``rank-rl publish``, which has to end with ``status``."""
        done = self.run("publish", *args, cwd=cwd)
        assert done.status == status, done.err
        return done

    def _do(self, job: dict[str, Any], cwd: Path | None, token: str | None) -> Done:
        assert self._process.stdin is not None and self._process.stdout is not None
        env = {"HF_TOKEN": token} if token else {}
        job |= {"env": env, "unset": [] if token else ["HF_TOKEN"], "cwd": str(cwd or self.home)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client's process has ended"
        return Done(*json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
