"""Views drawn from training tasks: pools, random groups and windows, so that few queries give
many different prompts.

Every draw has its own generator, derived from the seed, the query id and the draw's number; the
order shown never depends on the grades. First-stage ranks stay those of the task. Groups without
variance teach no order (all relevant or none): they are drawn again, then left out and counted,
unless the recipe keeps them.
Negatives are random or the hardest: those that the first stage, or given scores, rank best.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rank_rl import metrics, seeds
from rank_rl.data.splits import normalised
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, RankingTask, View, numbered
from rank_rl.specs import SamplerSpec

Picked = list[Candidate]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """What became of the draws: ``draws`` wanted, ``views`` made, ``redrawn`` extra attempts,
    ``dropped`` draws that found no variance; of roll-outs, ``repeated`` views asked before and
    ``beyond`` those that a roll-out may give."""

    draws: int = 0
    views: int = 0
    redrawn: int = 0
    dropped: int = 0
    repeated: int = 0
    beyond: int = 0

    def __add__(self, other: SampleReport) -> SampleReport:
        """Add the counts of two reports."""
        return SampleReport(
            draws=self.draws + other.draws,
            views=self.views + other.views,
            redrawn=self.redrawn + other.redrawn,
            dropped=self.dropped + other.dropped,
            repeated=self.repeated + other.repeated,
            beyond=self.beyond + other.beyond,
        )

    def line(self) -> str:
        """One line for a log."""
        more = f", {self.repeated} asked before" if self.repeated else ""
        more += f", {self.beyond} beyond views_per_rollout" if self.beyond else ""
        return (
            f"{self.views} views from {self.draws} draws "
            f"({self.redrawn} redrawn, {self.dropped} left out without variance{more})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What the draws of one task choose from.

    Attributes:
        everything: candidates within the depth, in first-stage order.
        relevant: relevant candidates of any depth.
        first: negatives among the ``keep_first`` best candidates.
        rest: all other negatives, hardest first.
    """

    everything: Picked
    relevant: Picked
    first: Picked
    rest: Picked


def sample_views(
    task: RankingTask,
    spec: SamplerSpec,
    *,
    seed: int,
    scores: Mapping[str, float] | None = None,
) -> tuple[list[View], SampleReport]:
    """Draw ``spec.per_query`` views of at most ``spec.size`` candidates, labelled 1 … n.

    With ``spec.least_size`` each draw has a size of its own from there to ``spec.size``.

    A task without grades keeps every draw.

    Args:
        task: candidates in first-stage order; relevant documents that are not among them cannot
            be shown.
        spec: which documents a draw takes, and how often it is repeated.
        seed: run seed.
        scores: how hard negatives are, by docid, more is harder; those without one are the least
            hard. None: by the first stage.

    Raises:
        RecipeError: sampler ``rollout``, whose views a strategy chooses (``training.rollouts``).
    """
    if spec.name not in _PICKERS:
        raise RecipeError(
            f"sampler {spec.name} gives views to train on, not to ask a teacher about",
            where="data.sampler.name",
            expected=", ".join(_PICKERS),
        )
    source = _source(task, spec, scores)
    views: list[View] = []
    redrawn = dropped = 0
    for draw in range(spec.per_query):
        for attempt in range(spec.retries + 1):
            rng = seeds.rng(seed, "view", task.query.qid, draw, attempt)
            picked = _draw(source, spec, rng)
            useful = spec.keep_flat or teaches(picked, task)
            if picked and useful and _shown_well(picked, task, spec.least_ndcg):
                views.append(numbered(task.query, picked))
                break
        else:
            dropped += 1
        redrawn += attempt
    report = SampleReport(draws=spec.per_query, views=len(views), redrawn=redrawn, dropped=dropped)
    return views, report


