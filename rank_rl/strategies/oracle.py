"""Outcomes of an answerer that knows the grades, or that copies what it is shown.

They serve tests, roll-outs for training rows, and the copy and ceiling lines beside a reward.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from rank_rl.records import Grades, Order, Outcome, Scores, View

Kind: TypeAlias = Literal["order", "scores"]


def oracle(view: View, grades: Grades, kind: Kind = "order") -> Outcome:
    """The best answer to a view: by grade, ties by first-stage rank; or the grades as scores."""
    graded = view.grades(grades)
    if kind == "scores":
        return Outcome(status="ok", answer=Scores(values={d: float(g) for d, g in graded.items()}))
    order = sorted(view.by_first_stage(), key=lambda d: -graded[d])
    return Outcome(status="ok", answer=Order(docids=tuple(order)))


def copy(view: View, kind: Kind = "order") -> Outcome:
    """The answer that repeats the order shown; as scores n … 1."""
    if kind == "scores":
        count = len(view.docids)
        values = {d: float(count - i) for i, d in enumerate(view.docids)}
        return Outcome(status="ok", answer=Scores(values=values))
    return Outcome(status="ok", answer=Order(docids=view.docids))
