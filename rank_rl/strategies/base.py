"""What every strategy shares: its protocol, the votes of one outcome, and placing by votes.

A strategy is a generator function that yields batches of views, receives their outcomes in the
same order and returns a total ranking. It asks no model itself; ``drive`` runs it. What a parse
failure means is decided here: it casts no vote and picks nothing, so first-stage order is kept
(and counted).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Protocol, TypeAlias

from rank_rl.errors import RecipeError
from rank_rl.records import (
    Candidate,
    Outcome,
    Pick,
    Query,
    Ranking,
    RankingTask,
    Scores,
    View,
    numbered,
)
from rank_rl.seeds import rng

Plan: TypeAlias = Generator[list[View], list[Outcome], Ranking]


class Strategy(Protocol):
    """Which views of a task are asked, and how their outcomes become one ranking.

    An attribute ``fixed_cost`` that is True says that the number of questions, of documents they
    show and of rounds does not depend on the answers; without it, costs are estimates.
    """

    def plan(self, task: RankingTask) -> Plan:
        """Yield views to ask together, receive their outcomes, return the task's ranking.

        It yields at least once, an empty list where there is nothing to ask.
        """
        ...


def at_least(strategy: str, minimum: int, *, or_null: bool = False, **values: int | None) -> None:
    """Refuse parameters that are not whole numbers of at least ``minimum``.

    Args:
        strategy: its name, for the message.
        minimum: least value.
        or_null: whether None is a value as well.
        values: parameters by name.

    Raises:
        RecipeError: naming the strategy, the parameter and its value.
    """
    for name, value in values.items():
        if value is None and or_null:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise RecipeError(
                f"{name} is {value!r}",
                where=f"strategy {strategy!r}",
                expected=f"an integer of at least {minimum}" + (" or null" if or_null else ""),
            )


def flag(strategy: str, **values: bool) -> None:
    """Refuse parameters that are not true or false.

    Raises:
        RecipeError: naming the strategy, the parameter and its value.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise RecipeError(
                f"{name} is {value!r}", where=f"strategy {strategy!r}", expected="true or false"
            )


def one_of(strategy: str, known: Sequence[str], **values: str) -> None:
    """Refuse parameters that are not one of the names ``known``.

    Raises:
        RecipeError: naming the strategy, the parameter, its value and those known.
    """
    for name, value in values.items():
        if value not in known:
            raise RecipeError(
                f"{name} is {value!r}", where=f"strategy {strategy!r}", expected=" or ".join(known)
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


def best(outcome: Outcome, view: View) -> str | None:
    """Docid that an outcome puts first, whatever its kind; None where it says nothing about that.

    The document picked as the best; the first of an order; the one with the highest score, ties by
    first-stage rank. Nothing is said by a failed outcome, by names of documents that were not
    shown only, by scores of fewer than two of several documents, or by a pick of the worst.
    """
    return _end(outcome, view, worst=False)


def worst(outcome: Outcome, view: View) -> str | None:
    """Docid that an outcome puts last; otherwise as ``best``.

    Documents that an order leaves out come last, as everywhere (``Outcome.as_order``).
    """
    return _end(outcome, view, worst=True)


def _end(outcome: Outcome, view: View, *, worst: bool) -> str | None:
    if not answered(outcome) or outcome.answer is None:
        return None
    answer = outcome.answer
    if isinstance(answer, Pick):
        return answer.docid if answer.worst == worst and answer.docid in view.docids else None
    if isinstance(answer, Scores):
        cast = votes(outcome, view) or {}
        order = sorted((d for d in view.by_first_stage() if d in cast), key=lambda d: -cast[d])
        if len(order) < min(2, len(view.docids)):
            return None
    else:
        named = any(d in view.docids for d in answer.docids)
        order = list(outcome.as_order(view)) if named else []
    return order[-1 if worst else 0] if order else None


def not_picking(strategy: str, outcome: Outcome, *, worst: bool) -> None:
    """Refuse an answer that picks the other end than the strategy asks for.

    Raises:
        RecipeError: the recipe's format picks the worst (``worst``) or the best document.
    """
    if isinstance(outcome.answer, Pick) and outcome.answer.worst == worst:
        picks, wants = ("worst", "best") if worst else ("best", "worst")
        raise RecipeError(
            f"the format picks the {picks} document",
            where=f"strategy {strategy!r}",
            expected=f"a format that picks the {wants}, or orders or scores documents",
        )


def shown(query: Query, candidates: Sequence[Candidate], seed: int | None = None) -> View:
    """A view of candidates in first-stage order, whatever is known of them by now.

    With a seed they are shuffled instead; the draw depends on the query and the documents only, so
    that the same documents are shown in the same order whenever they meet again.
    """
    ordered = sorted(candidates, key=lambda c: (c.rank, c.docid))
    if seed is not None:
        rng(seed, "shown", query.qid, *(c.docid for c in ordered)).shuffle(ordered)
    return numbered(query, ordered)


def above(task: RankingTask, docids: Sequence[str]) -> Ranking:
    """The documents named, best first, above all others in first-stage order."""
    named = set(docids)
    return Ranking(
        qid=task.query.qid, docids=(*docids, *(d for d in task.docids if d not in named))
    )


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


def has_no_scores(outcome: Outcome) -> bool:
    """Whether an outcome is an order or a pick rather than scores."""
    return outcome.answer is not None and not isinstance(outcome.answer, Scores)
