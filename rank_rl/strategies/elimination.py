"""Iterative elimination: the worst document is asked for and leaves (IRanker, arXiv 2506.21638)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rank_rl.records import Ranking, RankingTask
from rank_rl.strategies.base import Plan, at_least, flag, not_picking, shown, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class Elimination:
    """Remove the worst document until ``keep`` are left.

    Those kept stand on top in first-stage order, then the others, the last one removed first. When
    more than ``size`` documents are left, the last ``size`` of them by the first stage are shown:
    with an answerer that makes no mistake the first ``size - 1`` places are then perfect, and all
    of them where everything is shown. A failed answer removes the document shown that the first
    stage ranks last.

    Args:
        size: most documents shown at once; None shows all that are left.
        keep: how many are left unasked.
        shuffle: show documents in an order drawn for each set of them instead of the first
            stage's.
        seed: run seed of that draw.

    Raises:
        RecipeError: values out of range; or, while running, answers that pick the best document.
    """

    fixed_cost: ClassVar[bool] = True

    size: int | None = None
    keep: int = 1
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("elimination", 2, or_null=True, size=self.size)
        at_least("elimination", 1, keep=self.keep)
        at_least("elimination", 0, seed=self.seed)
        flag("elimination", shuffle=self.shuffle)

    def plan(self, task: RankingTask) -> Plan:
        """Yield one view at a time; calls and depth are ``n - keep``, or 0."""
        left = list(task.candidates)
        removed: list[str] = []
        if len(left) <= self.keep:
            yield []
        while len(left) > self.keep:
            pool = left[-self.size :] if self.size else left
            view = shown(task.query, pool, self.seed if self.shuffle else None)
            (outcome,) = yield [view]
            not_picking("elimination", outcome, worst=False)
            docid = worst(outcome, view) or view.by_first_stage()[-1]
            left = [c for c in left if c.docid != docid]
            removed.append(docid)
        kept = tuple(c.docid for c in left)
        return Ranking(qid=task.query.qid, docids=(*kept, *reversed(removed)))
