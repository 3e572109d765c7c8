"""A whole recipe, and a pipeline of recipes.

``training`` carries the argument names of TRL and transformers verbatim and is checked by the stage
that uses it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import FormatSpec, ModelSpec, RunSpec, Spec
from rank_rl.specs.bench import BenchSpec, RankSpec
from rank_rl.specs.data import DataSpec
from rank_rl.specs.teach import TeachSpec
from rank_rl.specs.training import EvalSpec, GrpoSpec, LossSpec, RewardSpec


class RecipeSpec(Spec):
    """A whole recipe. Which sections a stage needs is checked by that stage."""

    run: RunSpec
    model: ModelSpec
    data: DataSpec
    format: FormatSpec
    rewards: list[RewardSpec] = []
    losses: list[LossSpec] = []
    grpo: GrpoSpec = GrpoSpec()
    training: dict[str, Any] = Field(default_factory=dict)
    eval: EvalSpec = EvalSpec()
    bench: BenchSpec | None = None
    rank: RankSpec | None = None
    teach: TeachSpec | None = None

    @model_validator(mode="after")
    def _stop_has_other_weights(self) -> RecipeSpec:
        if self.grpo.alarm.action == "stop" and not self.eval.every:
            raise ValueError(
                "grpo.alarm.action stop ends with the best weights of validations while training: "
                "set eval.every too"
            )
        return self

    @model_validator(mode="after")
    def _rewards_vary(self) -> RecipeSpec:
        constant = [r.name for r in self.rewards if r.name in ("format", "length", "overlong")]
        if self.grpo.policy == "slots" and constant:
            raise ValueError(
                f"reward {constant[0]!r} is constant with grpo.policy slots, "
                "where no text is written: leave it out"
            )
        if self.grpo.policy == "slots" and any(r.name == "agreement" for r in self.rewards):
            raise ValueError(
                "reward 'agreement' compares written answers: with grpo.policy slots all answers "
                "are drawn from the same scores, so leave it out"
            )
        return self


class PipelineSpec(Spec):
    """``pipeline.yaml`` of a recipe folder: stages in order, one file and one launch each."""

    name: str
    launch: str = "accelerate_configs/cpu.yaml"
    stages: list[PipelineStage]


class PipelineStage(Spec):
    """One stage: its name and its recipe file, beside the pipeline."""

    stage: Literal["teach", "rank", "score", "sft", "grpo", "bench"]
    recipe: str


PipelineSpec.model_rebuild()
