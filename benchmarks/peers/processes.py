"""Workers as processes: started in their environments, asked one at a time, stopped in between.

A worker that is not asked stands still (SIGSTOP to its process group), so that no idle thread or
polling engine takes time from the system that is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PATIENCE = 20  # seconds that a worker has to end by itself

# What ``rank-rl rerank`` and ``rank-rl serve`` do by themselves (``cli.process.keep_memory``).
MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_ARENA_MAX": "1",
}


class WorkerError(Exception):
    """A worker refused, died or took too long; the message says what it said."""


class Worker:
    """One ``worker_*.py`` in a Python of its own.

    Args:
        script: its file in this folder.
        python: the interpreter of its environment.
        threads: what all workers are given.
        log: where its standard error goes.
        timeout: most seconds for one answer.
    """

    def __init__(
        self, script: str, python: str, *, threads: int, log: Path, timeout: float
    ) -> None:
        self.log, self.timeout = log, timeout
        environment = {
            **{k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"},
            **MEMORY,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "PYTHONPATH": str(FOLDER.parents[1]),
        }
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [python, str(FOLDER / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self._signal(signal.SIGSTOP)

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and wait for its answer; the worker runs only meanwhile.

        Raises:
            WorkerError: it says so, it ended, or it took longer than the time allowed.
        """
        pipes = self.process.stdin, self.process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise WorkerError("the worker has no pipes")
        self._signal(signal.SIGCONT)
        clock = threading.Timer(self.timeout, self._signal, [signal.SIGKILL])
        clock.start()
        try:
            pipes[0].write(json.dumps(message) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        finally:
            clock.cancel()
        if not line:
            raise WorkerError(self._last_words())
        self._signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the worker and all that it started: at the end of its input, or by force."""
        self._signal(signal.SIGCONT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=PATIENCE)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _last_words(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        return f"ended with status {self.process.returncode}: {(said or [''])[-1][:300]}"


def python_of(environments: Mapping[str, str], name: str) -> str | None:
    """The interpreter of an environment that was named; None where none was."""
    folder = environments.get(name)
    if folder is None:
        return None
    return str(Path(folder) / "bin" / "python")
