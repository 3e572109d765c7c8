"""What the losses of a stage follow, the grades or a teacher, and whether the data has it.

Told before the training: a loss of grades on queries that only a teacher has scored sees grade 0
everywhere, which teaches nothing, or that no document is relevant.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rank_rl import formats, losses, rewards
from rank_rl.errors import RecipeError
from rank_rl.specs import LossSpec, RecipeSpec, RewardSpec

if TYPE_CHECKING:
    from rank_rl.data import Collection

logger = logging.getLogger(__name__)

DEFAULT_LOSSES = (LossSpec(name="bce"), LossSpec(name="listnet", weight=0.3))
# Of scorers for whose scores those are not made: cosines, paths.
SCORER_LOSSES = {
    "embedding": (LossSpec(name="info_nce"),),
    "pair_scores": (LossSpec(name="tsp_margin"),),
}
# Losses whose one-document terms push every document without a grade down.
ABSOLUTE = ("bce", "label_ce", "lm")
COPYING = ("kl", "margin_mse")


def losses_of(stage: str, spec: RecipeSpec) -> tuple[LossSpec, ...]:
    """The losses that a stage trains with, those of its own choice included."""
    if stage == "grpo":
        supervised = spec.grpo.policy == "slots" and spec.grpo.supervised > 0
        return tuple(spec.losses or DEFAULT_LOSSES) if supervised else ()
    if stage != "score":
        return ()
    kind = getattr(formats.make(spec.format), "scorer", "")
    return tuple(spec.losses or SCORER_LOSSES.get(kind, DEFAULT_LOSSES))


def follows_teacher(spec: LossSpec) -> bool:
    """Whether a loss can learn from a teacher's scores; a loss that is not ours may."""
    if spec.name not in losses.TABLE or spec.name in COPYING:
        return True
    return getattr(losses.one(spec), "target", "grades") != "grades"


def rewarded(stage: str, spec: RecipeSpec) -> list[RewardSpec]:
    """The rewards of a stage that follow a teacher."""
    if stage != "grpo":
        return []
    return [one for one in spec.rewards if one.weight and rewards.follows(rewards.one(one))]


def check_teacher(stage: str, spec: RecipeSpec) -> None:
    """Refuse a teacher's scores that nothing of a stage would look at, and rewards that lack them.

    Raises:
        RecipeError: naming the key.
    """
    data = spec.data
    used = [s for s in losses_of(stage, spec) if s.weight]
    paid = [s.name for s in rewarded(stage, spec)]
    if paid and data.teacher_run is None:
        raise RecipeError(
            "follows a teacher, and there is none",
            where=f"reward {paid[0]!r}",
            expected="a teacher's scores or lessons in data.teacher_run",
        )
    if data.teacher_run is None or data.teacher_relevant or data.teacher_grades or paid:
        return
    if any(map(follows_teacher, used)):
        return
    raise RecipeError(
        f"no loss of stage {stage} follows a teacher ({_named(used) or 'it has none'})",
        where="data.teacher_run",
        expected="a loss with target auto or teacher, kl or margin_mse; or reward rbo of a teacher",
        remedy="or set data.teacher_grades or teacher_relevant: grades are then made of its scores",
    )


def check_data(stage: str, spec: RecipeSpec, collection: Collection) -> None:
    """Say where a teacher lacks queries; refuse, or warn of, losses of grades where nobody graded.

    Raises:
        RecipeError: a loss would push all documents down of queries that only the teacher has
            scored, or none would teach anything.
    """
    known, train = collection.teacher, collection.train
    used = [s for s in losses_of(stage, spec) if s.weight]
    missing = sum(t.query.qid not in known for t in train)
    if known and missing:
        logger.info(
            "%s of %s training queries have no teacher scores: losses that need them are 0 there",
            missing, len(train),
        )  # fmt: skip
    count = sum(t.query.qid in known and not t.grades for t in train)
    if not count or not used:
        return
    wrong = [s for s in used if s.name in ABSOLUTE]
    idle = [s for s in used if s.name not in ABSOLUTE and not _needs_no_grades(s)]
    if wrong or (len(idle) == len(used) and count == len(train)):
        raise RecipeError(
            f"{count} training queries without grades, where {_named(wrong or idle)} "
            f"{'takes all documents for irrelevant' if wrong else 'has nothing to learn'}",
            where="losses",
            expected="losses that follow the teacher, such as ranknet or adr_mse",
            remedy="or set data.teacher_relevant: the teacher's best documents are then relevant",
        )
    if idle:
        logger.warning(
            "%s training queries have no grades: %s teaches nothing there", count, _named(idle)
        )


def _needs_no_grades(spec: LossSpec) -> bool:
    """Whether a loss learns from a teacher alone; margins of graded pairs need grades as well."""
    if spec.name == "margin_mse":
        return spec.params.get("pairs", "graded") == "all"
    return follows_teacher(spec)


def _named(specs: Sequence[LossSpec]) -> str:
    return ", ".join(s.name for s in specs)
