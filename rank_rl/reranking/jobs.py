"""Asking about many queries in portions, alone or as one of several processes.

Contract: a portion is the same queries whenever and wherever it is asked, and is kept when it is
whole; so work that was stopped, or shared, gives the bytes of work that was not. Reading, writing
and what the answers are good for are left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_rl.bench.answered import Progress, answered, in_parts
from rank_rl.formats import kind
from rank_rl.ranker import Ranker
from rank_rl.records import RankingTask
from rank_rl.reranking.kept import Kept, given_up
from rank_rl.reranking.settings import check_same
from rank_rl.reranking.shares import Team, length, portions, shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be answered.

    Attributes:
        tasks: queries with candidates; ids are distinct.
        folder: where answers are kept.
        settings: what decides them (``settings.settings``).
        overwrite: begin anew.
    """

    tasks: Sequence[RankingTask]
    folder: Path
    settings: Mapping[str, Any]
    overwrite: bool = False

    @property
    def size(self) -> int:
        """How many queries are asked together."""
        return int(self.settings["portion"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is left to ask: the portions of each process; ``settings`` are the first one's."""

    shares: list[list[int]]
    settings: Mapping[str, Any]
    before: int

    def left(self, job: Job) -> list[RankingTask]:
        """The queries of all processes that are not answered."""
        return _of(job, sorted(number for share in self.shares for number in share))


def opened(job: Job, ranker: Ranker, team: Team) -> tuple[Kept, Plan]:
    """Look at what is kept and divide what is left; all processes have to call it.

    Raises:
        RecipeError: what is kept was answered with other settings, or another process has others.
        DataError: another process is at work in the folder.
        StorageError: the folder cannot be written.
    """
    kept = Kept(job.folder, job.settings, rank=team.rank)
    made: Any = None
    if team.main:
        kept.open(overwrite=job.overwrite)
        made = _plan(job, ranker, kept, team.world)
    plan: Plan = team.told(made)
    check_same(plan.settings, job.settings, f"process {team.rank}")
    return kept, plan


def ask(
    job: Job, ranker: Ranker, team: Team, kept: Kept, plan: Plan, progress: Progress | None = None
) -> None:
    """Answer this process's portions of a plan and wait for the others.

    Afterwards ``kept`` of the first process holds all answers.

    Raises:
        RankRLError: the model or the server cannot answer, or the disk is full; what was answered
            before is kept.
    """
    own = _of(job, plan.shares[team.rank])
    writes = kind(ranker.fmt) == "text" and ranker.fmt.mode == "reason"
    reasons = writes and ranker.reasoning == "write" and ranker.readout != "score"
    depth = int(job.settings["explanations"])
    # Only the last portion of all may be short, and it is the last one of its share.
    try:
        for portion, report in in_parts(own, job.size, progress):
            results = ranker.rank_tasks(portion, explain=depth, progress=report)
            kept.add([answered(result, reasons=reasons) for result in results])
    finally:
        kept.close()
    team.wait()
    if team.main and team.world > 1:
        kept.refresh([task.query.qid for task in job.tasks])


def _plan(job: Job, ranker: Ranker, kept: Kept, processes: int) -> Plan:
    # A server may answer the next time; a prompt that is too long for a model stays so.
    again = getattr(ranker.generator, "backend", None) is not None

    def open_(task: RankingTask) -> bool:
        place = kept.found.get(task.query.qid)
        return place is None or (again and given_up(place.answer))

    tokens = ranker.fmt.spec.doc_tokens
    lengths = {
        number: sum(length(task, tokens) for task in portion)
        for number, portion in enumerate(portions(job.tasks, job.size))
        if any(map(open_, portion))
    }
    left = sum(len(_of(job, [number])) for number in lengths)
    return Plan(
        shares=shared(lengths, processes),
        settings=job.settings,
        before=len(job.tasks) - left,
    )


def _of(job: Job, numbers: Sequence[int]) -> list[RankingTask]:
    found = portions(job.tasks, job.size)
    return [task for number in numbers for task in found[number]]
