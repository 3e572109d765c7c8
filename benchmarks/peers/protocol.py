"""How a worker of ``benchmarks/rerank.py`` talks: JSON lines on standard input and output.

``serve`` answers ``open`` (prepare a system for a workload) and ``rank`` (a block of tasks), one
message at a time, until its input ends. Whatever a library prints goes to standard error. Needs
nothing but Python, as every worker runs in the environment of its own system.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

Task = Mapping[str, Any]  # {"qid", "query", "documents": [{"id", "text"}]}, in first-stage order


@dataclass(kw_only=True)
class Ranked:
    """What a system made of a block of tasks.

    Attributes:
        rankings: docids of every task, best first.
        calls: prompts asked (documents, where each has a prompt or a pair of its own).
        rows: token ids of everything that the model had to read, generated tokens but the last
            included: what the floor is counted from. Empty where they are not known.
        written: generated tokens, or labels read.
        computed: tokens that went through the model, padding included; 0 where it is not known.
        texts: generated answers in the order asked, to compare systems by.
    """

    rankings: list[list[str]] = field(default_factory=list)
    calls: int = 0
    rows: list[list[int]] = field(default_factory=list)
    written: int = 0
    computed: int = 0
    texts: list[str] = field(default_factory=list)


class Opened(Protocol):
    """A system that is ready for one workload."""

    def rank(self, tasks: Sequence[Task]) -> Callable[[], Ranked]:
        """Rank tasks; what is returned is called after the clock has stopped."""
        ...


Open = Callable[[Mapping[str, Any], Mapping[str, Any]], Opened]


def serve(open_system: Open, packages: Sequence[str]) -> None:
    """Answer messages until there are no more.

    Args:
        open_system: makes a system of (settings, workload); settings are those of the message.
        packages: whose versions are told.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    opened: dict[str, Opened] = {}
    for line in sys.stdin:
        message = json.loads(line)
        try:
            reply = _answer(message, opened, open_system, packages)
        except Exception as error:  # told to the harness, which leaves this system out
            reply = {"error": f"{type(error).__name__}: {error}".strip()[:500]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _answer(
    message: Mapping[str, Any], opened: dict[str, Opened], make: Open, packages: Sequence[str]
) -> dict[str, Any]:
    if message["do"] == "open":
        opened[message["system"]] = make(message["settings"], message["workload"])
        return {"versions": {name: version(name) for name in packages}}
    if message["do"] == "close":
        opened.clear()
        return {}
    system, tasks = opened[message["system"]], message["tasks"]
    started, used = time.perf_counter(), time.process_time()
    told = system.rank(tasks)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    ranked = told()
    return {**vars(ranked), "seconds": seconds, "cpu_seconds": cpu}


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
