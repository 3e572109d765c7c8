"""Outcomes of an answerer that knows the grades, or that copies what it is shown.

They serve tests, roll-outs for training rows, and the copy and ceiling lines beside a reward.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from rank_rl.records import Answer, Grades, Order, Outcome, Pick, Scores, View

# What an answer says: an order, scores, or one document, the best or the worst.
Kind: TypeAlias = Literal["order", "scores", "best", "worst"]


def kind_of(answer: Answer | None) -> Kind:
    """What an answer says; none at all is taken for an order."""
    if isinstance(answer, Pick):
        return "worst" if answer.worst else "best"
    return "scores" if isinstance(answer, Scores) else "order"


def oracle(view: View, grades: Grades, kind: Kind = "order") -> Outcome:
    """The best answer to a view: by grade, ties by first-stage rank; or the grades as scores.

    A pick is the first of that order, or the last for the worst.
    """
    graded = view.grades(grades)
    if kind == "scores":
        return Outcome(status="ok", answer=Scores(values={d: float(g) for d, g in graded.items()}))
    order = tuple(sorted(view.by_first_stage(), key=lambda d: -graded[d]))
    return Outcome(status="ok", answer=_said(order, kind))


def copy(view: View, kind: Kind = "order") -> Outcome:
    """The answer that repeats the order shown; as scores n … 1, as a pick the first or the last."""
    if kind == "scores":
        count = len(view.docids)
        values = {d: float(count - i) for i, d in enumerate(view.docids)}
        return Outcome(status="ok", answer=Scores(values=values))
    return Outcome(status="ok", answer=_said(view.docids, kind))


def _said(order: tuple[str, ...], kind: Kind) -> Answer:
    """What an answer says that knows this order and does not score."""
    if kind == "order":
        return Order(docids=order)
    return Pick(docid=order[-1], worst=True) if kind == "worst" else Pick(docid=order[0])
