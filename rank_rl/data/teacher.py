"""A teacher's scores of training documents, read from a TREC run or from lessons.

What losses with target ``teacher`` learn from, and rewards that follow one. Only queries that are
trained on keep their scores: those of a held-out query are never looked at. Where nobody has graded
a query, the teacher's best documents may stand in for relevant ones. Labels as tasks (``rank-rl
teach`` writes some) need none of this: they are grades already.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from rank_rl.data import lessons
from rank_rl.data.files import sha256
from rank_rl.data.lessons import Lesson
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.records import RankingTask, Scores, TeacherScores
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
Tasks = tuple[RankingTask, ...]


def scored(spec: DataSpec, train: Tasks) -> tuple[Tasks, TeacherScores, dict[str, Any]]:
    """The training tasks, the teacher's scores by query id and docid, and facts for provenance.

    With ``data.teacher_relevant`` tasks without grades get grade 1 for that many candidates that
    the teacher scores best (ties by first-stage rank). Without it, tasks with empty grades that
    the teacher scored count as not graded, so that draws from them are kept. With
    ``data.teacher_grades`` all training tasks have its scores as grades, and those that it has not
    scored are left out.

    Raises:
        DataError: a malformed run, or one that scores no candidate of a training query.
    """
    if not spec.teacher_run:
        return train, {}, {}
    path = Path(spec.teacher_run).expanduser()
    if (path / "lessons.jsonl").is_file():
        path /= "lessons.jsonl"
    if not path.exists():
        raise DataError(
            "no such file",
            where=f"data.teacher_run {path}",
            remedy="stage rank writes a teacher's run, rank-rl teach lessons",
        )
    run = read(path)
    scores: dict[str, dict[str, float]] = {}
    graded = documents = 0
    tasks: list[RankingTask] = []
    for task in train:
        given = dict(run.get(task.query.qid, ()))
        if own := {d: given[d] for d in task.docids if d in given}:
            scores[task.query.qid] = own
        if spec.teacher_relevant and own and not task.grades:
            task = dataclasses.replace(task, grades=_best(own, spec.teacher_relevant))
            graded += 1
        elif own and not task.grades:
            task = dataclasses.replace(task, grades=None)  # {}: nobody found anything relevant
        documents += len(task.docids)
        tasks.append(task)
    if train and not scores:
        raise DataError(
            "scores no candidate of a training query",
            where=f"data.teacher_run {path}",
            expected="query ids and docids of the collection",
        )
    if spec.teacher_grades:
        tasks = _graded(tasks, scores, spec.teacher_grades)
        graded = len(tasks)
    found = sum(map(len, scores.values()))
    logger.info(
        "teacher: %s of %s training queries scored (%s of %s candidates), %s graded by it",
        len(scores), len(train), found, documents, graded,
    )  # fmt: skip
    facts = {"file": sha256(path), "queries": len(scores), "scores": found, "graded": graded}
    return tuple(tasks), scores, {"teacher": facts}


def read(path: Path) -> Mapping[str, Iterable[tuple[str, float]]]:
    """A teacher's (docid, score) pairs by query id, from a TREC run or a file of lessons.

    A lesson's scores are taken as they are. Of an order, a document's score is the share of the
    documents shown that it does not stand below: 1 for the first, 0 for one left out. Where several
    lessons of a query show a document, its score is their mean.

    Raises:
        DataError: a malformed file, or lessons of which some are orders and some are scores.
    """
    if path.suffix != ".jsonl":
        return read_run(path)
    found: dict[str, dict[str, list[float]]] = {}
    kinds: set[str] = set()
    for lesson in lessons.read(path):
        kinds.add("scores" if isinstance(lesson.answer, Scores) else "orders")
        own = found.setdefault(lesson.view.query.qid, {})
        for docid, score in _points(lesson).items():
            own.setdefault(docid, []).append(score)
    if len(kinds) > 1:
        raise DataError(
            "orders and scores, which do not compare",
            where=f"data.teacher_run {path}",
            expected="lessons of one question",
        )
    return {qid: [(d, fmean(values)) for d, values in own.items()] for qid, own in found.items()}


def _points(lesson: Lesson) -> Mapping[str, float]:
    """The scores of a lesson, or points for the places of its order."""
    if isinstance(lesson.answer, Scores):
        return lesson.answer.values
    size = len(lesson.view.docids)
    places = {d: i for i, d in enumerate(lesson.order)}
    return {d: 1 - places.get(d, size) / size for d in lesson.view.docids}


def _graded(tasks: Iterable[RankingTask], scores: TeacherScores, top: int) -> list[RankingTask]:
    """The tasks that a teacher scored, with grades from 0 (its least score) to ``top``."""
    values = [score for own in scores.values() for score in own.values()]
    least, spread = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    scale = top / spread if spread else 0.0
    return [
        dataclasses.replace(
            task,
            grades={d: round((s - least) * scale) for d, s in scores[task.query.qid].items()},
        )
        for task in tasks
        if task.query.qid in scores
    ]


def _best(scores: Mapping[str, float], count: int) -> dict[str, int]:
    """Grade 1 for the best documents; ``scores`` are in first-stage order, which breaks ties."""
    return dict.fromkeys(sorted(scores, key=lambda d: -scores[d])[:count], 1)
