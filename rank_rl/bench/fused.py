"""The row that joins a system's rankings with the first stage's, reported apart from the system's.

Fusion can be worth more than the reranker itself, so that a fused number alone says little about a
model. Nothing is asked again: rankings are those of the system, and so are its costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rank_rl.bench.systems import Paths, SystemRun
from rank_rl.data import trec
from rank_rl.records import RankingTask
from rank_rl.specs import BenchSpec, FusionSpec, SystemSpec
from rank_rl.strategies.fusion import fuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the benchmark: its name, the system that was asked, what it found, and its files."""

    name: str
    system: SystemSpec
    run: SystemRun
    paths: Paths


def fused_name(name: str, fusion: FusionSpec) -> str:
    """The name of the row that adds the first stage to a system."""
    return f"{name} + first stage ({fusion.method})"


def row_names(bench: BenchSpec) -> list[str]:
    """Names of all rows in order, fused ones behind their system's."""
    names = []
    for system in bench.systems:
        names.append(system.name)
        if system.fusion is not None:
            names.append(fused_name(system.name, system.fusion))
    return names


def entries(
    system: SystemSpec, found: SystemRun, tasks: Sequence[RankingTask], paths: Paths
) -> list[Entry]:
    """A system's own row, and its fused one if it has a ``fusion``, whose run file is written.

    Raises:
        StorageError: the run file cannot be written.
    """
    rows = [Entry(name=system.name, system=system, run=found, paths=paths)]
    if system.fusion is None:
        return rows
    name = fused_name(system.name, system.fusion)
    rankings = {
        task.query.qid: fuse(
            task, found.rankings[0][task.query.qid], system.fusion.method, system.fusion.weight
        )
        for task in tasks
    }
    own = paths.beside(name)
    trec.write_run(own.run, rankings.values(), f"rank_rl.{own.run.stem}")
    run = replace(found, rankings=[rankings])
    return [*rows, Entry(name=name, system=system, run=run, paths=own)]
