"""Pipelines: which stages run, with what, and how time adds up; nothing is launched here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rank_rl.cli import pipeline
from rank_rl.cli.process import physical_cores
from rank_rl.errors import RecipeError

RECIPE = """
run: {{name: {stage}, output_dir: out/{stage}}}
model: {{name: m}}
data: {{source: jsonl, path: t.jsonl}}
format: {{name: slots}}
"""
STAGES = ("score", "sft", "bench")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for stage in STAGES:
        (recipes / f"{stage}.yaml").write_text(RECIPE.format(stage=stage))
    stages = ", ".join(f"{{stage: {s}, recipe: {s}.yaml}}" for s in STAGES)
    (recipes / "pipeline.yaml").write_text(f"name: p\nlaunch: cpu.yaml\nstages: [{stages}]\n")
    (tmp_path / "cpu.yaml").write_text("use_cpu: true\nnum_processes: 1\n")
    return recipes


def test_another_launch_configuration_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("use_cpu: true\nnum_processes: 2\n")
    assert pipeline.load(folder).launch == Path("cpu.yaml")
    found = pipeline.load(folder, (), "two.yaml")
    assert pipeline.launch_arguments(found, found.steps[0])[:2] == ["--config_file", "two.yaml"]
    with pytest.raises(RecipeError, match="no such file: three.yaml"):
        pipeline.load(folder, (), "three.yaml")


def finish(step: pipeline.Step, recipe_hash: str | None = None) -> None:
    step.out_dir.mkdir(parents=True, exist_ok=True)
    mark = {"stage": step.stage, "hash": recipe_hash or step.recipe.hash, "summary": {"n": 1}}
    (step.out_dir / "done.json").write_text(json.dumps(mark))


def chosen(found: pipeline.Pipeline, first: str | None = None, force: bool = False) -> list[bool]:
    return pipeline.choose(found.steps, first=first, force=force)


def test_done_stages_are_skipped_and_all_behind_the_first_open_one_run(folder: Path) -> None:
    found = pipeline.load(folder)
    assert chosen(found) == [True, True, True]
    finish(found.steps[0])
    assert chosen(found) == [False, True, True]
    # The last stage is done, but it read what the second one is about to replace.
    finish(found.steps[2])
    assert chosen(found) == [False, True, True]
    finish(found.steps[1])
    assert chosen(found) == [False, False, False]
    assert chosen(found, force=True) == [True, True, True]


def test_a_changed_recipe_is_not_done(folder: Path) -> None:
    for step in pipeline.load(folder).steps:
        finish(step)
    changed = pipeline.load(folder, ["sft:training.max_steps=9"])
    assert chosen(changed) == [False, True, True]


def test_half_written_mark_is_not_done(folder: Path) -> None:
    step = pipeline.load(folder).steps[0]
    finish(step)
    (step.out_dir / "done.json").write_text('{"hash": ')
    assert not step.is_done()
    assert step.summary() == {}


def test_from_needs_what_lies_before_it(folder: Path) -> None:
    found = pipeline.load(folder)
    with pytest.raises(RecipeError, match="stage score has not run"):
        chosen(found, first="sft")
    finish(found.steps[0], "another hash")
    assert chosen(found, first="sft") == [False, True, True]
    with pytest.raises(RecipeError, match="no stage 'grpo'"):
        chosen(found, first="grpo")


def test_overrides_for_all_and_for_one_stage(folder: Path) -> None:
    found = pipeline.load(folder, ["run.seed=5", "sft:training.max_steps=2"])
    assert [step.recipe.spec.run.seed for step in found.steps] == [5, 5, 5]
    assert found.steps[0].overrides == ("run.seed=5",)
    assert pipeline.launch_arguments(found, found.steps[1]) == [
        *("--config_file", "cpu.yaml", "-m", "rank_rl", "sft", "recipes/sft.yaml"),
        *("--set", "run.seed=5", "--set", "training.max_steps=2"),
    ]
    with pytest.raises(RecipeError, match="no stage 'grpo'"):
        pipeline.load(folder, ["grpo:run.seed=1"])


def test_one_model_for_stages_that_start_from_one_another_is_refused(folder: Path) -> None:
    # All start from the same model, so that another one for all is what is meant.
    found = pipeline.load(folder, ["model.name=x"])
    assert [step.recipe.spec.model.name for step in found.steps] == ["x", "x", "x"]
    sft = folder / "sft.yaml"
    sft.write_text(sft.read_text().replace("{name: m}", "{name: out/score/final}"))
    for override in ("model.name=x", "model={name: x}"):
        with pytest.raises(RecipeError) as caught:
            pipeline.load(folder, ["run.seed=5", override])
        assert f"expected --set score:{override} --set bench:{override}" in str(caught.value)
    found = pipeline.load(folder, ["score:model.name=x"])
    names = [step.recipe.spec.model.name for step in found.steps]
    assert names == ["x", "out/score/final", "m"]


def test_one_model_for_recipes_of_one_stage_is_refused_where_they_differ(folder: Path) -> None:
    second = RECIPE.format(stage="second").replace("{name: m}", "{name: out/score/final}")
    (folder / "second.yaml").write_text(second)
    file = folder / "pipeline.yaml"
    one = "{stage: score, recipe: score.yaml}"
    file.write_text(file.read_text().replace(one, f"{one}, {one.replace('score.', 'second.')}"))
    for override in ("score:model.name=x", "model.name=x"):
        with pytest.raises(RecipeError) as caught:
            pipeline.load(folder, [override, "score:run.seed=5"])
        said = str(caught.value)
        assert said.startswith(f"--set {override}: every stage")
        assert "expected the stages one by one: rank-rl score recipes/score.yaml " in said
        commands = said.partition("one by one: ")[2].split("; ")
        also = "" if override.startswith("score") else " --set model.name=x"
        assert commands == [
            "rank-rl score recipes/score.yaml --set run.seed=5 --set model.name=x",
            "rank-rl score recipes/second.yaml --set run.seed=5",
            f"rank-rl sft recipes/sft.yaml{also}",
            f"rank-rl bench recipes/bench.yaml{also}",
        ]
    assert pipeline.load(folder, ["sft:model.name=x"]).steps[2].recipe.spec.model.name == "x"


def test_two_stages_may_not_share_a_folder(folder: Path) -> None:
    with pytest.raises(RecipeError, match="score and sft both write to out/x"):
        pipeline.load(folder, ["run.output_dir=out/x"])


def test_every_recipe_is_read_before_anything_runs(folder: Path) -> None:
    (folder / "bench.yaml").write_text("")
    with pytest.raises(RecipeError, match=r"bench.yaml: the file is empty"):
        pipeline.load(folder)


def test_launch_is_found_here_or_above_the_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.load(folder).launch == Path("cpu.yaml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert pipeline.load(folder).launch == tmp_path / "cpu.yaml"
    (tmp_path / "cpu.yaml").unlink()
    with pytest.raises(RecipeError, match=r"launch: no such file: cpu.yaml"):
        pipeline.load(folder)


def test_threads_of_a_single_process_on_a_cpu(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("use_cpu: true\nnum_processes: 1\n")
    assert int(pipeline.launch_environment(config, {})["OMP_NUM_THREADS"]) >= 1
    assert pipeline.launch_environment(config, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    config.write_text("use_cpu: true\nnum_processes: 2\n")
    shared = pipeline.launch_environment(config, {})
    assert int(shared["OMP_NUM_THREADS"]) == max(1, physical_cores() // 2)
    assert shared["OMP_WAIT_POLICY"] == "passive"
    config.write_text("num_processes: 2\n")
    on_gpus = pipeline.launch_environment(config, {})
    assert not {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & on_gpus.keys()
    config.write_text("[\n")
    with pytest.raises(RecipeError, match="not valid YAML"):
        pipeline.launch_environment(config, {})


def test_seconds_add_up_over_restarts_of_the_same_recipe(folder: Path) -> None:
    found = pipeline.load(folder)
    score, sft = found.steps[:2]
    pipeline.Clock(found).update(score, "done", 10.0)
    clock = pipeline.Clock(found)
    clock.update(sft, "stopped", 5.0)
    again = pipeline.Clock(found)
    assert (again.seconds(score), again.seconds(sft), again.seconds()) == (10.0, 5.0, 15.0)
    changed = pipeline.load(folder, ["sft:run.seed=1"])
    assert pipeline.Clock(changed).seconds(changed.steps[1]) == 0.0
    record = json.loads((Path("out") / "pipeline.json").read_text())
    assert record["seconds"] == 15.0
    assert [entry["status"] for entry in record["stages"].values()] == [
        "done",
        "stopped",
        "waiting",
    ]


def test_deepspeed_that_is_not_installed_is_named_with_its_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zero.yaml").write_text("distributed_type: DEEPSPEED\nnum_processes: 2\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        pipeline.load(folder, (), "zero.yaml")
    assert str(caught.value) == (
        "zero.yaml: distributed_type DEEPSPEED, but deepspeed is not installed "
        "(pip install 'rank-rl[deepspeed]')"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert pipeline.load(folder, (), "zero.yaml").launch == Path("zero.yaml")
