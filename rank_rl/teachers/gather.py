"""From answers to lessons and labelled tasks, with every drop counted and shown.

``collect`` turns what was answered about units into lessons, ``judge`` runs the filters over them
and over imported ones. Nothing is lost without a line in the report: what a filter removed, what
could not be read, what was never answered, what is in a test set.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rank_rl.data.lessons import Lesson, as_grades
from rank_rl.data.splits import normalised
from rank_rl.records import Order, Outcome, RankingTask, numbered
from rank_rl.specs import FilterSpec, TeachSpec
from rank_rl.teachers import filters, labels
from rank_rl.teachers.asking import identity
from rank_rl.teachers.filters import Filter, Item
from rank_rl.teachers.units import Answer, Answered, Question, Trail

EXAMPLES = 3
DEFAULT_FILTERS = [FilterSpec(name="readable")]


@dataclass(slots=True)
class Drops:
    """What one filter removed: ``dropped`` where it was the first to object, ``alone`` all told.

    ``units`` counts the queries that a filter of scope ``unit`` left without labels.
    """

    dropped: int = 0
    alone: int = 0
    units: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Judged:
    """Lessons that are kept, and what became of the others."""

    kept: list[Lesson] = field(default_factory=list)
    seen: int = 0
    drops: dict[str, Drops] = field(default_factory=dict)
    reasons: dict[tuple[str, str, tuple[str, ...]], str] = field(default_factory=dict)
    bad_units: set[str] = field(default_factory=set)
    only_labels: int = 0

    def labels_only(self, lessons: Iterable[Lesson]) -> None:
        """Take lessons out that were wanted for their labels alone."""
        silent = {id(lesson) for lesson in lessons}
        kept = [lesson for lesson in self.kept if id(lesson) not in silent]
        self.only_labels += len(self.kept) - len(kept)
        self.kept = kept

    def as_dict(self) -> dict[str, Any]:
        """JSON form of the drop report."""
        return {
            "answers": self.seen,
            "kept": len(self.kept),
            "labels_only": self.only_labels,
            "dropped": {name: dataclasses.asdict(d) for name, d in self.drops.items()},
        }


def collect(
    answered: Iterable[Answered], questions: Sequence[Question], teach: TeachSpec
) -> list[Item]:
    """Items of every chosen answer to a question that gives lessons, in unit order."""
    items = []
    for one in answered:
        for question in questions:
            if not question.spec.lesson:
                continue
            for trail in one.chosen.get(question.spec.name, ()):
                items += [_item(a, trail, one, question, teach) for a in trail.answers]
    return items


def _item(
    answer: Answer, trail: Trail, answered: Answered, question: Question, teach: TeachSpec
) -> Item:
    outcome = answer.outcome
    task = answered.unit.task
    shown = {d: g for d, g in (task.grades or {}).items() if d in answer.view.docids}
    lesson = Lesson(
        view=answer.view,
        answer=outcome.answer or Order(docids=()),
        reasoning=outcome.reasoning,
        notes=outcome.notes,
        comparisons=outcome.comparisons,
        grades=shown or None,
        question=question.spec.name,
        teacher=identity(teach.teachers[question.spec.teacher]),
        unit=answered.unit.uid,
        keys=(answer.key,),
        licence=teach.licence,
    )
    finish = answer.completion.finish if answer.completion else "error"
    return Item(lesson=lesson, outcome=outcome, finish=finish, answered=answered)


def imported(lessons: Iterable[Lesson]) -> list[Item]:
    """Items of lessons that somebody else made; they could be read, or would not be here."""
    return [
        Item(
            lesson=lesson,
            outcome=Outcome(
                status="ok",
                answer=lesson.answer,
                reasoning=lesson.reasoning,
                notes=lesson.notes,
                comparisons=lesson.comparisons,
            ),
        )
        for lesson in lessons
    ]


def judge(
    items: Sequence[Item], specs: Sequence[FilterSpec], held_out: Sequence[RankingTask]
) -> Judged:
    """Run the filters; queries of the test and validation parts are removed before anything else.

    Args:
        items: what may become lessons.
        specs: the recipe's filters; ``readable`` always comes first.
        held_out: tasks whose queries must not be learned from.
    """
    named = [s.name for s in specs]
    chosen = list(specs) if "readable" in named else [*DEFAULT_FILTERS, *specs]
    built = [(_title(spec), spec.question, filters.make(spec)) for spec in chosen]
    judged = Judged(seen=len(items))
    judged.drops = {"no answer": Drops(), "in the test set": Drops()}
    judged.drops |= {title: Drops() for title, _, _ in built}
    qids = {t.query.qid for t in held_out}
    texts = {normalised(t.query.text) for t in held_out}
    for item in items:
        found = _objections(item, built, judged)
        query = item.lesson.view.query
        if query.qid in qids or normalised(query.text) in texts:
            found = [("in the test set", query.text), *found]
        if item.outcome.issues == ("no_answer",):
            found = [("no answer", "the request failed"), *found]
        if not found:
            judged.kept.append(item.lesson)
            continue
        _count(found, item, judged)
    return judged


def _title(spec: FilterSpec) -> str:
    return f"{spec.name} ({spec.question})" if spec.question else spec.name


def _objections(
    item: Item, built: Sequence[tuple[str, str | None, Filter]], judged: Judged
) -> list[tuple[str, str]]:
    found = []
    for title, question, one in built:
        if question is not None and question != item.lesson.question:
            continue
        why = one(item)
        if why:
            found.append((title, why))
            if one.scope == "unit":
                judged.bad_units.add(item.lesson.unit)
    return found


def _count(found: Sequence[tuple[str, str]], item: Item, judged: Judged) -> None:
    for title in dict(found):
        judged.drops[title].alone += 1
    title, why = found[0]
    drops = judged.drops[title]
    drops.dropped += 1
    lesson = item.lesson
    judged.reasons[lesson.unit, lesson.question, lesson.keys] = f"{title}: {why}"
    if len(drops.examples) < EXAMPLES:
        text = lesson.reasoning or " ".join(lesson.notes.values())
        drops.examples.append(
            {"unit": lesson.unit, "question": lesson.question, "why": why, "text": text[:300]}
        )


def labelled(
    answered: Iterable[Answered], teach: TeachSpec, judged: Judged, held_out: Sequence[RankingTask]
) -> tuple[list[RankingTask], int]:
    """Tasks with the teacher's labels as grades and its reasons as notes; and how many got none.

    A unit is left out when it cannot be labelled, when a filter of scope ``unit`` objected, or
    when its query is held out.
    """
    label = labels.make(teach.labels)
    qids = {t.query.qid for t in held_out}
    texts = {normalised(t.query.text) for t in held_out}
    of_units = [(_title(spec), filters.make(spec)) for spec in teach.filters]
    of_units = [(title, one) for title, one in of_units if one.scope == "unit"]
    tasks, without = [], 0
    for one in answered:
        query = one.unit.task.query
        gold = label(one)
        out = query.qid in qids or normalised(query.text) in texts
        # Asked again: where no question gives lessons, no lesson was there to be judged.
        bad = [title for title, objects in of_units if objects(_bare(one))]
        for title in bad[:1]:
            judged.drops[title].units += 1
        if not gold or out or bad or one.unit.uid in judged.bad_units:
            without += 1
            continue
        tasks.append(_task(one, gold, teach))
    return tasks, without


def _bare(answered: Answered) -> Item:
    """A unit without an answer of its own, for filters that look at all its answers."""
    task = answered.unit.task
    view = numbered(task.query, task.candidates)
    lesson = Lesson(view=view, answer=Order(docids=()), grades=task.grades, unit=answered.unit.uid)
    return Item(lesson=lesson, outcome=Outcome(status="ok"), answered=answered)


def _task(answered: Answered, gold: Mapping[str, float], teach: TeachSpec) -> RankingTask:
    task = answered.unit.task
    notes: dict[str, str] = {}
    comparisons: dict[str, str] = {}
    for trails in answered.chosen.values():
        for answer in trails[0].answers:
            notes |= {d: n for d, n in answer.outcome.notes.items() if d not in notes}
            comparisons |= dict(answer.outcome.comparisons)
    known = {"explicit": notes, "comparison": comparisons, "labels": dict(gold)}
    metadata = {**task.query.metadata, "teacher": {k: v for k, v in known.items() if v}}
    query = dataclasses.replace(task.query, qid=answered.unit.uid, metadata=metadata)
    # A task holds its candidates in first-stage order, however they were shown.
    kept = tuple(sorted((c for c in task.candidates if c.docid in gold), key=lambda c: c.rank))
    return dataclasses.replace(
        task,
        query=query,
        candidates=kept,
        grades=labels.to_grades(gold, teach.labels.levels),
        split="train",
    )


def imported_tasks(lessons: Iterable[Lesson], levels: int | None) -> list[RankingTask]:
    """Imported lists as tasks: what the teacher answered as grades, its reasons as notes.

    Args:
        lessons: views of one document are left out.
        levels: the best grade of an order, as for labels; scores are kept as they are.
    """
    tasks = []
    for lesson, qid in _numbered(lessons):
        grades = _import_grades(lesson, levels)
        known = {"explicit": dict(lesson.notes), "comparison": dict(lesson.comparisons)}
        tasks.append(_lesson_task(lesson, qid, grades, {k: v for k, v in known.items() if v}))
    return tasks


def _import_grades(lesson: Lesson, levels: int | None) -> dict[str, int]:
    """Grades of an imported list; the last place of an order, with ties or without, gets 0."""
    grades = as_grades(lesson.answer, lesson.view)
    places = set(range(1, len(set(grades.values())) + 1))
    if not isinstance(lesson.answer, Order) and set(grades.values()) != places:
        return grades  # the teacher's own grades
    gold = {d: float(g - 1) for d, g in grades.items()}
    return labels.to_grades(gold, levels)


def judged_tasks(lessons: Iterable[Lesson]) -> list[RankingTask]:
    """Imported lists that people judged, with their grades: for a held-out evaluation.

    Lists without a relevant document, or with nothing else, tell nothing and are left out.
    """
    tasks = []
    for lesson, qid in _numbered(lessons):
        grades = filters.known_grades(lesson)
        if grades is not None and any(grades.get(d, 0) <= 0 for d in lesson.view.docids):
            task = _lesson_task(lesson, qid, grades, {})
            tasks.append(dataclasses.replace(task, split="test"))
    return tasks


def _numbered(lessons: Iterable[Lesson]) -> Iterable[tuple[Lesson, str]]:
    """Lists of two documents or more with an id each: that of the query, numbered if it repeats."""
    seen: Counter[str] = Counter()
    for lesson in lessons:
        qid = lesson.view.query.qid
        if len(lesson.view.docids) > 1:
            seen[qid] += 1
            yield lesson, qid if seen[qid] == 1 else f"{qid}#{seen[qid]}"


def _lesson_task(
    lesson: Lesson, qid: str, grades: Mapping[str, int], notes: Mapping[str, Any]
) -> RankingTask:
    metadata = {"teacher": dict(notes)} if notes else {}
    return RankingTask(
        query=dataclasses.replace(lesson.view.query, qid=qid, metadata=metadata),
        candidates=lesson.view.candidates,
        grades=dict(grades),
        source=lesson.question,
        split="train",
    )
