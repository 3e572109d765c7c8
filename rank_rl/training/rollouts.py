"""Training views by rolling a strategy out: what it asks when the answers come from the grades.

A policy that eliminates, or orders windows one after another, is asked about states that its own
answers led to; views drawn from the candidates are not like them. So the strategy itself is run on
each training task, an oracle answers in the kind of the format, and every view asked becomes a row
(IRanker, 2025, arXiv 2506.21638). With ``noise`` some answers are random, so that states occur
which mistakes lead to. Where a document stands tells what answers before were: ``shuffle_views``
takes that away. No model is asked. Sampler ``rollout``; all others are ``data.sampling``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rank_rl import seeds, strategies
from rank_rl.data.sampling import SampleReport, sample_views, teaches, within
from rank_rl.records import (
    Answer,
    Grades,
    Order,
    Outcome,
    Pick,
    RankingTask,
    Scores,
    View,
    numbered,
)
from rank_rl.rewards.baselines import answer_kind
from rank_rl.specs import RecipeSpec, SamplerSpec
from rank_rl.strategies.drive import run
from rank_rl.strategies.oracle import Kind, oracle

if TYPE_CHECKING:
    from rank_rl.formats.base import Format


def draw(task: RankingTask, spec: RecipeSpec, fmt: Format) -> tuple[list[View], SampleReport]:
    """The training views of one task, as the recipe's ``data.sampler`` says.

    Views of roll-outs that show the same documents in the same order are taken once. Those without
    a relevant document, or with nothing else, are left out without ``keep_flat``; never a view of
    one document: a strategy that asks about documents one by one wants their labels.

    Raises:
        RecipeError: a strategy that cannot be made, or that the format does not fit.
    """
    sampler = spec.data.sampler
    if sampler.name != "rollout":
        return sample_views(task, sampler, seed=spec.run.seed)
    seen: set[tuple[str, ...]] = set()
    kept: list[View] = []
    report = SampleReport()
    for number in range(sampler.per_query):
        asked = _asked(task, spec, fmt, number)
        fresh = list({v.docids: v for v in asked if v.docids not in seen}.values())
        seen |= {view.docids for view in fresh}
        useful = [v for v in fresh if _useful(v, task, sampler)]
        most = min(len(useful), sampler.views_per_rollout or len(useful))
        rng = seeds.rng(spec.run.seed, "rollout views", task.query.qid, number)
        chosen = [useful[i] for i in sorted(rng.sample(range(len(useful)), most))]
        kept += [_in_random_order(v, rng) for v in chosen] if sampler.shuffle_views else chosen
        report += SampleReport(
            draws=len(asked),
            views=most,
            dropped=len(fresh) - len(useful),
            repeated=len(asked) - len(fresh),
            beyond=len(useful) - most,
        )
    return kept, report


def _in_random_order(view: View, rng: random.Random) -> View:
    return numbered(view.query, rng.sample(view.candidates, len(view.candidates)))


def _useful(view: View, task: RankingTask, sampler: SamplerSpec) -> bool:
    return len(view.docids) == 1 or sampler.keep_flat or teaches(view.candidates, task)


def draw_all(
    tasks: Sequence[RankingTask], spec: RecipeSpec, fmt: Format
) -> tuple[list[tuple[RankingTask, View]], SampleReport]:
    """The training views of every task, each with its task, in task order."""
    pairs: list[tuple[RankingTask, View]] = []
    total = SampleReport()
    for task in tasks:
        views, report = draw(task, spec, fmt)
        pairs += [(task, view) for view in views]
        total += report
    return pairs, total


def _asked(task: RankingTask, spec: RecipeSpec, fmt: Format, number: int) -> list[View]:
    """The views of one roll-out, in the order asked."""
    names = (task.query.qid, number)
    candidates = within(task, spec.data.sampler)
    if not candidates:
        return []
    if spec.data.sampler.shuffle:
        seeds.rng(spec.run.seed, "rollout order", *names).shuffle(candidates)
    rolled = replace(task, candidates=tuple(candidates))
    strategy = strategies.make(
        spec.data.sampler.strategy or spec.eval.strategy,
        seed=seeds.derive(spec.run.seed, "rollout strategy", *names),
    )
    answerer = _Answerer(
        fmt=fmt,
        grades=task.grades or {},
        noise=spec.data.sampler.noise,
        rng=seeds.rng(spec.run.seed, "rollout noise", *names),
    )
    (result,) = run([rolled], strategy, answerer)
    return [view for view, _ in result.outcomes]


@dataclass(slots=True, kw_only=True)
class _Answerer:
    """Answers one roll-out from the grades, or at random for a share ``noise`` of its views."""

    fmt: Format
    grades: Grades
    noise: float
    rng: random.Random
    kind: Kind | None = field(default=None)

    def __call__(self, views: list[View]) -> list[Outcome]:
        return [self._one(view) for view in views]

    def _one(self, view: View) -> Outcome:
        if self.kind is None:
            self.kind = answer_kind(self.fmt, view, self.grades)
        if self.rng.random() >= self.noise:
            return oracle(view, self.grades, self.kind)
        answer = _RANDOM[self.kind](view, self.grades, self.rng)
        return Outcome(status="ok", answer=answer)


def _random_order(view: View, grades: Grades, rng: random.Random) -> Answer:
    return Order(docids=tuple(rng.sample(view.docids, len(view.docids))))


def _random_scores(view: View, grades: Grades, rng: random.Random) -> Answer:
    """Scores from the range of the grades, so that other views' can be compared with them."""
    top = max((1, *grades.values()))
    return Scores(values={d: rng.uniform(0, top) for d in view.docids})


def _random_best(view: View, grades: Grades, rng: random.Random) -> Answer:
    return Pick(docid=rng.choice(view.docids))


def _random_worst(view: View, grades: Grades, rng: random.Random) -> Answer:
    return Pick(docid=rng.choice(view.docids), worst=True)


_RANDOM: dict[Kind, Callable[[View, Grades, random.Random], Answer]] = {
    "order": _random_order,
    "scores": _random_scores,
    "best": _random_best,
    "worst": _random_worst,
}
