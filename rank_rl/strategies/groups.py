"""Random groups, asked several times over, averaged (GroupRank, 2025, arXiv 2511.11653).

Groups are random because groups in first-stage order measured worse there (36.2 against 38.0);
all groups of all repeats are one batch, so the sequential depth is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rank_rl.records import RankingTask, numbered
from rank_rl.seeds import rng
from rank_rl.strategies.base import Plan, at_least, parts, place, votes


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Mean of a document's scores over ``repeats`` random partitions into groups.

    Groups are filled evenly, so a group of one document occurs only where nothing else is
    possible. Orders count by position (1 first, 0 last). A failed group casts no vote; a document
    without any vote keeps its first-stage position.

    Args:
        size: most documents in a group.
        repeats: partitions drawn; averaging gains little beyond 4.
        seed: run seed; the draw depends on it, the query id and the repeat only.

    Raises:
        RecipeError: values out of range.
    """

    fixed_cost: ClassVar[bool] = True

    size: int = 20
    repeats: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("groups", 2, size=self.size)
        at_least("groups", 1, repeats=self.repeats)
        at_least("groups", 0, seed=self.seed)

    def plan(self, task: RankingTask) -> Plan:
        """Yield all groups at once; ``repeats * ceil(n / size)`` calls, depth 1."""
        views = []
        for repeat in range(self.repeats):
            shuffled = list(task.candidates)
            rng(self.seed, "groups", task.query.qid, repeat).shuffle(shuffled)
            views += [numbered(task.query, part) for part in parts(shuffled, self.size)]
        outcomes = yield views
        cast: dict[str, list[float]] = {}
        for view, outcome in zip(views, outcomes, strict=True):
            for docid, score in (votes(outcome, view) or {}).items():
                cast.setdefault(docid, []).append(score)
        return place(task, {d: sum(given) / len(given) for d, given in cast.items()})
