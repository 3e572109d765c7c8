"""The order in which training rows come, and what was generated but not yet trained on.

The order is drawn from the seed and the epoch alone: TRL's sampler goes on drawing from one
generator, so a run that is resumed in its second epoch sees the rows in the order of the first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import Sampler

from rank_rl import seeds


class Repeated(Sampler):  # type: ignore[misc]
    """Rows in runs of ``size``, each row ``each`` times and each run ``times`` times in a row.

    What is left over in an epoch waits for another one.

    Args:
        count: how many rows there are.
        order: gives the rows of an epoch. It is asked at the beginning of each: in a resumed run
            the trainer does not reach a sampler behind all its wrappers, to tell it the epoch.
        size: different rows a run.
        times: how often a run comes before the next.
        each: how often a row comes within a run, one after the other.
    """

    def __init__(
        self, count: int, *, order: Callable[[], list[int]], size: int, times: int, each: int = 1
    ) -> None:
        self.count, self.order = count, order
        self.size, self.times, self.each = size, times, each

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        for start in range(0, self.count - self.size + 1, self.size):
            for _ in range(self.times):
                for row in order[start : start + self.size]:
                    yield from [row] * self.each

    def __len__(self) -> int:
        return self.count // self.size * self.size * self.times * self.each


def shuffled(count: int, seed: int, epochs: float | None) -> list[int]:
    """Rows in an order of the seed and the epoch, the number of ``epochs`` so far, whole or not."""
    order = list(range(count))
    number = int((epochs or 0) + 1e-6)  # 2 may have been reached by thirds
    seeds.rng(seed, "batches", number).shuffle(order)
    return order


def dealt(count: int, size: int, rng: random.Random) -> list[int]:
    """An order of ``count`` rows, drawn from ``rng``, that keeps groups of ``size`` together."""
    whole = [list(range(start, min(count, start + size))) for start in range(0, count, size)]
    rng.shuffle(whole)
    return [i for group in whole for i in group]


def hold(path: Path, step: int, inputs: list[dict[str, Any]], accelerator: Any) -> None:
    """Keep the batches of one process that a checkpoint was written before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "inputs": inputs, "processes": accelerator.num_processes}
    torch.save(state, path)


def held(path: Path, accelerator: Any) -> tuple[int, list[dict[str, Any]]] | None:
    """The step and batches that ``hold`` kept; None on every process when one has none.

    Rows were dealt to a number of processes, so another number starts with new ones.
    """
    state = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    if not all(gather_object([state.get("processes") == accelerator.num_processes])):
        return None
    device = accelerator.device
    batches = [{k: v.to(device) for k, v in batch.items()} for batch in state["inputs"]]
    return state["step"], batches
