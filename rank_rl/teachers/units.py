"""What is asked about, and the walk through its questions.

A *unit* is one query with candidates: a task, or a draw from it. ``walk`` is a generator, like a
strategy: it yields what to ask together and receives what was answered, so that a live run, a
replay from the store and a count of calls are the same code. A *trail* is one complete answer to a
question: the outcomes of all its views, and the ranking that they give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from rank_rl import formats, strategies
from rank_rl.data.sampling import sample_views
from rank_rl.formats.base import Format
from rank_rl.records import Candidate, Completion, Outcome, Ranking, RankingTask, View
from rank_rl.specs import QuestionSpec, SamplerSpec
from rank_rl.strategies.base import Strategy
from rank_rl.strategies.drive import count
from rank_rl.teachers import choosing

# Issues of answers that do not say something of every document.
UNFINISHED = frozenset({"missing", "truncated", "unfinished"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A query with the candidates that are asked about; ``uid`` names it."""

    uid: str
    task: RankingTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question made ready: its format, and its strategy."""

    spec: QuestionSpec
    fmt: Format
    strategy: Strategy

    @classmethod
    def of(cls, spec: QuestionSpec, seed: int) -> Question:
        """Build format and strategy.

        Raises:
            RecipeError: an unknown name or a wrong parameter.
        """
        return cls(
            spec=spec,
            fmt=formats.make_written(spec.format, where="teach.questions"),
            strategy=strategies.make(spec.strategy, seed=seed),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Views of one question that may be asked at the same time, each for these samples."""

    question: Question
    unit: Unit
    view: View
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one view and sample; ``completion`` is None where the call failed."""

    view: View
    outcome: Outcome
    completion: Completion | None
    key: str

    @property
    def cut_off(self) -> bool:
        """Whether it ended at max_tokens or says nothing of documents it was asked about."""
        at_limit = self.completion is not None and self.completion.finish == "length"
        return at_limit or bool(UNFINISHED & set(self.outcome.issues))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """One complete answer to a question about a unit."""

    question: str
    sample: int
    ranking: Ranking
    answers: tuple[Answer, ...]
    kind: str

    @property
    def readable(self) -> bool:
        """Whether every view was answered and could be read."""
        return all(a.outcome.status != "failed" for a in self.answers)

    @property
    def order(self) -> tuple[str, ...]:
        """The ranking without documents that no view showed."""
        shown = {d for a in self.answers for d in a.view.docids}
        return tuple(d for d in self.ranking.docids if d in shown)

    @property
    def complete(self) -> bool:
        """Whether every view got a whole answer: readable, not cut off, no document left out."""
        return self.readable and not any(a.cut_off for a in self.answers)

    @property
    def length(self) -> int:
        """Characters written, of all views.

        Not tokens: of samples drawn with one request servers tell the sum only.
        """
        return sum(len(a.completion.text) for a in self.answers if a.completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """All that was answered about a unit: ``chosen`` trails by question, out of ``drawn``."""

    unit: Unit
    drawn: Mapping[str, tuple[Trail, ...]] = field(default_factory=dict)
    chosen: Mapping[str, tuple[Trail, ...]] = field(default_factory=dict)

    def first(self, question: str) -> Trail | None:
        """The chosen trail of a question; None where it was not asked."""
        trails = self.chosen.get(question, ())
        return trails[0] if trails else None


Walk = Generator[list[Ask], list[list[Answer]], Answered]


def units_of(
    tasks: Sequence[RankingTask], kind: str, sampler: SamplerSpec, *, seed: int
) -> list[Unit]:
    """Units in task order: whole tasks, or the draws of ``sampler`` as tasks of their own."""
    if kind == "task":
        return [Unit(uid=t.query.qid, task=t) for t in tasks]
    units = []
    for task in tasks:
        views, _ = sample_views(task, sampler, seed=seed)
        for i, view in enumerate(views):
            drawn = dataclasses.replace(task, candidates=view.candidates)
            units.append(Unit(uid=f"{task.query.qid}#{i}", task=drawn))
    return units


def walk(unit: Unit, questions: Sequence[Question]) -> Walk:
    """Ask every question about a unit, in order; returns all trails and the chosen ones."""
    drawn: dict[str, tuple[Trail, ...]] = {}
    chosen: dict[str, tuple[Trail, ...]] = {}
    for question in questions:
        candidates = _documents(question.spec, unit.task, chosen)
        if not candidates:
            continue
        about = Unit(uid=unit.uid, task=dataclasses.replace(unit.task, candidates=candidates))
        trails = yield from _trails(question, about)
        drawn[question.spec.name] = trails
        chosen[question.spec.name] = choosing.choose(question.spec.choose, trails, unit.task.grades)
    return Answered(unit=unit, drawn=drawn, chosen=chosen)


def _documents(
    spec: QuestionSpec, task: RankingTask, chosen: Mapping[str, tuple[Trail, ...]]
) -> tuple[Candidate, ...]:
    """The candidates a question is about; none where the question before it was not answered."""
    if spec.documents == "all":
        return task.candidates
    if spec.documents == "shortlist":
        # A draw shows its documents in random order; the shortlist is the first stage's.
        best = sorted(task.candidates, key=lambda c: c.rank)[: spec.size]
        return tuple(c for c in task.candidates if c in best)
    trails = chosen.get(spec.of or "", ())
    if not trails or not trails[0].complete:
        return ()
    named = set(trails[0].ranking.docids[: spec.size])
    return tuple(c for c in task.candidates if c.docid not in named)


def _trails(
    question: Question, unit: Unit
) -> Generator[list[Ask], list[list[Answer]], tuple[Trail, ...]]:
    samples = range(question.spec.samples)
    if count([unit.task], question.strategy).depth > 1:
        # What is shown next depends on the answer before: every sample goes its own way.
        trails = []
        for sample in samples:
            trails.append((yield from _one_way(question, unit, sample)))
        return tuple(trails)
    views = next(question.strategy.plan(unit.task))
    asks = [Ask(question=question, unit=unit, view=v, samples=tuple(samples)) for v in views]
    answered = yield asks
    return tuple(_finish(question, unit, s, [by[s] for by in answered]) for s in samples)


def _one_way(
    question: Question, unit: Unit, sample: int
) -> Generator[list[Ask], list[list[Answer]], Trail]:
    plan = question.strategy.plan(unit.task)
    answers: list[Answer] = []
    views = next(plan)
    while True:
        asks = [Ask(question=question, unit=unit, view=v, samples=(sample,)) for v in views]
        got = [by[0] for by in (yield asks)]
        answers += got
        try:
            views = plan.send([a.outcome for a in got])
        except StopIteration as stop:
            return _trail(question, sample, stop.value, answers)


def _finish(question: Question, unit: Unit, sample: int, answers: Sequence[Answer]) -> Trail:
    """The ranking of a strategy that asks everything at once."""
    plan = question.strategy.plan(unit.task)
    next(plan)
    try:
        plan.send([a.outcome for a in answers])
    except StopIteration as stop:
        return _trail(question, sample, stop.value, answers)
    raise ValueError(f"strategy {question.spec.strategy.name!r} asks in several rounds")


def _trail(question: Question, sample: int, ranking: Ranking, answers: Sequence[Answer]) -> Trail:
    return Trail(
        question=question.spec.name,
        sample=sample,
        ranking=ranking,
        answers=tuple(answers),
        kind=question.fmt.spec.name,
    )
