"""Pairs of candidates are compared and wins are counted (Copeland's method).

As in pairwise ranking prompting (Qin et al., 2023, arXiv 2306.17563) every pair can be asked in
both orders, against the model's preference for a position. All pairs are one batch, so the
sequential depth is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rank_rl.errors import RecipeError
from rank_rl.records import Outcome, RankingTask, View, numbered
from rank_rl.seeds import rng
from rank_rl.strategies.base import Plan, at_least, place, votes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Share of its comparisons that a document wins; a tie is half a win.

    A failed comparison casts no vote; a document without any vote keeps its first-stage position,
    and equal shares are ordered by first-stage rank. One candidate alone is not asked about.

    Args:
        both: ask each pair in both orders; else in one, drawn.
        per_document: how many others each document meets (one less for one document where their
            number makes that impossible); None compares all pairs.
        seed: run seed; what is drawn depends on it and the query id only.

    Raises:
        RecipeError: values out of range.
    """

    both: bool = True
    per_document: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("pairs", 1, per_document=self.per_document)
        at_least("pairs", 0, seed=self.seed)
        if not isinstance(self.both, bool):
            raise RecipeError(
                f"both is {self.both!r}", where="strategy 'pairs'", expected="true or false"
            )

    def plan(self, task: RankingTask) -> Plan:
        """Yield all comparisons at once, depth 1.

        ``n * (n - 1) / 2`` pairs, or ``n * per_document / 2`` rounded down, asked once or twice.
        """
        views = self._views(task)
        outcomes = yield views
        won: dict[str, list[float]] = {}
        for view, outcome in zip(views, outcomes, strict=True):
            for docid, share in _wins(outcome, view).items():
                won.setdefault(docid, []).append(share)
        return place(task, {d: sum(shares) / len(shares) for d, shares in won.items()})

    def _views(self, task: RankingTask) -> list[View]:
        """The pairs of a task as views, in first-stage order of their documents."""
        draw = rng(self.seed, "pairs", task.query.qid)
        shuffled = list(range(len(task.candidates)))
        draw.shuffle(shuffled)
        drawn = ((shuffled[i], shuffled[j]) for i, j in ring(len(shuffled), self.per_document))
        views = []
        for pair in sorted(tuple(sorted(ends)) for ends in drawn):
            shown = [task.candidates[i] for i in pair]
            turned = draw.random() < 0.5
            if self.both:
                views += [numbered(task.query, shown), numbered(task.query, shown[::-1])]
            else:
                views.append(numbered(task.query, shown[::-1] if turned else shown))
        return views


def ring(count: int, meetings: int | None) -> Iterator[tuple[int, int]]:
    """Pairs of places on a ring such that each place is in ``meetings`` of them, no pair twice.

    Neighbours meet first, then those two places apart, and so on, so that the comparisons connect
    all places; an odd number is filled up by meeting the opposite place.
    """
    if meetings is None or meetings >= count - 1:
        yield from ((i, j) for i in range(count) for j in range(i + 1, count))
        return
    for apart in range(1, meetings // 2 + 1):
        yield from ((i, (i + apart) % count) for i in range(count))
    if meetings % 2:
        yield from ((i, i + count // 2) for i in range(count // 2))


def _wins(outcome: Outcome, view: View) -> dict[str, float]:
    """1 for the better document, 0 for the other, 0.5 each in a tie; empty without a vote."""
    cast = votes(outcome, view) or {}
    if len(cast) < 2:
        return {}
    first, second = view.docids
    share = 0.5 if cast[first] == cast[second] else float(cast[first] > cast[second])
    return {first: share, second: 1.0 - share}
