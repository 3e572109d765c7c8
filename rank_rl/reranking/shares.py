"""Several processes that share the queries of one reranking, as ``accelerate launch`` starts them.

Contract: who asks which portion is decided by the first process, by the length of what is shown;
all others are told, so that none depends on what it can see of a shared disk. Nothing but small
facts is communicated (gloo). Asking and keeping are left to ``jobs`` and ``kept``.
"""

from __future__ import annotations

import datetime
import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rank_rl.errors import RecipeError
from rank_rl.records import RankingTask

T = TypeVar("T")
# Processes may finish hours apart.
_PATIENCE = datetime.timedelta(days=30)
_CHARACTERS = 6  # of a token with its blank, more or less


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """This process among all: number ``rank`` of ``world``, number ``local`` on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def current(cls, env: Mapping[str, str] = os.environ) -> Team:
        """Read it from the environment that a launcher sets.

        Raises:
            RecipeError: a launch for several processes started only this one.
        """
        # What ``accelerate launch --cpu --num_processes 2`` leaves behind.
        alone = "MASTER_ADDR" in env and "WORLD_SIZE" not in env
        if alone and "ACCELERATE_MIXED_PRECISION" in env:
            raise RecipeError(
                "several processes were asked for, one runs",
                where="accelerate launch",
                remedy="use distributed_type MULTI_GPU with use_cpu true for several processes on "
                "a CPU",
            )
        return cls(
            rank=int(env.get("RANK", "0")),
            world=int(env.get("WORLD_SIZE", "1")),
            local=int(env.get("LOCAL_RANK", "0")),
        )

    @property
    def main(self) -> bool:
        """Whether this process speaks for all and writes the output."""
        return self.rank == 0

    def device(self, asked: str, env: Mapping[str, str] = os.environ) -> str:
        """The device of this process where none is asked for: each has a GPU of its own."""
        if asked != "auto" or self.world < 2:
            return asked
        import torch

        if env.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1"):
            return "cpu"
        count = torch.cuda.device_count()
        return f"cuda:{self.local % count}" if count else "cpu"

    def told(self, value: T) -> T:
        """What the first process says; all have to call it."""
        if self.world < 2:
            return value
        said = [value]
        self._joined().broadcast_object_list(said, src=0)
        return said[0]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            self._joined().barrier()

    def _joined(self) -> Any:
        import torch.distributed as dist

        if not dist.is_initialized():
            # gloo also where there are GPUs: nothing but these facts is communicated.
            dist.init_process_group("gloo", timeout=_PATIENCE)
        return dist


def portions(tasks: Sequence[RankingTask], size: int) -> list[Sequence[RankingTask]]:
    """The tasks in portions of ``size``, in order."""
    return [tasks[i : i + size] for i in range(0, len(tasks), size)]


def length(task: RankingTask, doc_tokens: int) -> int:
    """Characters that are shown of a task, more or less."""
    most = doc_tokens * _CHARACTERS
    return len(task.query.text) + sum(min(len(c.content), most) for c in task.candidates)


def shared(lengths: Mapping[int, int], processes: int) -> list[list[int]]:
    """Portions for each process, about as long in sum: the longest first, to who has least.

    Args:
        lengths: number of a portion → its length.
        processes: how many share them.

    Returns:
        Numbers of portions, ascending, one list a process.
    """
    held = [(0, process) for process in range(processes)]
    found: list[list[int]] = [[] for _ in range(processes)]
    for number in sorted(lengths, key=lambda n: (-lengths[n], n)):
        load, process = heapq.heappop(held)
        found[process].append(number)
        heapq.heappush(held, (load + lengths[number], process))
    return [sorted(numbers) for numbers in found]
