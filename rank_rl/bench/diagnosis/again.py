"""Asking a system again: its queries in other input orders, or with documents written otherwise.

Contract: tasks go in, rankings come out; what answers is a ``Rank``, which ``by`` makes of a
reranker. Nothing here is measured; ``position`` and ``formatting`` do that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from rank_rl.bench.measures import Judgements, measure
from rank_rl.records import Candidate, Ranking, RankingTask
from rank_rl.seeds import rng

Rank: TypeAlias = Callable[[Sequence[RankingTask]], list[Ranking]]


class Ranks(Protocol):
    """What ranks tasks: ``Reranker``, or anything like it."""

    def rank_tasks(self, tasks: Sequence[RankingTask]) -> Sequence[Any]:
        """One result a task, in order, each with its ``ranking``."""
        ...


def by(reranker: Ranks) -> Rank:
    """The rankings of a reranker; its count of cut documents goes on meanwhile."""
    return lambda tasks: [result.ranking for result in reranker.rank_tasks(tasks)]


def some(tasks: Sequence[RankingTask], count: int, *, seed: int) -> list[RankingTask]:
    """So many of the tasks, drawn by ``seed``, in their order: those that are asked again.

    Only tasks with two candidates or more, and with anything relevant while there are enough.
    """
    able = [i for i, task in enumerate(tasks) if len(task.candidates) > 1]
    rng(seed, "diagnosis").shuffle(able)
    judged = [i for i in able if any(g > 0 for g in (tasks[i].grades or {}).values())]
    others = [i for i in able if i not in set(judged)]
    return [tasks[i] for i in sorted([*judged, *others][: max(0, count)])]


def shuffled(task: RankingTask, *, seed: int, number: int) -> RankingTask:
    """The task as if the first stage had returned its documents in a random order.

    Each document takes over the rank and the score of the place that it comes to, so that hints
    in prompts, ties and unreadable answers follow the new order too.
    """
    drawn = list(task.candidates)
    rng(seed, "input order", number, task.query.qid).shuffle(drawn)
    placed = tuple(
        replace(candidate, rank=place.rank, score=place.score)
        for candidate, place in zip(drawn, task.candidates, strict=True)
    )
    return replace(task, candidates=placed)


def rewritten(task: RankingTask, write: Callable[[Candidate], Candidate]) -> RankingTask:
    """The task with every document written in another way."""
    return replace(task, candidates=tuple(map(write, task.candidates)))


def rankings(
    rank: Rank, tasks: Sequence[RankingTask], given: Mapping[str, Ranking] | None = None
) -> list[Ranking]:
    """One ranking a task: those known already, else what ``rank`` answers.

    Raises:
        ValueError: a ranking is not an order of exactly its task's documents.
    """
    known = given or {}
    if all(task.query.qid in known for task in tasks):
        found = [known[task.query.qid] for task in tasks]
    else:
        found = rank(tasks)
    for task, ranking in zip(tasks, found, strict=True):
        if sorted(ranking.docids) != sorted(task.docids):
            raise ValueError(f"query {task.query.qid!r}: not an order of its documents")
    return found


def values(found: Sequence[Ranking], tasks: Sequence[RankingTask], metric: str) -> dict[str, float]:
    """Value of a metric by query, of those queries that have anything relevant."""
    if not any(g > 0 for task in tasks for g in (task.grades or {}).values()):
        return {}
    by_query = {ranking.qid: ranking for ranking in found}
    return measure(by_query, Judgements.of(tasks), [metric])[metric]
