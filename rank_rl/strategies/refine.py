"""Two strategies in a row: one over all candidates, another one over the top of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rank_rl.records import Ranking, RankingTask
from rank_rl.strategies.base import Plan, Strategy, at_least
from rank_rl.strategies.together import costs_fixed, inner


@dataclass(frozen=True, slots=True, kw_only=True)
class Refine:
    """The top ``depth`` documents of one ranking, ranked again.

    For the second strategy the first result is the first stage: ties, failed answers, and what a
    prompt tells of first-stage ranks follow it. The documents below keep its order.

    Args:
        strategy: name and params of the strategy that ranks the top again.
        first: name and params of the one before; None takes the first stage's order.
        depth: documents that are ranked again; None takes all.
        seed: run seed, for inner strategies that draw.

    Raises:
        RecipeError: values out of range, or an inner strategy cannot be made.
    """

    strategy: Mapping[str, Any]
    first: Mapping[str, Any] | None = None
    depth: int | None = 10
    seed: int = 0
    inner: tuple[Strategy, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least("refine", 1, or_null=True, depth=self.depth)
        at_least("refine", 0, seed=self.seed)
        given = [self.strategy] if self.first is None else [self.first, self.strategy]
        made = (inner(spec, holder="refine", seed=self.seed) for spec in given)
        object.__setattr__(self, "inner", tuple(made))

    @property
    def fixed_cost(self) -> bool:
        """Whether the number of questions does not depend on the answers."""
        return costs_fixed(self.inner)

    def plan(self, task: RankingTask) -> Plan:
        """Yield what the two ask, one after the other; calls and depths add up."""
        docids = task.docids
        depth = self.depth or len(docids)
        for first in self.inner[:-1]:
            docids = (yield from first.plan(task)).docids
        by_docid = {c.docid: c for c in task.candidates}
        top = tuple(replace(by_docid[d], rank=i + 1) for i, d in enumerate(docids[:depth]))
        ranking = yield from self.inner[-1].plan(replace(task, candidates=top))
        scores = ranking.scores if len(top) == len(docids) else ()
        return Ranking(qid=ranking.qid, docids=(*ranking.docids, *docids[depth:]), scores=scores)
