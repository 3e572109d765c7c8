"""Processes that start at once: forked from one that has imported torch, Trainer and openai.

Each has its own memory and exit status and can be killed. For tests of what a process leaves
behind; that Python itself starts is tested by the few that run ``python -m rank_rl``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["rank_rl.training.grpo_text", "rank_rl.teachers.run", "rank_rl.cli.app", "openai"]
)


def start(
    work: Callable[..., Any], *arguments: Any, said: Path, env: Mapping[str, str] | None = None
) -> BaseProcess:
    """Call ``work``, a function of a module, in a process of its own.

    It has this process's current folder and environment, with ``env`` besides; what it prints is
    added to ``said``.
    """
    target = (work, arguments, {**os.environ, **(env or {})}, os.getcwd(), str(said))
    process = _CONTEXT.Process(target=_work, args=target)
    process.start()
    return process


def event() -> Any:
    """Something a process can be given to say by that it has come so far."""
    return _CONTEXT.Event()


def command(
    *arguments: str | Path, said: Path, env: Mapping[str, str] | None = None
) -> BaseProcess:
    """``rank-rl`` with these arguments; see ``start``."""
    return start(_command, *map(str, arguments), said=said, env=env)


def _work(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    folder: str,
    said: str,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    work(*arguments)


def _command(*arguments: str) -> None:
    from rank_rl.cli.app import main

    sys.argv = ["rank-rl", *arguments]
    main()
