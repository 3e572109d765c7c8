"""Sliding window from the back of the list to the front (Sun et al., 2023, RankGPT).

Each window is ordered and the next, nearer the front, starts from that result; with an answerer
that makes no mistake, ``p`` passes put the best ``p * (window - step)`` documents in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rank_rl.errors import RecipeError
from rank_rl.records import Ranking, RankingTask, numbered
from rank_rl.strategies.base import Plan, answered, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """Overlapping windows; every document is shown in every pass, whatever the list's length.

    The frontmost window is filled up to ``window`` documents instead of being cut short. A window
    whose answer failed stays as it is, and is counted.

    Args:
        window: documents a prompt shows.
        step: how far the window moves; less than ``window``, or nothing would be carried on.
        passes: how often the whole list is gone through, each on the result of the one before.

    Raises:
        RecipeError: values out of range.
    """

    fixed_cost: ClassVar[bool] = True

    window: int = 20
    step: int = 10
    passes: int = 1

    def __post_init__(self) -> None:
        at_least("sliding", 1, step=self.step, passes=self.passes)
        at_least("sliding", 2, window=self.window)
        if self.step >= self.window:
            raise RecipeError(
                f"step is {self.step} with window {self.window}",
                where="strategy 'sliding'",
                expected="a step smaller than the window",
            )

    def starts(self, length: int) -> list[int]:
        """Where the windows of one pass over ``length`` documents begin, back to front."""
        return [*range(length - self.window, 0, -self.step), 0]

    def plan(self, task: RankingTask) -> Plan:
        """Yield one view at a time; calls and depth are ``passes * len(starts(n))``."""
        current = list(task.candidates)
        for _ in range(self.passes):
            for start in self.starts(len(current)):
                shown = current[start : start + self.window]
                view = numbered(task.query, shown)
                (outcome,) = yield [view]
                if answered(outcome):
                    by_docid = {c.docid: c for c in shown}
                    reordered = [by_docid[d] for d in outcome.as_order(view)]
                    current[start : start + self.window] = reordered
        return Ranking(qid=task.query.qid, docids=tuple(c.docid for c in current))
