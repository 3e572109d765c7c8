"""What copying the input and answering perfectly earn, to be logged beside every reward.

A reward curve alone says nothing: a mean of 0.7 may be less than copying the order shown earns.
"""

from __future__ import annotations

from dataclasses import dataclass

from rank_rl.formats.base import Format
from rank_rl.records import Completion, Grades, Scores, View
from rank_rl.rewards.compose import Composite
from rank_rl.strategies.oracle import Kind, copy, oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Totals of two answers to one view: the order shown, and the best there is."""

    copy: float
    ceiling: float


def answer_kind(fmt: Format, view: View, grades: Grades) -> Kind:
    """Whether a format answers with an order or with scores, by its ideal answer to a view."""
    ideal = fmt.parse(fmt.ideal(view, grades), view).answer
    return "scores" if isinstance(ideal, Scores) else "order"


def baselines(composite: Composite, view: View, grades: Grades, kind: Kind = "order") -> Baselines:
    """Return what a well-formed copy of the input and the best answer earn.

    Args:
        composite: the rewards of the recipe.
        view: documents in the order shown.
        grades: grades by docid.
        kind: whether the format answers with an order or with scores.
    """
    # Without tokens a length reward pays in full: these are lines to compare with, not texts.
    blank = Completion(text="")
    return Baselines(
        copy=composite(copy(view, kind), view, grades, blank).total,
        ceiling=composite(oracle(view, grades, kind), view, grades, blank).total,
    )
