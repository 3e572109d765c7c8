"""Tournaments: groups are asked, the best of each go on to the next round, points are added up.

After TourRank (Chen et al., 2024, arXiv 2406.11678): a document's score is the number of rounds it
won, over several tournaments with other groups. A tournament is few rounds deep, and all groups of
a round, of all tournaments, are one batch.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from rank_rl.records import Candidate, Outcome, Pick, RankingTask, Scores, View
from rank_rl.seeds import derive, rng
from rank_rl.strategies.base import Plan, at_least, best, not_picking, place, shown
from rank_rl.strategies.together import Step, together


@dataclass(frozen=True, slots=True, kw_only=True)
class Tournament:
    """Points of ``repeats`` tournaments, ties by first-stage rank; ``top_k`` places are played out.

    The first round's groups are drawn such that each holds documents from all of the first stage's
    list. Of ``m`` documents in a group ``advance`` go on, but no more than half of them and at
    least one; the groups of the next round join neighbouring groups.

    With an answerer that makes no mistake the winner is the best document, and nothing more is
    certain of the points. With ``top_k`` above 1 the winner is taken out and the tournament is
    played again without it, where only groups whose documents have changed are asked again, and so
    on until the first ``top_k`` places are known; these are then perfect.

    A failed group lets the best of the first stage go on, without a point. Unread documents, and
    those that a pick leaves tied, go on behind the others, without a point as well. A place played
    out counts only where the last group of its document was answered; a tournament without any
    answer casts no vote.

    Args:
        size: most documents in a group.
        advance: how many of a group go on; None is half of them. Where the format picks one
            document, which says no more than who is first, 1 is the choice.
        top_k: places that are played out; None plays out all.
        repeats: tournaments, each with groups of its own.
        seed: run seed; what is drawn depends on it, the query id and the repeat only.

    Raises:
        RecipeError: values out of range; or, while running, answers that pick the worst document.
    """

    size: int = 20
    advance: int | None = None
    top_k: int | None = 1
    repeats: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("tournament", 2, size=self.size)
        at_least("tournament", 1, repeats=self.repeats)
        at_least("tournament", 1, or_null=True, advance=self.advance, top_k=self.top_k)
        at_least("tournament", 0, seed=self.seed)

    @property
    def fixed_cost(self) -> bool:
        """Whether the number of questions does not depend on the answers: without replays."""
        return self.top_k == 1

    def plan(self, task: RankingTask) -> Plan:
        """Yield the groups of a round together, those of all repeats.

        The first place takes one question for every group of more than one document, in as many
        rounds as there are; with ``advance`` 1 each further place takes at most one question a
        round, one after another (and more with ``advance`` above 1, where others move up).
        """
        if len(task.candidates) < 2:
            yield []
        brackets = [self._bracket(task, repeat) for repeat in range(self.repeats)]
        points = yield from together([bracket.points() for bracket in brackets])
        return place(task, {d: sum(by[d] for by in points) for d in task.docids})

    def _bracket(self, task: RankingTask, repeat: int) -> _Bracket:
        groups = draw(task, self.size, rng(self.seed, "tournament", task.query.qid, repeat))
        return _Bracket(
            task=task,
            groups=groups,
            later=self.rounds([len(group) for group in groups]),
            how=self,
            seed=derive(self.seed, "tournament", repeat),
        )

    def through(self, count: int) -> int:
        """How many of ``count`` documents in a group go on."""
        return max(1, min(self.advance or count, count // 2)) if count else 0

    def rounds(self, sizes: list[int]) -> list[list[range]]:
        """Rounds after the first: for each group which groups of the round before it joins.

        Args:
            sizes: documents in the groups of the first round.
        """
        found: list[list[range]] = []
        on = [self.through(size) for size in sizes]
        while sum(on) > 1:
            count = -(-len(on) // max(1, self.size // max(on)))
            cuts = [i * len(on) // count for i in range(count + 1)]
            found.append([range(cuts[i], cuts[i + 1]) for i in range(count)])
            on = [self.through(sum(on[i] for i in joined)) for joined in found[-1]]
        return found


def draw(task: RankingTask, size: int, draw_from: random.Random) -> list[list[Candidate]]:
    """The fewest groups of at most ``size``: each next so many documents are dealt, one to each."""
    count = -(-len(task.candidates) // size)
    groups: list[list[Candidate]] = [[] for _ in range(count)]
    for start in range(0, len(task.candidates), count):
        dealt = list(task.candidates[start : start + count])
        draw_from.shuffle(dealt)
        for group, candidate in zip(groups, dealt, strict=False):  # the last may be fewer
            group.append(candidate)
    return groups


@dataclass(slots=True, kw_only=True)
class _Bracket:
    """One tournament. ``known``: by the documents of a group, who goes on, and whether said so."""

    task: RankingTask
    groups: list[list[Candidate]]
    later: list[list[range]]
    how: Tournament
    seed: int
    known: dict[frozenset[str], list[tuple[Candidate, bool]]] = field(default_factory=dict)

    def points(self) -> Step[dict[str, float]]:
        """Play; points by docid, those of the places played out above all others.

        A winner whose last group failed has the points it won only.
        """
        docids = self.task.docids
        winner, said, points = yield from self._play(())
        played_out = {winner: said}
        while len(played_out) < min(self.how.top_k or len(docids), len(docids)):
            winner, said, _ = yield from self._play(played_out)
            played_out[winner] = said
        most = len(self.later) + len(played_out)
        places = enumerate(played_out.items())
        return points | {d: float(most - i) for i, (d, said) in places if said}

    def _play(self, out: Collection[str]) -> Step[tuple[str, bool, dict[str, float]]]:
        """All rounds without those ``out``: the winner, if its last group said so, all points."""
        said: dict[str, bool] = {}
        points = dict.fromkeys(self.task.docids, 0.0)
        groups = [[c for c in group if c.docid not in out] for group in self.groups]
        for joins in [*self.later, [range(1)]]:
            yield from self._ask(groups)
            # Who is alone in a group goes on and wins nothing by it.
            results = [self.known[_docids(g)] if len(g) > 1 else [] for g in groups]
            for candidate, was_said in (going for result in results for going in result):
                said[candidate.docid] = was_said
                points[candidate.docid] += was_said
            on = [
                [c for c, _ in result] or group
                for result, group in zip(results, groups, strict=True)
            ]
            groups = [[c for i in joined for c in on[i]] for joined in joins]
        winner = groups[0][0].docid
        return winner, said.get(winner, False), points

    def _ask(self, groups: Iterable[list[Candidate]]) -> Step[None]:
        """Ask about the groups whose result is not known."""
        unknown = [g for g in groups if len(g) > 1 and _docids(g) not in self.known]
        views = [shown(self.task.query, group, self.seed) for group in unknown]
        outcomes = (yield views) if views else []
        for group, view, outcome in zip(unknown, views, outcomes, strict=True):
            self.known[_docids(group)] = self._read(view, outcome)

    def _read(self, view: View, outcome: Outcome) -> list[tuple[Candidate, bool]]:
        """Who goes on by an answer, and of each whether the answer said so."""
        not_picking("tournament", outcome, worst=True)
        said = _ordered(view, outcome)
        by_docid = {c.docid: c for c in view.candidates}
        order = view.ordered(said)[: self.how.through(len(view.docids))]
        return [(by_docid[d], d in said) for d in order]


def _ordered(view: View, outcome: Outcome) -> tuple[str, ...]:
    """The documents that an answer puts in order, or picks; none where it does not say the best."""
    picked = best(outcome, view)
    if picked is None:
        return ()
    if isinstance(outcome.answer, Pick):
        return (picked,)
    unread = outcome.answer.unread if isinstance(outcome.answer, Scores) else ()
    return tuple(d for d in outcome.as_order(view) if d not in unread)


def _docids(group: Iterable[Candidate]) -> frozenset[str]:
    return frozenset(c.docid for c in group)
