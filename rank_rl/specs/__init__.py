"""What a recipe may say, section by section, as pydantic models (floor 1: no torch, no trl).

Unknown keys, wrong types and values out of range are refused here; ``rank_rl.recipe`` loads the
YAML, applies ``extends`` and ``--set`` and turns a validation error into one readable line.
"""

from __future__ import annotations

from rank_rl.specs.arms import ArmSpec, ArmsSpec, ArmStagesSpec, MethodResultSpec, MethodSpec
from rank_rl.specs.attacks import AttackKind, AttackSpec
from rank_rl.specs.base import (
    FormatSpec,
    FusionMethod,
    FusionSpec,
    LoraSpec,
    ModelSpec,
    NamedSpec,
    Readout,
    Reasoning,
    RunSpec,
    Spec,
    StrategySpec,
)
from rank_rl.specs.bench import BenchSpec, CollectionSpec, DiagnosisSpec, RankSpec, SystemSpec
from rank_rl.specs.data import CurriculumSpec, DataSpec, FirstStageSpec, SamplerSpec
from rank_rl.specs.leaks import LeakSpec
from rank_rl.specs.recipe import PipelineSpec, PipelineStage, RecipeSpec
from rank_rl.specs.teach import (
    FilterSpec,
    ImportSpec,
    LabelSpec,
    PriceSpec,
    QuestionSpec,
    SynthesisSpec,
    TeacherSpec,
    TeachSpec,
)
from rank_rl.specs.training import (
    AlarmSpec,
    EvalSpec,
    GrpoSpec,
    LossSpec,
    PassRateSpec,
    RewardSpec,
)

__all__ = [
    "AlarmSpec",
    "ArmSpec",
    "ArmStagesSpec",
    "ArmsSpec",
    "AttackKind",
    "AttackSpec",
    "BenchSpec",
    "CollectionSpec",
    "DiagnosisSpec",
    "LeakSpec",
    "RankSpec",
    "CurriculumSpec",
    "DataSpec",
    "EvalSpec",
    "FilterSpec",
    "FirstStageSpec",
    "FormatSpec",
    "FusionMethod",
    "FusionSpec",
    "GrpoSpec",
    "ImportSpec",
    "LabelSpec",
    "LoraSpec",
    "LossSpec",
    "MethodResultSpec",
    "MethodSpec",
    "ModelSpec",
    "NamedSpec",
    "PassRateSpec",
    "PipelineSpec",
    "PipelineStage",
    "PriceSpec",
    "QuestionSpec",
    "Readout",
    "Reasoning",
    "RecipeSpec",
    "RewardSpec",
    "RunSpec",
    "SamplerSpec",
    "Spec",
    "StrategySpec",
    "SynthesisSpec",
    "SystemSpec",
    "TeachSpec",
    "TeacherSpec",
]
