"""``arms.yaml`` (matched arms of a recipe folder) and ``method.yaml`` (what a folder is about)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import Spec
from rank_rl.specs.recipe import PipelineStage

ARM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class ArmStagesSpec(Spec):
    """The recipes, beside the file, that the arms are made of; ``score`` runs once, before all."""

    score: str | None = None
    sft: str | None = None
    grpo: str | None = None


class ArmSpec(Spec):
    """One arm: its stages in order, each started from the one before it, and what it changes.

    ``set`` holds ``a.b: value`` for all its stages, or ``sft:a.b: value`` for one of them.
    """

    name: str = Field(pattern=ARM_NAME)
    stages: list[Literal["sft", "grpo"]] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)


class ArmsSpec(Spec):
    """``arms.yaml``: arms that differ in what is compared and share the rest.

    Without ``arms``: modes answer and reason, each with stage sft alone and with sft and grpo.
    Two arms whose first stages are the same train them once.
    """

    name: str
    launch: str = "accelerate_configs/cpu.yaml"
    output_dir: str | None = None
    stages: ArmStagesSpec
    bench: str
    arms: list[ArmSpec] = []

    @model_validator(mode="after")
    def _arms_have_recipes(self) -> ArmsSpec:
        for arm in self.arms:
            for stage in arm.stages:
                if getattr(self.stages, stage) is None:
                    raise ValueError(f"arm {arm.name!r} has stage {stage}: name stages.{stage}")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms share a name")
        if taken := {"score", "bench"} & set(names):
            raise ValueError(f"arm {taken.pop()!r} would share a folder with that stage")
        if not self.every_arm():
            raise ValueError("no arms: name stages.sft or stages.grpo, or list arms")
        return self

    def every_arm(self) -> list[ArmSpec]:
        """The arms listed, else both modes with the stages up to each that has a recipe."""
        if self.arms:
            return self.arms
        known: list[Literal["sft", "grpo"]] = []
        if self.stages.sft is not None:
            known.append("sft")
        if self.stages.grpo is not None:
            known.append("grpo")
        return [
            ArmSpec(
                name=f"{mode}-{'+'.join(known[:n])}",
                stages=known[:n],
                set={"format.mode": mode},
            )
            for mode in ("answer", "reason")
            for n in range(1, len(known) + 1)
        ]


class MethodResultSpec(Spec):
    """A result file of ``rank-rl bench``, beside the folder, and the rows of it that are quoted."""

    file: str
    system: str
    base: str = "untrained base"
    first_stage: str = "first stage"
    metric: str | None = None
    label: str = ""


class MethodSpec(Spec):
    """``method.yaml``: the published method that a recipe folder is, for the table of methods.

    Format, strategy, rewards and losses are read from the recipes of its stages; ``stages`` is
    needed where they are not those of the folder's ``pipeline.yaml``. ``alternatives``: they are
    trained side by side and compared, not one after the other.
    """

    title: str
    paper: str
    arxiv: str | None = None
    url: str | None = None
    summary: str
    stages: list[PipelineStage] = []
    alternatives: bool = False
    paper_recipe: list[str] = []
    results: list[MethodResultSpec] = []
