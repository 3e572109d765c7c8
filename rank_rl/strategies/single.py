"""One view of all candidates, or of the first ``depth``: the plain listwise question.

Documents below ``depth`` keep their first-stage order under the reranked ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rank_rl.records import Ranking, RankingTask, numbered
from rank_rl.strategies.base import Plan, answered, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """Ask once; a failed answer keeps first-stage order.

    Args:
        depth: how many documents of the first stage are shown; None shows all.

    Raises:
        RecipeError: ``depth`` below 1.
    """

    fixed_cost: ClassVar[bool] = True

    depth: int | None = None

    def __post_init__(self) -> None:
        at_least("single", 1, or_null=True, depth=self.depth)

    def plan(self, task: RankingTask) -> Plan:
        """Yield one view; 1 call, depth 1."""
        view = numbered(task.query, task.candidates[: self.depth])
        (outcome,) = yield [view]
        order = outcome.as_order(view) if answered(outcome) else view.docids
        below = task.docids[len(view.docids) :]
        return Ranking(qid=task.query.qid, docids=(*order, *below))
