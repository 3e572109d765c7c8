"""Several processes that share the units of one run, as ``accelerate launch`` starts them.

Query i, with all its draws, belongs to process i modulo their number: draws of one query may share
prompts, which must not be paid for twice. Each process writes a store of its own and resumes
by itself; the first one waits for the others and then writes the output from all stores, which is
therefore the same as that of a single process.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rank_rl.teachers.units import Unit

# Processes may finish hours apart.
_PATIENCE = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """This process among all: number ``rank`` of ``world``."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Shard:
        """Read it from the environment that a launcher sets."""
        return cls(
            rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1"))
        )

    @property
    def main(self) -> bool:
        """Whether this process writes the output."""
        return self.rank == 0

    def of(self, units: Sequence[Unit]) -> list[Unit]:
        """The units that this process asks about."""
        places: dict[str, int] = {}
        numbered = [(places.setdefault(u.task.query.qid, len(places)), u) for u in units]
        return [unit for number, unit in numbered if number % self.world == self.rank]

    def share(self, left: float) -> float:
        """This process's part of what is left below a limit."""
        return left / self.world

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world < 2:
            return
        import torch.distributed as dist

        if not dist.is_initialized():
            # gloo also where there are GPUs: nothing but this barrier is communicated.
            dist.init_process_group("gloo", timeout=_PATIENCE)
        dist.barrier()
