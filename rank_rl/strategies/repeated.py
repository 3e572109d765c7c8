"""Another strategy several times over, each time with documents shown in another order.

Averaging over orders of the input takes a model's preference for positions out (permutation
self-consistency, Tang et al., 2023, arXiv 2310.07712).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rank_rl.records import Outcome, Ranking, RankingTask, View
from rank_rl.seeds import derive, rng
from rank_rl.strategies.base import Plan, Strategy, answered, at_least, one_of, place
from rank_rl.strategies.together import Step, costs_fixed, inner, together


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Mean place, or mean score, over ``times`` runs of a strategy.

    The documents of every question are shuffled; which documents a strategy chooses to show, and
    what it makes of a failed answer, still follows the first stage, whose ranks they keep. What
    the strategy itself draws differs between the runs unless its ``seed`` is given. A run whose
    questions all failed casts no vote; without any vote first-stage order is kept. Ties by
    first-stage rank.

    Args:
        strategy: name and params of the strategy to repeat.
        times: runs; all of them go on side by side, so that they are as deep as one.
        by: ``position`` averages places; ``score`` the scores of those runs that have them (not
            all strategies do, and none with unread documents), or places where no run has.
        seed: run seed; what is drawn depends on it, the query id and the run only.

    Raises:
        RecipeError: values out of range, or the inner strategy cannot be made.
    """

    strategy: Mapping[str, Any]
    times: int = 3
    by: Literal["position", "score"] = "position"
    seed: int = 0
    inner: tuple[Strategy, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least("repeated", 1, times=self.times)
        at_least("repeated", 0, seed=self.seed)
        one_of("repeated", ("position", "score"), by=self.by)
        made = (
            inner(self.strategy, holder="repeated", seed=derive(self.seed, "repeated", i))
            for i in range(self.times)
        )
        object.__setattr__(self, "inner", tuple(made))

    @property
    def fixed_cost(self) -> bool:
        """Whether the number of questions does not depend on the answers."""
        return costs_fixed(self.inner)

    def plan(self, task: RankingTask) -> Plan:
        """Yield what all runs ask together; ``times`` the calls of one run, as deep as one."""
        runs = yield from together([self._run(task, number) for number in range(self.times)])
        rankings = [ranking for ranking in runs if ranking is not None]
        scored = [r for r in rankings if r.scores] if self.by == "score" else []
        values = [_scores(r) for r in scored] or [_places(r) for r in rankings]
        if not values:
            return place(task, {})
        return place(task, {d: sum(v[d] for v in values) / len(values) for d in task.docids})

    def _run(self, task: RankingTask, number: int) -> Step[Ranking | None]:
        """One run of the strategy; None when every answer failed."""
        plan = self.inner[number].plan(task)
        outcomes: list[Outcome] | None = None
        asked = heard = 0
        while True:
            try:
                views = next(plan) if outcomes is None else plan.send(outcomes)
            except StopIteration as stop:
                ranking: Ranking = stop.value
                return ranking if heard or not asked else None
            outcomes = yield [self._shuffled(view, number) for view in views]
            asked += len(outcomes)
            heard += sum(map(answered, outcomes))

    def _shuffled(self, view: View, number: int) -> View:
        """The documents of a view in another order, under the same labels.

        Views of the same documents are shuffled alike, so that a pair asked in both orders stays
        asked in both.
        """
        candidates = list(view.candidates)
        names: Sequence[str] = sorted(view.docids)
        rng(self.seed, "repeated", view.query.qid, number, *names).shuffle(candidates)
        return View(query=view.query, candidates=tuple(candidates), labels=view.labels)


def _places(ranking: Ranking) -> dict[str, float]:
    """Score by place: the number of documents for the first, 1 for the last."""
    return {d: float(len(ranking.docids) - i) for i, d in enumerate(ranking.docids)}


def _scores(ranking: Ranking) -> dict[str, float]:
    return dict(zip(ranking.docids, ranking.scores, strict=True))
