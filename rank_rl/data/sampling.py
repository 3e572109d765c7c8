"""Views drawn from training tasks: pools, random groups and windows, so that few queries give
many different prompts.

Every draw has its own generator, derived from the seed, the query id and the draw's number; the
order shown never depends on the grades. First-stage ranks stay those of the task. Groups without
variance teach nothing (all relevant or none): they are drawn again, then left out and counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rank_rl import seeds
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


def sample_views(
    task: RankingTask, spec: SamplerSpec, *, seed: int
) -> tuple[list[View], SampleReport]:
    """Draw ``spec.per_query`` views of at most ``spec.size`` candidates, labelled 1 … n.

    A task without grades keeps every draw.

    Args:
        task: candidates in first-stage order; relevant documents that are not among them cannot
            be shown.
        spec: which documents a draw takes, and how often it is repeated.
        seed: run seed.

    Raises:
        RecipeError: sampler ``rollout``, whose views a strategy chooses (``training.rollouts``).
    """
    if spec.name not in _PICKERS:
        raise RecipeError(
            f"sampler {spec.name} gives views to train on, not to ask a teacher about",
            where="data.sampler.name",
            expected=", ".join(_PICKERS),
        )
    views: list[View] = []
    redrawn = dropped = 0
    for draw in range(spec.per_query):
        for attempt in range(spec.retries + 1):
            rng = seeds.rng(seed, "view", task.query.qid, draw, attempt)
            picked = _draw(task, spec, rng)
            if teaches(picked, task):
                views.append(numbered(task.query, picked))
                break
        else:
            dropped += 1
        redrawn += attempt
    report = SampleReport(draws=spec.per_query, views=len(views), redrawn=redrawn, dropped=dropped)
    return views, report


def sample_tasks(
    tasks: Sequence[RankingTask], spec: SamplerSpec, *, seed: int
) -> tuple[list[tuple[RankingTask, View]], SampleReport]:
    """Draw views from every task; each comes with its task, in task order."""
    pairs: list[tuple[RankingTask, View]] = []
    total = SampleReport()
    for task in tasks:
        views, report = sample_views(task, spec, seed=seed)
        pairs += [(task, view) for view in views]
        total += report
    return pairs, total


def _draw(task: RankingTask, spec: SamplerSpec, rng: random.Random) -> Picked:
    """Choose documents, then put them in first-stage or in random order."""
    picked = _PICKERS[spec.name](task, spec, rng)
    picked.sort(key=lambda c: c.rank)
    if spec.shuffle:
        rng.shuffle(picked)
    return picked


def _pool(task: RankingTask, spec: SamplerSpec, rng: random.Random) -> Picked:
    """All relevant candidates (one place is kept for another document) and others: the first
    ``keep_first``, then random ones."""
    relevant = [c for c in task.candidates if _grade(task, c) > 0]
    best = [c for c in task.candidates[: spec.keep_first] if _grade(task, c) <= 0]
    rest = [c for c in task.candidates[spec.keep_first :] if _grade(task, c) <= 0]
    kept = rng.sample(relevant, min(len(relevant), spec.size - bool(best or rest)))
    kept += best[: spec.size - len(kept)]
    return kept + rng.sample(rest, min(len(rest), spec.size - len(kept)))


def _group(task: RankingTask, spec: SamplerSpec, rng: random.Random) -> Picked:
    return rng.sample(task.candidates, min(len(task.candidates), spec.size))


def _window(task: RankingTask, spec: SamplerSpec, rng: random.Random) -> Picked:
    start = rng.randint(0, max(0, len(task.candidates) - spec.size))
    return list(task.candidates[start : start + spec.size])


_PICKERS: dict[str, Callable[[RankingTask, SamplerSpec, random.Random], Picked]] = {
    "pool": _pool,
    "groups": _group,
    "window": _window,
}


def teaches(picked: Sequence[Candidate], task: RankingTask) -> bool:
    """Whether some but not all of the documents are relevant; always where there are no grades."""
    relevant = sum(_grade(task, c) > 0 for c in picked)
    return task.grades is None or 0 < relevant < len(picked)


def _grade(task: RankingTask, candidate: Candidate) -> int:
    return (task.grades or {}).get(candidate.docid, 0)
