"""``check`` refuses before any training what a stage would refuse, or would train wrongly with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_recipes import content, write_tasks
from typer.testing import CliRunner

from rank_rl.cli.app import app

NDCG = [{"name": "ndcg"}, {"name": "format", "weight": 0.2}]
GROUPS = {"num_generations": 2, "per_device_train_batch_size": 4}


def checked(folder: Path, model: Path, *sets: str, **sections: Any) -> tuple[int, str, str]:
    """Exit status and streams of ``check`` for a recipe of stage grpo that is else right."""
    data = folder / "tasks.jsonl"
    write_tasks(data, tests=2)
    right = {"rewards": NDCG, "training": GROUPS, "format": {"name": "permutation"}}
    path = folder / "recipe.yaml"
    made = content(model, data, folder / "out", {**right, **sections})
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    words = [word for one in sets for word in ("--set", one)]
    result = CliRunner().invoke(app, ["check", str(path), "--no-measure", *words])
    return result.exit_code, result.stdout, result.stderr


def test_a_recipe_with_rewards_is_one_of_grpo(tiny_model_dir: Path, tmp_path: Path) -> None:
    status, said, error = checked(tmp_path, tiny_model_dir)
    assert status == 0, error
    assert "stage grpo, because there are rewards" in said and "one step of stage grpo" in said
    losses = {"rewards": [], "losses": [{"name": "listnet"}], "format": {"name": "slots"}}
    status, said, error = checked(tmp_path, tiny_model_dir, training={}, **losses)
    assert status == 0, error
    assert "stage score, because there are losses" in said


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.num_generation=4", "nearest: num_generations"),
        ("training.temperature=0", "above 0: equal answers to a prompt teach nothing"),
        ("training.num_generations=1", "training.num_generations: value 1; expected at least 2"),
        ("training.num_generations=3", "must be divisible by num_generations"),
        ("training.max_completion_length=-4", "expected at least 1"),
        ("training.learning_rate=-1e-5", "training.learning_rate: value -1e-05; expected at least"),
        ("training.per_device_train_batch_size=-4", "value -4; expected at least 1"),
        ("training.gradient_accumulation_steps=0", "value 0; expected at least 1"),
        ("training.max_steps=-5", "training.max_steps: value -5"),
        ("eval.metric=ndcg@0", "eval.metric: unknown metric 'ndcg@0'; expected ndcg@k"),
        ("grpo={credit: rank, aggregation: none}", "grpo.aggregation"),
        ("grpo={pass_rate: {low: 0.8, high: 0.2}}", "no pass rate lies between low 0.8"),
        ("model.name=pip:nope", "pip install --no-deps nope"),
        ("format.name=slots", "grpo.policy: label slots are not generated"),
        ("rewards=[{name: label_agree}]", "rewards: label_agree never applies to answers"),
    ],
)
def test_one_line_says_what_is_wrong(
    tiny_model_dir: Path, tmp_path: Path, override: str, expected: str
) -> None:
    status, _, error = checked(tmp_path, tiny_model_dir, override)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize(
    ("pick", "reward", "right"),
    [("best", "survived", "pick_match"), ("worst", "pick_match", "survived")],
)
def test_a_choice_is_paid_for_its_own_end(
    tiny_model_dir: Path, tmp_path: Path, pick: str, reward: str, right: str
) -> None:
    form = {"name": "choice", "params": {"pick": pick}}
    status, _, error = checked(
        tmp_path, tiny_model_dir, f"rewards=[{{name: {reward}}}]", format=form
    )
    assert status == 2
    assert f"reward '{reward}': the format picks the {pick} document; expected {right}" in error
    assert checked(tmp_path, tiny_model_dir, f"rewards=[{{name: {right}}}]", format=form)[0] == 0


def test_answers_longer_than_what_is_generated_are_told(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    _, said, _ = checked(tmp_path, tiny_model_dir, "eval.max_new_tokens=3")
    assert re.search(r"warning: an ideal answer takes \d+ tokens, of which 3 are generated", said)
    assert "warning" not in checked(tmp_path, tiny_model_dir, "eval.max_new_tokens=300")[1]


def test_a_reward_that_never_applies_beside_others_is_told(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Recall at 10 of four documents is always 1."""
    both = "rewards=[{name: ndcg}, {name: recall, params: {k: 10}}]"
    assert checked(tmp_path, tiny_model_dir, both)[0] == 0
    assert "rewards: recall never applies" in caplog.text
