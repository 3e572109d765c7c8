"""A teacher's scores of training documents, read from a TREC run.

What losses with target ``teacher`` learn from. Only queries that are trained on keep their scores:
those of a held-out query are never looked at. Where nobody has graded a query, the teacher's best
documents may stand in for relevant ones. Labels as tasks (``rank-rl teach`` writes some) need none
of this: they are grades already.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl.data.files import sha256
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.records import RankingTask
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
Tasks = tuple[RankingTask, ...]
TeacherScores = Mapping[str, Mapping[str, float]]


def scored(spec: DataSpec, train: Tasks) -> tuple[Tasks, TeacherScores, dict[str, Any]]:
    """The training tasks, the teacher's scores by query id and docid, and facts for provenance.

    With ``data.teacher_relevant`` tasks without grades get grade 1 for that many candidates that
    the teacher scores best (ties by first-stage rank). Without it, tasks with empty grades that
    the teacher scored count as not graded, so that draws from them are kept.

    Raises:
        DataError: a malformed run, or one that scores no candidate of a training query.
    """
    if not spec.teacher_run:
        return train, {}, {}
    path = Path(spec.teacher_run).expanduser()
    run = read_run(path)
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
    found = sum(map(len, scores.values()))
    logger.info(
        "teacher: %s of %s training queries scored (%s of %s candidates), %s graded by it",
        len(scores), len(train), found, documents, graded,
    )  # fmt: skip
    facts = {"file": sha256(path), "queries": len(scores), "scores": found, "graded": graded}
    return tuple(tasks), scores, {"teacher": facts}


def _best(scores: Mapping[str, float], count: int) -> dict[str, int]:
    """Grade 1 for the best documents; ``scores`` are in first-stage order, which breaks ties."""
    return dict.fromkeys(sorted(scores, key=lambda d: -scores[d])[:count], 1)
