"""What copying the input and answering perfectly earn, to be logged beside every reward.

A reward curve alone says nothing: a mean of 0.7 may be less than copying the order shown earns.
"""

from __future__ import annotations

from dataclasses import dataclass

from rank_rl.formats.base import Format
from rank_rl.records import Completion, Grades, View
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


def baselines(composite: Composite, view: View, grades: Grades, kind: Kind = "order") -> Baselines:
    """Return what a well-formed copy of the input and the best answer earn.

    Args:
        composite: the rewards of the recipe.
        view: documents in the order shown.
        grades: grades by docid.
        kind: what the format answers with, see ``answer_kind``.
    """
    # Without tokens a length reward pays in full: these are lines to compare with, not texts.
    blank = Completion(text="")
    return Baselines(
        copy=composite(copy(view, kind), view, grades, blank).total,
        ceiling=composite(oracle(view, grades, kind), view, grades, blank).total,
    )
