"""Whether a strategy can use what a format answers, found out before a model is asked anything.

The strategy itself is run with made-up answers of the format's kind, so that what it refuses then
is just what it would refuse of a model's answers. Nothing is left to guess for strategies and
formats of other packages.
"""

from __future__ import annotations

from collections.abc import Sequence

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.base import Format
from rank_rl.records import Outcome, RankingTask, View
from rank_rl.strategies.base import Strategy
from rank_rl.strategies.drive import run
from rank_rl.strategies.oracle import Kind, copy, kind_of


def read_kind(fmt: Format, view: View, readout: str) -> Kind:
    """What a model's answer to a view like this one is read as.

    Label log-probabilities (``readout: score``) are scores whatever the labels mean: of a format
    that picks the worst document they are the higher the better it is.
    """
    if formats.kind(fmt) == "scorer":  # only paths are no scores
        return "order" if getattr(fmt, "scorer", "") == "pair_scores" else "scores"
    if formats.kind(fmt) == "slots" or readout == "score":
        return "scores"
    count = len(view.docids)
    grades = {d: count - i for i, d in enumerate(view.docids)}  # without ties
    return kind_of(fmt.parse(fmt.ideal(view, grades), view).answer)


def check_fit(
    tasks: Sequence[RankingTask], strategy: Strategy, fmt: Format, readout: str, *, where: str = ""
) -> None:
    """Refuse a strategy that cannot use a format's answers, or shows what a format cannot show.

    Args:
        tasks: what is to be ranked; the one with most candidates is tried.
        strategy: which views are asked.
        fmt: what they are asked in.
        readout: how the answers are read, never ``auto``.
        where: put before the place that the strategy or the format blames.

    Raises:
        RecipeError: they do not fit, for instance a format that picks the best document a strategy
            that asks for the worst.
    """
    if not tasks:
        return
    written = formats.kind(fmt) == "text"
    kinds: dict[int, Kind] = {}  # by number of documents: some formats show one or two only

    def answers(views: list[View]) -> list[Outcome]:
        for view in views:
            if len(view.docids) not in kinds:
                if written:
                    fmt.render(view)
                kinds[len(view.docids)] = read_kind(fmt, view, readout)
        return [copy(view, kinds[len(view.docids)]) for view in views]

    largest = max(tasks, key=lambda task: len(task.candidates))
    try:
        run([largest], strategy, answers)
    except RecipeError as error:
        place = ": ".join(part for part in (where, error.where) if part)
        raise RecipeError(
            error.what, where=place, expected=error.expected, remedy=error.remedy
        ) from error
