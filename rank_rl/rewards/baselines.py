"""What copying the input and answering perfectly earn, to be logged beside every reward.

A reward curve alone says nothing: a mean of 0.7 may be less than copying the order shown earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rank_rl.formats.base import Format
from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.compose import Composite
from rank_rl.strategies.oracle import Kind, copy, kind_of, oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Totals of two answers to one view: the order shown, and the best there is."""

    copy: float
    ceiling: float


def answer_kind(fmt: Format, view: View, grades: Grades) -> Kind:
    """What a format answers with, by its ideal answer to a view."""
    return kind_of(fmt.parse(fmt.ideal(view, grades), view).answer)


def best_answer(
    composite: Composite, fmt: Format, view: View, grades: Grades, kind: Kind
) -> Outcome:
    """The best answer of a format to a view: the oracle's.

    Where a reward looks at scores as they are, the format's own ideal answer has its scale.
    """
    if kind == "scores" and composite.absolute:
        ideal = fmt.parse(fmt.ideal(view, grades), view)
        if ideal.status == "ok":
            return ideal
    return oracle(view, grades, kind)


def baselines(
    composite: Composite,
    view: View,
    grades: Grades,
    kind: Kind = "order",
    best: Outcome | None = None,
) -> Baselines:
    """Return what a well-formed copy of the input and the best answer earn.

    Args:
        composite: the rewards of the recipe.
        view: documents in the order shown.
        grades: grades by docid.
        kind: what the format answers with, see ``answer_kind``.
        best: the best answer, see ``best_answer``; None takes the oracle's.
    """
    # Without tokens a length reward pays in full: these are lines to compare with, not texts.
    blank = Completion(text="")
    ideal = best or oracle(view, grades, kind)
    return Baselines(
        copy=composite(copy(view, kind), view, grades, blank).total,
        ceiling=composite(ideal, view, grades, blank).total,
    )


def group_baselines(
    composite: Composite,
    views: Sequence[View],
    grades: Grades,
    kind: Kind,
    best: Sequence[Outcome],
) -> list[Baselines]:
    """``baselines`` of a group in which all answers copy what they see, or all are the best.

    Args:
        composite: rewards, of which some look at the whole group.
        views: what each answer of the group was shown.
        grades: of the documents.
        kind: what the format answers with.
        best: the best answer to each view.
    """
    blank, totals = Completion(text=""), []
    for outcomes in ([copy(view, kind) for view in views], best):
        earned = composite.among(outcomes, views, grades)
        scored = [composite(o, v, grades, blank) for o, v in zip(outcomes, views, strict=True)]
        pairs = zip(scored, earned, strict=True)
        totals.append([composite.beside(own, among).total for own, among in pairs])
    return [Baselines(copy=c, ceiling=b) for c, b in zip(*totals, strict=True)]
