"""Outcomes of an answerer that knows the grades, or that copies what it is shown.

They serve tests, roll-outs for training rows, and the copy and ceiling lines beside a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from rank_rl.records import Grades, Order, Outcome, Pick, Scores, View

Kind: TypeAlias = Literal["order", "scores", "best", "worst"]


def oracle(view: View, grades: Grades, kind: Kind = "order") -> Outcome:
    """The best answer to a view: by grade, ties by first-stage rank; or the grades as scores.

    ``best`` picks the first document of that order, ``worst`` the last.
    """
    graded = view.grades(grades)
    if kind == "scores":
        return Outcome(status="ok", answer=Scores(values={d: float(g) for d, g in graded.items()}))
    order = sorted(view.by_first_stage(), key=lambda d: -graded[d])
    if kind in ("best", "worst"):
        return _pick(order, kind)
    return Outcome(status="ok", answer=Order(docids=tuple(order)))


def copy(view: View, kind: Kind = "order") -> Outcome:
    """The answer that repeats the order shown; as scores n … 1, as a pick its first or last."""
    if kind == "scores":
        count = len(view.docids)
        values = {d: float(count - i) for i, d in enumerate(view.docids)}
        return Outcome(status="ok", answer=Scores(values=values))
    if kind in ("best", "worst"):
        return _pick(view.docids, kind)
    return Outcome(status="ok", answer=Order(docids=view.docids))


def _pick(order: Sequence[str], kind: Kind) -> Outcome:
    """The first document of an order as the best one, or its last as the worst."""
    worst = kind == "worst"
    answer = Pick(docid=order[-1] if worst else order[0], worst=worst)
    return Outcome(status="ok", answer=answer)
