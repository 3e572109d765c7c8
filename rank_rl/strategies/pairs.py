"""Pairs of candidates are compared, and the comparisons become one order.

As in pairwise ranking prompting (Qin et al., 2023, arXiv 2306.17563) every pair can be asked in
both orders, against the model's preference for a position. All pairs are one batch, so the
sequential depth is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from rank_rl.records import Outcome, RankingTask, Scores, View, numbered
from rank_rl.seeds import rng
from rank_rl.strategies.aggregate import bradley_terry, hamiltonian
from rank_rl.strategies.base import Plan, at_least, flag, one_of, place, votes

Comparison: TypeAlias = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Order by compared pairs; a tie is half a win.

    A failed comparison casts no vote; a document without any vote keeps its first-stage position,
    and equal documents are ordered by first-stage rank. One candidate alone is not asked about.

    Args:
        both: ask each pair in both orders; else in one, drawn.
        per_document: how many others each document meets (one less for one document where their
            number makes that impossible); None compares all pairs.
        aggregate: ``wins`` ranks by the share of its comparisons that a document wins (Copeland);
            ``bradley_terry`` by the strengths that explain the wins best, which takes into account
            who was met; ``tsp`` by the order in which most speaks for each document before the
            next one (a heaviest Hamiltonian path, as TSPRank, 2024), pairs never compared at 0.5.
        soft: where the answer is two probabilities that sum to 1, they are the shares won.
        seed: run seed; what is drawn depends on it and the query id only.

    Raises:
        RecipeError: values out of range.
    """

    fixed_cost: ClassVar[bool] = True

    both: bool = True
    per_document: int | None = None
    aggregate: Literal["wins", "bradley_terry", "tsp"] = "wins"
    soft: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("pairs", 1, or_null=True, per_document=self.per_document)
        at_least("pairs", 0, seed=self.seed)
        one_of("pairs", ("wins", "bradley_terry", "tsp"), aggregate=self.aggregate)
        flag("pairs", both=self.both, soft=self.soft)

    def plan(self, task: RankingTask) -> Plan:
        """Yield all comparisons at once, depth 1.

        ``n * (n - 1) / 2`` pairs, or ``n * per_document / 2`` rounded down, asked once or twice.
        """
        views = self._views(task)
        outcomes = yield views
        compared = [_won(o, v, self.soft) for v, o in zip(views, outcomes, strict=True)]
        combine = {"wins": shares, "bradley_terry": strengths, "tsp": places}[self.aggregate]
        return place(task, combine(task.docids, [pair for pair in compared if pair]))

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


def _won(outcome: Outcome, view: View, soft: bool) -> Comparison:
    """Share of the comparison that each of two documents wins; empty without a vote."""
    cast = votes(outcome, view) or {}
    if len(cast) < 2:
        return {}
    first, second = view.docids
    if soft and isinstance(outcome.answer, Scores) and _probabilities(cast):
        share = cast[first] / (cast[first] + cast[second])
        return {first: share, second: 1.0 - share}
    share = 0.5 if cast[first] == cast[second] else float(cast[first] > cast[second])
    return {first: share, second: 1.0 - share}


def _probabilities(cast: Comparison) -> bool:
    return min(cast.values()) >= 0 and abs(sum(cast.values()) - 1) < 1e-3


def shares(docids: Sequence[str], compared: Sequence[Comparison]) -> dict[str, float]:
    """Mean share of its comparisons that each compared document won."""
    won: dict[str, list[float]] = {}
    for pair in compared:
        for docid, share in pair.items():
            won.setdefault(docid, []).append(share)
    return {d: sum(won[d]) / len(won[d]) for d in docids if d in won}


def strengths(docids: Sequence[str], compared: Sequence[Comparison]) -> dict[str, float]:
    """Bradley-Terry log-strength of each compared document."""
    known, won, _ = _table(docids, compared)
    return dict(zip(known, bradley_terry(won), strict=True))


def places(docids: Sequence[str], compared: Sequence[Comparison]) -> dict[str, float]:
    """Places on the heaviest path of the compared documents; 1 for the last."""
    known, won, met = _table(docids, compared)
    items = range(len(known))
    mean = [[won[i][j] / met[i][j] if met[i][j] else 0.5 for j in items] for i in items]
    return {known[i]: float(len(known) - at) for at, i in enumerate(hamiltonian(mean))}


def _table(
    docids: Sequence[str], compared: Sequence[Comparison]
) -> tuple[list[str], list[list[float]], list[list[int]]]:
    """Compared documents in first-stage order; sums of what i won against j, and how often met."""
    seen = {d for pair in compared for d in pair}
    known = [d for d in docids if d in seen]
    number = {d: i for i, d in enumerate(known)}
    won = [[0.0] * len(known) for _ in known]
    met = [[0] * len(known) for _ in known]
    for pair in compared:
        (i, first), (j, second) = ((number[d], share) for d, share in pair.items())
        won[i][j] += first
        won[j][i] += second
        met[i][j] += 1
        met[j][i] += 1
    return known, won, met
