"""What a training group has beside its grades: weights of a curriculum, a teacher's scores.

For any trainer whose loss sees ``ScoredGroup``s. A trainer makes ``Signals.of(stage)`` once and
asks it about every view; where a recipe has no curriculum or no teacher the answer is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rank_rl.data.curriculum import ease, eased
from rank_rl.errors import DataError, RecipeError
from rank_rl.formats import make
from rank_rl.records import Grades, RankingTask, TeacherScores, View
from rank_rl.specs import RecipeSpec
from rank_rl.training import followed

if TYPE_CHECKING:
    from rank_rl.training.common import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Weights and teacher scores of the documents of a view.

    Attributes:
        teacher: a teacher's scores by query id and docid.
        ease: how relevant the first stage finds a document, in [0, 1], by query id and docid;
            empty without a curriculum, and without queries that have no grades.
        end: share of the steps after which the curriculum weighs all documents alike.
    """

    teacher: TeacherScores
    ease: Mapping[str, Mapping[str, float]]
    end: float = 1.0

    @classmethod
    def of(cls, stage: Stage) -> Signals:
        """The signals that a recipe asks for.

        Raises:
            DataError: a curriculum of first-stage scores, and candidates without scores.
        """
        teacher, spec = stage.collection.teacher, stage.spec.data.curriculum
        if spec is None:
            return cls(teacher=teacher, ease={})
        known = {
            t.query.qid: dict(zip(t.docids, ease(spec.heuristic, t.candidates), strict=True))
            for t in stage.collection.train
            if t.grades is not None
        }
        return cls(teacher=teacher, ease=known, end=spec.end)

    def weights(self, view: View, grades: Grades, progress: float) -> list[float] | None:
        """Weight in the loss of each document shown, in [0, 1]; None where all weigh 1.

        Args:
            view: a view of a training query.
            grades: its grades.
            progress: share of the training steps taken, in [0, 1].
        """
        own = self.ease.get(view.query.qid)
        if own is None or progress >= self.end:
            return None
        return [eased(own[d], grades.get(d, 0) > 0, progress, self.end) for d in view.docids]

    def scores(self, view: View) -> list[float] | None:
        """The teacher's score of each document shown, NaN where it gave none, as to all of a query
        that its run lacks; None without a teacher."""
        if not self.teacher:
            return None
        own = self.teacher.get(view.query.qid, {})
        return [own.get(d, math.nan) for d in view.docids]

    def columns(self, view: View, grades: Grades, progress: float, like: Any) -> dict[str, Any]:
        """``teacher`` and ``weights`` of a ``ScoredGroup``: fp32, on the device of ``like``."""
        import torch

        found = {"teacher": self.scores(view), "weights": self.weights(view, grades, progress)}
        single = {"dtype": torch.float32, "device": like.device}  # scores may be bf16
        return {k: None if v is None else torch.tensor(v, **single) for k, v in found.items()}


def grades_of(stage: Stage, task: RankingTask, view: View) -> dict[str, int]:
    """Grades of the documents shown; 0 for all where nobody but a teacher judged the query.

    Raises:
        DataError: neither grades nor a teacher's scores.
    """
    if task.grades is None and task.query.qid not in stage.collection.teacher:
        raise DataError(
            "the task has no grades",
            where=f"query {task.query.qid!r}",
            expected="grades to train on, or a teacher's scores in data.teacher_run",
        )
    return view.grades(task.grades or {})


def progress(state: Any) -> float:
    """Share of a transformers trainer's steps that are taken, in [0, 1]."""
    return min(1.0, state.global_step / max(1, state.max_steps))


def check(stage: str, spec: RecipeSpec) -> None:
    """Refuse signals that a stage would not learn from.

    Raises:
        RecipeError: naming the key.
    """
    groups = stage == "score" or (
        stage == "grpo" and spec.grpo.policy == "slots" and spec.grpo.supervised > 0
    )
    if spec.data.curriculum is not None and not groups:
        raise RecipeError(
            f"stage {stage} has no losses that weigh documents",
            where="data.curriculum",
            expected="null",
            remedy="it belongs to stage score, and to grpo with policy slots and supervised",
        )
    if spec.data.sampler.negatives == "mined" and stage != "score":
        raise RecipeError(
            "value mined",
            where="data.sampler.negatives",
            expected=f"random, hard or mixed in stage {stage}",
            remedy="only stage score mines while training",
        )
    if spec.data.sampler.negatives == "mined" and _scorer(spec) == "pair_scores":
        raise RecipeError(
            "value mined",
            where="data.sampler.negatives",
            expected="random, hard or mixed with format pair_scores",
            remedy="a path gives no scores that tell which document is hard",
        )
    if spec.data.lessons and stage != "sft":
        raise RecipeError(
            f"stage {stage} reads no lessons",
            where="data.lessons",
            expected="null",
            remedy="they belong to stage sft; set it to null where it is inherited",
        )
    if spec.data.reasoning_share < 1 and stage != "sft":
        raise RecipeError(
            f"stage {stage} writes no answers to learn, with reasoning or without",
            where="data.reasoning_share",
            expected="1.0",
            remedy="it belongs to stage sft; set it to 1.0 where it is inherited",
        )
    followed.check_teacher(stage, spec)


def _scorer(spec: RecipeSpec) -> str:
    return str(getattr(make(spec.format), "scorer", ""))
