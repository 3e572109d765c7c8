"""Every YAML under recipes/ is a recipe, a pipeline, arms or a method whose names all resolve."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rank_rl import formats, registry, rewards, strategies
from rank_rl.bench import methods, tables
from rank_rl.cli import arm_plan, pipeline
from rank_rl.cli.app import app
from rank_rl.cli.check import stage_of
from rank_rl.data import SOURCES, beir
from rank_rl.models import loading
from rank_rl.recipe import load, load_beside
from rank_rl.specs import MethodSpec, TeachSpec
from rank_rl.teachers import asking, filters, labels
from rank_rl.teachers.imports import IMPORTS
from rank_rl.teachers.query_format import query_questions
from rank_rl.teachers.units import Question
from rank_rl.training.arguments import check_training

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
PIPELINES = [path for path in FILES if path.name == "pipeline.yaml"]
# A file that others extend may leave sections out; its name begins with an underscore.
OTHERS = ("pipeline.yaml", "arms.yaml", "method.yaml")
RECIPES = [path for path in FILES if path.name not in OTHERS and path.name[0] != "_"]
ARMS = [path for path in FILES if path.name == "arms.yaml"]
METHODS = [path for path in FILES if path.name == "method.yaml"]
AT_SCALE = [path for path in RECIPES if path.stem == "paper" or path.stem.endswith("_paper")]
# Not called after a stage of the folder; the command to check them stands in their first lines.
OF_OTHER_NAMES = [
    ROOT / "recipes" / "rankify" / "t2ranking.yaml",
    *(path for path in RECIPES if path.stem.startswith("paper_")),
]


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
        elif step.stage == "rank":
            assert spec.rank is not None
        else:
            check_training(
                step.stage, spec.training, policy=spec.grpo.policy, where=step.recipe.path
            )


@pytest.mark.parametrize("path", ARMS, ids=name)
def test_arms_resolve(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = arm_plan.load(path)
    for step in found.steps[:-1]:
        spec = step.recipe.spec
        check_training(step.stage, spec.training, policy=spec.grpo.policy, where=step.recipe.path)


@pytest.mark.parametrize("path", METHODS, ids=name)
def test_files_of_a_method(path: Path) -> None:
    spec, _ = load_beside(MethodSpec, path, path.name)
    for stage in methods.stages_of(spec, path.parent):
        assert (path.parent / stage.recipe).is_file(), stage.recipe
    assert spec.paper_recipe, "the paper's own scale is named"
    for recipe in spec.paper_recipe:
        assert path.parent / recipe in [*AT_SCALE, *OF_OTHER_NAMES], recipe
    assert (path.parent / "README.md").is_file()
    for result in spec.results:
        assert (path.parent / result.file).resolve().parent == ROOT / "results", result.file


READ: dict[str, Any] = {}


def once(read: Callable[..., Any], *told_apart_by: str) -> Callable[..., Any]:
    """``read``, whose results are kept for the tests behind this one.

    ``told_apart_by``: the only fields of its first argument that it looks at, otherwise all.
    """

    def known(first: Any, **options: Any) -> Any:
        fields = [getattr(first, field) for field in told_apart_by] or [first]
        key = repr((read, fields, options))
        if key not in READ:
            READ[key] = read(first, **options)
        return READ[key]

    return known


FEW = ["--no-measure", "--set", "data.max_train=4", "--set", "data.max_test=4"]


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers and the stand-in's collection are read once for all recipes."""
    monkeypatch.setattr(loading, "load_tokenizer", once(loading.load_tokenizer))
    fields = ("path", "params", "first_stage", "train_split", "test_split", "validation_split")
    monkeypatch.setattr(beir, "load_bundled", once(beir.load_bundled, *fields))


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("path", AT_SCALE, ids=name)
def test_recipe_at_the_scale_of_a_paper_can_be_checked_anywhere(path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(path), "--stand-in", *FEW])
    assert result.exit_code == 0, result.output
    stage = stage_of(path)
    assert stage is not None, "named after a recipe of the folder's pipeline"
    assert f"arguments fit the {stage} stage" in result.output
    shown = ("its ideal answer", "one lesson", "texts of one view")
    assert any(text in result.output for text in shown)


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("path", OF_OTHER_NAMES, ids=name)
def test_recipe_of_another_name_can_be_checked_as_it_says(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    said = next(row for row in path.read_text().splitlines() if row.startswith("#   rank-rl check"))
    words = said.removeprefix("#   rank-rl ").split()
    assert words[1] == name(path) and "--stand-in" in words
    result = CliRunner().invoke(app, [*words, *FEW])
    assert result.exit_code == 0, result.output
    shown = ("texts of one view", "its ideal answer", "one lesson")
    assert any(text in result.output for text in shown), result.output


def test_the_table_of_methods_is_made_of_their_folders() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, start, rest = text.partition("<!-- methods -->\n")
    body, end, _ = rest.partition("<!-- /methods -->")
    assert start and end
    assert body == methods.block(ROOT / "README.md"), "stale: make docs-tables"
    for path in METHODS:
        assert f"]({path.parent.relative_to(ROOT).as_posix()})" in body
    assert tables._METHODS.search(text)
