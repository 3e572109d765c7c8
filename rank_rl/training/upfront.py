"""What of a recipe a training stage refuses before it reads data or loads a model.

One place for the stages and for ``rank-rl check``: signals, the format's fit to the stage, losses
and whether the stage's groups have what they need, how validation reads and measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rank_rl import formats, losses, strategies
from rank_rl.errors import RecipeError
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.specs import Readout, RecipeSpec
from rank_rl.strategies.fit import check_fit
from rank_rl.training.followed import losses_of
from rank_rl.training.signals import check as check_signals

if TYPE_CHECKING:
    from rank_rl.data import Collection
    from rank_rl.formats import Format
    from rank_rl.formats.slots import SlotFormat
    from rank_rl.losses.group import ScoredGroup


def check_stage(stage: str, spec: RecipeSpec) -> tuple[Format, Readout]:
    """The format of a recipe and how its answers are read, if the stage can train with them.

    Args:
        stage: score, sft or grpo.
        spec: the recipe.

    Raises:
        RecipeError: naming the key that does not fit.
    """
    from rank_rl.training.callbacks import measure
    from rank_rl.training.grpo_checks import check_grpo

    check_signals(stage, spec)
    fmt = formats.make(spec.format)
    if stage != "score":
        fmt = formats.make_written(spec.format, where="format.name")
    if (stage == "score" and formats.kind(fmt) == "text") or (
        stage == "grpo" and spec.grpo.policy == "slots"
    ):
        slot_format(spec, stage)
    check_losses(stage, spec)
    if stage == "grpo":
        check_grpo(spec, fmt)
    measure(spec.eval.metric)
    return fmt, check_reading(spec)


def check_reading(spec: RecipeSpec) -> Readout:
    """The readout of ``eval``, never ``auto``, if the recipe's format can be read so.

    Raises:
        RecipeError: it cannot, or has no reasoning to skip.
    """
    fmt, how = formats.make(spec.format), spec.eval
    check_reasoning(fmt, how.reasoning, where="eval.reasoning")
    return readout_for(fmt, how.readout, where="eval.readout", reasoning=how.reasoning)


def check_validation(spec: RecipeSpec, collection: Collection, readout: str) -> None:
    """Refuse a strategy of ``eval`` that the format does not fit, where anything is validated.

    Raises:
        RecipeError: naming the strategy.
    """
    strategy = strategies.make(spec.eval.strategy, seed=spec.run.seed)
    fmt = formats.make(spec.format)
    check_fit(collection.validation, strategy, fmt, readout, where="eval")


def slot_format(spec: RecipeSpec, stage: str) -> SlotFormat:
    """The format of a recipe whose stage learns through label slots.

    Raises:
        RecipeError: the format has none.
    """
    fmt = formats.make(spec.format)
    if not hasattr(fmt, "slots"):
        remedy = ", or grpo.policy: text" if stage == "grpo" else ""
        raise RecipeError(
            f"format {spec.format.name!r} has no label slots, which stage {stage} learns through",
            where="format.name",
            expected="slots",
            remedy=f"set format.name: slots{remedy}",
        )
    return cast("SlotFormat", fmt)


def check_losses(stage: str, spec: RecipeSpec) -> None:
    """Refuse losses that cannot be made, or that want what the stage's groups do not have.

    Losses of this package are tried on a group; one of another package may remember its groups.

    Raises:
        RecipeError: naming the loss.
    """
    used = losses_of(stage, spec)
    if not used:
        return
    losses.make(used)
    group = _trial(stage, spec)
    for one in used:
        if one.name in losses.TABLE:
            try:
                losses.one(one)(group)
            except RecipeError as error:
                what = f"{error.what} with format {spec.format.name!r} in stage {stage}"
                raise RecipeError(what, where=error.where, expected=error.expected) from error


def _trial(stage: str, spec: RecipeSpec) -> ScoredGroup:
    """Two documents with the fields that the stage's trainer gives a group of this recipe."""
    import torch

    from rank_rl.losses.group import ScoredGroup
    from rank_rl.training.slot_texts import wanted

    fmt = formats.make(spec.format)
    two = torch.tensor([1.0, 0.0])
    found = {"teacher": two} if spec.data.teacher_run else {}
    if spec.data.curriculum is not None:
        found["weights"] = two
    if hasattr(fmt, "slots"):
        labels = len(cast("SlotFormat", fmt).labels)
        found |= {"logits": torch.zeros(2, labels), "mass": two, "targets": torch.tensor([1, 0])}
        if wanted(stage, spec):
            found["texts"] = two
    elif getattr(fmt, "scorer", "") == "pair_scores":
        found["pairs"] = torch.zeros(2, 2)
    return ScoredGroup(scores=two, grades=two, ranks=torch.tensor([1.0, 2.0]), **found)
