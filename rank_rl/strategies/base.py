"""What every strategy shares: its protocol, the votes of one outcome, and placing by votes.

A strategy is a generator function that yields batches of views, receives their outcomes in the
same order and returns a total ranking. It asks no model itself; ``drive`` runs it. What a parse
failure means is decided here: it casts no vote, so first-stage order is kept (and counted).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Protocol, TypeAlias

from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Order, Outcome, Pick, Ranking, RankingTask, Scores, View

Plan: TypeAlias = Generator[list[View], list[Outcome], Ranking]


class Strategy(Protocol):
    """Which views of a task are asked, and how their outcomes become one ranking."""

    def plan(self, task: RankingTask) -> Plan:
        """Yield views to ask together, receive their outcomes, return the task's ranking."""
        ...


def at_least(strategy: str, minimum: int, **values: int | None) -> None:
    """Refuse parameters that are not whole numbers of at least ``minimum`` (None is allowed).

    Raises:
        RecipeError: naming the strategy, the parameter and its value.
    """
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise RecipeError(
                f"{name} is {value!r}",
                where=f"strategy {strategy!r}",
                expected=f"an integer of at least {minimum}",
            )


def answered(outcome: Outcome) -> bool:
    """Whether an outcome says anything about the order; a failed one never does."""
    return outcome.status != "failed" and outcome.answer is not None


def votes(outcome: Outcome, view: View) -> dict[str, float] | None:
    """Scores by docid that an outcome casts for the documents shown; None when it failed.

    Scores are taken as they are; a document without a finite score gets one less than the lowest
    score given, so that it comes last; an unread one gets no vote. An order becomes positions, 1
    for the first and 0 for the last; an order of a single document says nothing and casts no vote.
    A document picked as the best gets 1 and the others 0, one picked as the worst 0 and they 1.
    """
    if not answered(outcome):
        return None
    if isinstance(outcome.answer, Scores):
        values, unread = outcome.answer.values, outcome.answer.unread
        given = {d: float(values.get(d, math.nan)) for d in view.docids if d not in unread}
        finite = [v for v in given.values() if math.isfinite(v)]
        if not finite:
            return None
        last = min(finite) - 1.0
        return {d: v if math.isfinite(v) else last for d, v in given.items()}
    if len(view.docids) < 2:
        return {}
    if isinstance(outcome.answer, Pick):
        picked, others = (0.0, 1.0) if outcome.answer.worst else (1.0, 0.0)
        return {d: picked if d == outcome.answer.docid else others for d in view.docids}
    order = outcome.as_order(view)
    return {d: 1.0 - i / (len(order) - 1) for i, d in enumerate(order)}


def place(task: RankingTask, scores: Mapping[str, float]) -> Ranking:
    """Rank a task by score, ties by first-stage rank.

    A document without a score keeps its first-stage position; the others fill the positions left.
    """
    if len(scores) == len(task.candidates):
        return Ranking.from_scores(task, scores)
    by_score = sorted(
        (c for c in task.candidates if c.docid in scores), key=lambda c: (-scores[c.docid], c.rank)
    )
    following = iter(by_score)
    docids = tuple(next(following).docid if c.docid in scores else c.docid for c in task.candidates)
    return Ranking(qid=task.query.qid, docids=docids)


def parts(candidates: Sequence[Candidate], size: int) -> list[list[Candidate]]:
    """Cut candidates into the fewest consecutive parts of at most ``size``, evenly filled.

    Sizes differ by at most one, so that for ``size`` above 2 no document is ever left alone.
    """
    count = max(1, math.ceil(len(candidates) / size))
    base, extra = divmod(len(candidates), count)
    cuts, start = [], 0
    for i in range(count):
        end = start + base + (i < extra)
        cuts.append(list(candidates[start:end]))
        start = end
    return cuts


def is_order(outcome: Outcome) -> bool:
    """Whether an outcome is an order rather than scores."""
    return isinstance(outcome.answer, Order)
