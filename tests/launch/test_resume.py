"""A killed run of several processes goes on where it was, and ends as if it had not been killed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import alone, command, curve, execute, launch, needs, on_cpu, write_recipe

SLOTS = {"name": "slots", "mode": "answer", "doc_tokens": 16, "prompt_tokens": 512}
STEPS, SAVE = 24, 4
TRAINING = {"max_steps": STEPS, "save_steps": SAVE, "learning_rate": 3e-4}


def halfway(folder: Path) -> Callable[[], bool]:
    """Whether a run has written its second checkpoint or a later one."""
    return lambda: any(
        int(path.parent.name.partition("-")[2]) >= 2 * SAVE
        for path in folder.glob("checkpoint-*/trainer_state.json")
    )


def check(folder: Path, model: Path, stage: str, said: str, form: dict[str, object]) -> None:
    assert "going on from" in said
    first = 2 * SAVE
    assert json.loads((folder / "two" / "done.json").read_text())["summary"]["steps"] == STEPS
    one = write_recipe(folder, model, name="one", accumulate=2, training=TRAINING, **form)
    alone(stage, one)
    seen, wanted = curve(folder / "two"), curve(folder / "one")
    assert [r["step"] for r in seen] == list(range(1, STEPS + 1))
    for got, expected in zip(seen, wanted, strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], abs=1e-3)
    # The test must be able to fail: a restart from the first weights would lie far off.
    assert abs(wanted[first]["loss"] - wanted[0]["loss"]) > 0.01


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "stage"), [("fsdp2", "sft"), ("zero2", "sft"), ("zero3", "sft"), ("zero3", "score")]
)
def test_a_killed_launch_with_shards_ends_as_one_process_does(
    config: str, stage: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    needs(config)
    form = {"format": SLOTS} if stage == "score" else {}
    recipe = write_recipe(tmp_path, tiny_model_dir, name="two", training=TRAINING, **form)
    killed = launch(config, stage, recipe, until=halfway(tmp_path / "two"))
    assert killed.status == -9, killed.said
    assert not (tmp_path / "two" / "done.json").exists()
    again = launch(config, stage, recipe)
    assert again.status == 0, again.said
    check(tmp_path, tiny_model_dir, stage, again.said, form)


@pytest.mark.distributed
def test_a_killed_pipeline_of_two_processes_goes_on(tiny_model_dir: Path, tmp_path: Path) -> None:
    form = {"format": SLOTS}
    write_recipe(tmp_path, tiny_model_dir, name="two", training=TRAINING, **form)
    stages = "[{stage: score, recipe: two.yaml}]"
    (tmp_path / "pipeline.yaml").write_text(f"name: p\nlaunch: none.yaml\nstages: {stages}\n")
    launcher = str(on_cpu("ddp", tmp_path))
    run = [sys.executable, "-m", "rank_rl", "run", str(tmp_path), "--launch", launcher]
    killed = execute(run, "ddp", tmp_path, until=halfway(tmp_path / "two"))
    assert killed.status == -9, killed.said
    again = execute(run, "ddp", tmp_path)
    assert again.status == 0, again.said
    check(tmp_path, tiny_model_dir, "score", again.said, form)


@pytest.mark.distributed
def test_no_checkpoint_is_complete_before_every_process_has_written_its_part(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A run killed in between could not go on: a part of the other process would be cut short."""
    training = {"max_steps": 1, "save_steps": 1}
    recipe = write_recipe(tmp_path, tiny_model_dir, name="two", training=training, format=SLOTS)
    late = [*command("ddp", "score", recipe)[:-3], "late_process", "score", str(recipe)]
    ended = execute(late, "ddp", tmp_path)
    assert ended.status == 0, ended.said
    assert "state of step 1 after the parts of [0, 1]" in ended.said


@pytest.mark.distributed
@pytest.mark.slow
def test_a_killed_grpo_run_of_two_processes_keeps_its_prompts_and_losses(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """In the third epoch, with batches that serve two steps: the hardest place to go on from."""
    training = {
        "max_steps": 18,
        "save_steps": 3,
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "num_iterations": 2,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
    }
    sections = {"training": training, "rewards": [{"name": "chance:Digits"}]}
    recipe = write_recipe(tmp_path, tiny_model_dir, name="two", **sections)

    def late() -> bool:
        return (tmp_path / "two" / "checkpoint-9" / "trainer_state.json").exists()

    killed = launch("ddp", "grpo", recipe, until=late)
    assert killed.status == -9, killed.said
    again = launch("ddp", "grpo", recipe)
    assert again.status == 0, again.said
    assert "going on from" in again.said
    whole = write_recipe(tmp_path, tiny_model_dir, name="one", accumulate=2, **sections)
    alone("grpo", whole)
    seen, wanted = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert [r["step"] for r in seen] == list(range(1, 19))
    for got, expected in zip(seen, wanted, strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert got["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
        assert got.get("reward") == pytest.approx(expected.get("reward"), abs=1e-5)
