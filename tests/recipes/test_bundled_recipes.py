"""Every YAML under recipes/ is a recipe or a pipeline whose names all resolve."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from rank_rl import formats, registry, rewards, strategies
from rank_rl.cli import pipeline
from rank_rl.data import SOURCES
from rank_rl.recipe import load
from rank_rl.specs import TeachSpec
from rank_rl.teachers import asking, filters, labels
from rank_rl.teachers.imports import IMPORTS
from rank_rl.teachers.query_format import query_questions
from rank_rl.teachers.units import Question
from rank_rl.training.arguments import check_training

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
PIPELINES = [path for path in FILES if path.name == "pipeline.yaml"]
# A file that others extend may leave sections out; its name begins with an underscore.
RECIPES = [path for path in FILES if path.name != "pipeline.yaml" and path.name[0] != "_"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_recipe_resolves(path: Path) -> None:
    spec = load(path).spec
    registry.resolve("data source", spec.data.source, SOURCES)
    formats.make(spec.format)
    strategies.make(spec.eval.strategy)
    if spec.rewards:
        rewards.make(spec.rewards)
    for system in spec.bench.systems if spec.bench else ():
        if system.format:
            formats.make(system.format)
        if system.strategy:
            strategies.make(system.strategy)
    if spec.teach:
        teach_resolves(spec.teach, spec.run.seed)


def teach_resolves(teach: TeachSpec, seed: int) -> None:
    for teacher in teach.teachers.values():
        made_by = registry.resolve("teacher", teacher.name, asking.TEACHERS)
        inspect.signature(made_by).bind(model=teacher.model, **teacher.params)
    for question in teach.questions:
        Question.of(question, seed)
    labels.make(teach.labels)
    for one in teach.filters:
        filters.make(one)
    for found in teach.imports:
        registry.resolve("import", found.name, IMPORTS)
    if teach.synthesis:
        query_questions(teach.synthesis, seed)


@pytest.mark.parametrize("path", PIPELINES, ids=name)
def test_pipeline_resolves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = pipeline.load(path.parent)
    assert found.launch.is_file()
    for step in found.steps:
        spec = step.recipe.spec
        if step.stage == "bench":
            assert spec.bench is not None
        elif step.stage == "teach":
            assert spec.teach is not None
        else:
            check_training(
                step.stage, spec.training, policy=spec.grpo.policy, where=step.recipe.path
            )