def sample_tasks(
    tasks: Sequence[RankingTask],
    spec: SamplerSpec,
    *,
    seed: int,
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[list[tuple[RankingTask, View]], SampleReport]:
    """Draw views from every task; each comes with its task, in task order.

    ``scores`` are those of ``sample_views`` by query id.
    """
    pairs: list[tuple[RankingTask, View]] = []
    total = SampleReport()
    for task in tasks:
        own = (scores or {}).get(task.query.qid)
        views, report = sample_views(task, spec, seed=seed, scores=own)
        pairs += [(task, view) for view in views]
        total += report
    return pairs, total


def within(task: RankingTask, spec: SamplerSpec) -> Picked:
    """The candidates of a task that its draws may take, by rank alone."""
    return [c for c in task.candidates if spec.depth is None or c.rank <= spec.depth]


def _source(task: RankingTask, spec: SamplerSpec, scores: Mapping[str, float] | None) -> _Source:
    everything = within(task, spec)
    relevant = [c for c in task.candidates if _grade(task, c) > 0]
    doubtful = _doubtful(task, spec, relevant)
    negatives = [c for c in everything if _grade(task, c) <= 0 and c.docid not in doubtful]
    best = {c.docid for c in task.candidates[: spec.keep_first]}
    rest = [c for c in negatives if c.docid not in best]
    if scores is not None:
        rest.sort(key=lambda c: (-scores.get(c.docid, float("-inf")), c.rank))
    first = [c for c in negatives if c.docid in best]
    return _Source(everything=everything, relevant=relevant, first=first, rest=rest)


def _doubtful(task: RankingTask, spec: SamplerSpec, relevant: Picked) -> frozenset[str]:
    """Docids that nobody judged and that may well be relevant.

    Those that the first stage ranks best (STAR, Zhan et al., 2021), and copies of relevant ones:
    the harder the negatives, the more of them are false.
    """
    if task.grades is None or not (spec.hard_share or spec.skip_top):
        return frozenset()
    grades = task.grades
    unjudged = [c for c in task.candidates if c.docid not in grades]
    known = {normalised(c.text) for c in relevant} - {""}
    copies = [c for c in unjudged if normalised(c.text) in known]
    return frozenset(c.docid for c in (*unjudged[: spec.skip_top], *copies))


def _draw(source: _Source, spec: SamplerSpec, rng: random.Random) -> Picked:
    """Choose documents, then put them in first-stage or in random order."""
    if spec.least_size is not None:
        spec = spec.model_copy(update={"size": rng.randint(spec.least_size, spec.size)})
    picked = _PICKERS[spec.name](source, spec, rng)
    picked.sort(key=lambda c: c.rank)
    if spec.shuffle:
        rng.shuffle(picked)
    return picked


def _pool(source: _Source, spec: SamplerSpec, rng: random.Random) -> Picked:
    """All relevant candidates (one place is kept for another document) and others: the first
    ``keep_first``, then random or the hardest ones."""
    others = bool(source.first or source.rest)
    kept = rng.sample(source.relevant, min(len(source.relevant), spec.size - others))
    kept += source.first[: spec.size - len(kept)]
    if not spec.strata:
        return kept + _negatives(source.rest, spec.size - len(kept), spec, rng)
    for first, last, count in spec.strata:
        wanted = min(count - len(_ranked(kept, first, last)), spec.size - len(kept))
        kept += _negatives(_ranked(source.rest, first, last), wanted, spec, rng)
    return kept


def _negatives(rest: Picked, count: int, spec: SamplerSpec, rng: random.Random) -> Picked:
    """``count`` documents: the sampler's share of hardest ones (half a document counts as one),
    then random ones."""
    count = max(0, min(len(rest), count))
    hard = int(spec.hard_share * count + 0.5)
    return rest[:hard] + rng.sample(rest[hard:], count - hard)


def _group(source: _Source, spec: SamplerSpec, rng: random.Random) -> Picked:
    strata = [
        (_ranked(source.everything, first, last), count) for first, last, count in spec.strata
    ] or [(source.everything, spec.size)]
    return [c for own, count in strata for c in rng.sample(own, min(len(own), count))]


def _window(source: _Source, spec: SamplerSpec, rng: random.Random) -> Picked:
    start = rng.randint(0, max(0, len(source.everything) - spec.size))
    return source.everything[start : start + spec.size]


_PICKERS: dict[str, Callable[[_Source, SamplerSpec, random.Random], Picked]] = {
    "pool": _pool,
    "groups": _group,
    "window": _window,
}


def _ranked(candidates: Iterable[Candidate], first: int, last: int) -> Picked:
    return [c for c in candidates if first <= c.rank <= last]


def teaches(picked: Sequence[Candidate], task: RankingTask) -> bool:
    """Whether some but not all of the documents are relevant; always where there are no grades."""
    relevant = sum(_grade(task, c) > 0 for c in picked)
    return task.grades is None or 0 < relevant < len(picked)


def _grade(task: RankingTask, candidate: Candidate) -> int:
    return (task.grades or {}).get(candidate.docid, 0)


def _shown_well(picked: Picked, task: RankingTask, least: float) -> bool:
    """Whether the order shown has an nDCG@10 of at least ``least``; always without grades."""
    grades = {c.docid: _grade(task, c) for c in picked}
    return task.grades is None or metrics.ndcg(list(grades), grades) >= least
