"""Recipes: what is merged and resolved, and the one line that each mistake gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_rl.errors import RecipeError
from rank_rl.recipe import load, load_pipeline
from rank_rl.training.arguments import check_training

GOOD = """
run: {name: demo, seed: 7, output_dir: "outputs/${run.name}"}
model: {name: some/model, lora: {r: 8}}
data: {source: jsonl, path: tasks.jsonl}
format: {name: scores, mode: reason}
rewards: [{name: ndcg}, {name: format, weight: 0.2}]
training: {learning_rate: 1e-6}
"""


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def line(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    text = caught.value.line()
    assert "\n" not in text
    return text


def test_values_defaults_and_interpolation(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, GOOD))
    assert recipe.spec.training == {"learning_rate": 0.000001}
    assert recipe.spec.run.output_dir == "outputs/demo"
    assert recipe.spec.model.lora is not None and recipe.spec.model.lora.r == 8
    assert recipe.resolved["eval"]["metric"] == "ndcg@10"


def test_overrides_reach_every_path(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    sets = ["run.seed=3", "rewards.1.weight=0.5", "rewards[0].name=rbo", "training.max_steps=2"]
    spec = load(path, [*sets, "model.lora=null", "data.params.files=[a, b]"]).spec
    assert (spec.run.seed, spec.rewards[1].weight, spec.rewards[0].name) == (3, 0.5, "rbo")
    assert spec.training["max_steps"] == 2
    assert spec.model.lora is None
    assert spec.data.params["files"] == ["a", "b"]


def test_override_with_equals_sign_colon_and_number(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    spec = load(path, ["run.name=a=b", "model.name=pip:llm-x", "training.learning_rate=2e-5"]).spec
    assert (spec.run.name, spec.model.name) == ("a=b", "pip:llm-x")
    assert spec.training["learning_rate"] == 0.00002


def test_hash_follows_content_not_spelling(tmp_path: Path) -> None:
    one = load(write(tmp_path, GOOD))
    same = load(write(tmp_path, GOOD.replace("1e-6", "0.000001") + "grpo: {clip: 0.2}\n", "b.yaml"))
    other = load(write(tmp_path, GOOD), ["run.seed=8"])
    assert one.hash == same.hash != other.hash
    assert len(one.hash) == 12


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "base.yaml")
    write(tmp_path, "extends: base.yaml\nrewards: [{name: rbo}]\n", "middle.yaml")
    (tmp_path / "sub").mkdir()
    top = write(tmp_path / "sub", "extends: ../middle.yaml\nrun: {seed: 1}\n")
    spec = load(top).spec
    assert [reward.name for reward in spec.rewards] == ["rbo"]
    assert (spec.run.seed, spec.run.name) == (1, "demo")


def test_environment_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_FOLDER", "/data/demo")
    path = write(tmp_path, GOOD)
    assert load(path, ["data.path=${oc.env:DEMO_FOLDER}/x"]).spec.data.path == "/data/demo/x"
    assert "UNSET_FOLDER" in line(path, "data.path=${oc.env:UNSET_FOLDER}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "not a mapping"),
        ("hello\n", "not a mapping"),
        ("run:\n  name: x\n  bad: [1\nmodel: 2\n", "line 4: not valid YAML"),
        ("run: 1\nrun: 2\n", "line 2: not valid YAML: found duplicate key run"),
        ("extends: nowhere.yaml\n", "nowhere.yaml: no such file"),
        ("extends: a.yaml\n", "extends itself: a.yaml -> a.yaml"),
        ("extends: [a]\n", "extends: value ['a']; expected a file name"),
        (GOOD.replace("model:", "modle:"), "modle: unknown key 'modle' (nearest: model"),
        (GOOD.replace("seed: 7", "sede: 7"), "run.sede: unknown key 'sede' (nearest: seed"),
        (GOOD.replace("seed: 7", "seed: many"), "run.seed: value 'many'; expected a valid integer"),
        (GOOD.replace("seed: 7", "seed: -1"), "run.seed: value -1; expected greater than or equal"),
        (
            GOOD.replace("r: 8", "r: 0"),
            "model.lora.r: value 0; expected greater than or equal to 1",
        ),
        (GOOD.replace("weight: 0.2", "wieght: 0.2"), "rewards.1.wieght: unknown key 'wieght'"),
        (
            GOOD.replace("mode: reason", "mode: think"),
            "format.mode: value 'think'; expected 'reason'",
        ),
        (GOOD.replace("model: {name: some/model, lora: {r: 8}}", ""), "model: missing key"),
        (GOOD.replace("{r: 8}", "{r: 8}, freeze_layers: 2"), "model: freeze_layers has no effect"),
        (GOOD + "grpo: {policy: slots}", "reward 'format' is constant with grpo.policy slots"),
        (GOOD + "hub: {repo: a/b}", "unknown key 'hub'"),
        (GOOD + "bench: {systems: [{name: s, kind: text}]}", "bench.systems.0: system 's' of kind"),
    ],
)
def test_mistake_in_a_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    said = line(path)
    assert expected in said
    assert said.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.seed", "no key=value"),
        ("=3", "no key=value"),
        ("run.seed=[1,", "value is not valid YAML"),
        ("rewards.9.weight=1", "list index out of range"),
        ("rewards.first.weight=1", "cannot be set"),
        ("run.sede=1", "unknown key 'sede' (nearest: seed)"),
        ("run.seed=x", "run.seed (--set): value 'x'"),
        ("run.name=${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
def test_mistake_in_an_override_is_one_line(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in line(write(tmp_path, GOOD), override)


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "grpo.yaml")
    assert "no such file" in line(tmp_path / "gpro.yaml")
    assert "grpo.yaml" in line(tmp_path / "gpro.yaml")
    assert "is a folder" in line(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00run")
    assert "not UTF-8" in line(tmp_path / "a.yaml")


def test_pipeline_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "name: p\nstages: [{stage: sft, recipe: sft.yaml}]\n", "pipeline.yaml")
    spec, path = load_pipeline(tmp_path)
    assert (spec.name, spec.stages[0].recipe, path) == ("p", "sft.yaml", tmp_path / "pipeline.yaml")
    write(tmp_path, "name: p\nstages: [{stage: stf, recipe: sft.yaml}]\n", "pipeline.yaml")
    with pytest.raises(RecipeError, match=r"stages.0.stage: value 'stf'; expected 'teach', 'rank'"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("stage", "training", "expected"),
    [
        ("sft", {"lerning_rate": 1e-5}, "nearest: learning_rate"),
        ("sft", {"learning_rate": "fast"}, "training.learning_rate"),
        ("grpo", {"num_generation": 8}, "nearest: num_generations"),
        ("score", {"num_generations": 8}, "num_generations"),
        ("sft", {"push_to_hub": True}, "push_to_hub: not set here; expected a push by hand"),
    ],
)
def test_training_arguments_are_those_of_the_trainer(
    stage: str, training: dict[str, object], expected: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        check_training(stage, training, where="a.yaml")
    assert expected in caught.value.line()
    assert caught.value.line().startswith("a.yaml: training.")


def test_training_arguments_that_fit() -> None:
    check_training("grpo", {"num_generations": 8, "learning_rate": 1e-6, "logging_steps": 5})
    check_training("grpo", {"learning_rate": 1e-6, "max_steps": 3}, policy="slots")
    with pytest.raises(RecipeError):
        check_training("grpo", {"num_generations": 8}, policy="slots")
