"""GRPO with shared prompts: TRL's losses, reproducible, resumable, without flat groups if asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
import warm
from chance import Letters
from stage_runs import STOP, interrupted
from stage_runs import training as longer

from rank_rl.errors import RecipeError
from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, flat_groups, grpo_text
from rank_rl.training.group_trainer import GroupTrainer

Recipe = Callable[..., RecipeSpec]
training = partial(longer, max_completion_length=20)


class Often(Letters):
    """Whether the query belongs to an even task: every group is flat, half of them at 0."""

    name = "often"

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float:
        even = int(view.query.qid.removeprefix("train")) % 2 == 0
        return float(even) * super().__call__(outcome, view, grades, completion)


class Stopping(Letters):
    """Interrupts the run after some batches, as a kill would."""

    name = "stopping"

    def paid(self, text: str) -> float:
        if STOP["after"] == 0:
            raise KeyboardInterrupt
        STOP["after"] -= bool(text)  # baselines have none
        return super().paid(text)


def spec_of(recipe: Recipe, reward: str = "Letters", **sections: Any) -> RecipeSpec:
    sections.setdefault("training", training())
    return recipe(
        rewards=[{"name": f"test_group_trainer:{reward}"}],
        data={"validation_split": None, "validation": 0.0},
        **sections,
    )


def steps(spec: RecipeSpec) -> list[dict[str, Any]]:
    text = (Path(spec.run.output_dir) / "training_log.jsonl").read_text()
    return [r for r in map(json.loads, text.splitlines()) if "loss" in r]


def curve(spec: RecipeSpec, *names: str) -> list[tuple[float, ...]]:
    return [tuple(r[n] for n in names or ("loss", "grad_norm", "reward")) for r in steps(spec)]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was generated and scored, batch by batch."""
    seen: list[dict[str, Any]] = []
    original = GroupTrainer._generate_and_score_completions

    def kept(self: Any, inputs: Any) -> Any:
        seen.append(original(self, inputs))
        return seen[-1]

    monkeypatch.setattr(GroupTrainer, "_generate_and_score_completions", kept)
    return seen


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "dapo"},
        {"loss_type": "grpo", "beta": 0.04},
        {"loss_type": "bnpo", "num_iterations": 2},
        {"loss_type": "dr_grpo", "scale_rewards": "batch"},
        {"loss_type": "cispo", "epsilon_high": 5.0},
        {"loss_type": "sapo", "top_entropy_quantile": 0.5},
        {"loss_type": "vespo"},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ],
    ids=lambda c: c["loss_type"],
)
def test_every_loss_of_trl_has_its_value_and_gradient(
    recipe: Recipe, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same completions through the shared pass and through TRL's: 3 steps on one curve."""
    arguments = training(
        max_steps=3, gradient_accumulation_steps=2, mask_truncated_completions=False, **changes
    )
    spec = spec_of(recipe, training=arguments)
    summary = grpo_text.run(spec, {})
    assert summary["metrics"]["shared_prefix"] == {"pass": "gather", "generation": True}
    shared = curve(spec, "loss", "grad_norm", "entropy")
    assert steps(spec)[-1]["shared/computed"] < 0.6
    # TRL's pass under the same generation.
    monkeypatch.setattr("rank_rl.training.shared_pass.SharedPass.choose", lambda *_: None)
    grpo_text.run(spec, {})
    stock = curve(spec, "loss", "grad_norm", "entropy")
    assert "shared/computed" not in steps(spec)[-1]
    assert shared[0][1] > 0
    for ours, theirs in zip(shared, stock, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("model", [{}, {"lora": {"r": 4, "alpha": 8}}], ids=["full", "lora"])
def test_many_steps_with_both_passes_stay_on_one_curve(
    recipe: Recipe, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = training(max_steps=12, activation_checkpointing=True)
    spec = spec_of(recipe, training=arguments, model=model)
    grpo_text.run(spec, {})
    shared = curve(spec)
    monkeypatch.setattr("rank_rl.training.shared_pass.SharedPass.choose", lambda *_: None)
    grpo_text.run(spec, {})
    for ours, theirs in zip(shared, curve(spec), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-4)


def test_off_is_trl_as_it_is(recipe: Recipe) -> None:
    spec = spec_of(recipe, grpo={"shared_prefix": "off"})
    assert grpo_text.run(spec, {})["metrics"]["shared_prefix"] == {
        "pass": None,
        "generation": False,
    }
    assert len(steps(spec)) == 2


def test_the_same_recipe_gives_the_same_run(recipe: Recipe, batches: list[dict[str, Any]]) -> None:
    spec = spec_of(recipe, training=training(max_steps=4))
    grpo_text.run(spec, {})
    first, count = curve(spec), len(batches)
    grpo_text.run(spec, {})
    assert curve(spec) == first
    for before, after in zip(batches[:count], batches[count:], strict=True):
        assert torch.equal(before["prompt_ids"], after["prompt_ids"])
        assert torch.equal(before["completion_ids"], after["completion_ids"])
    assert not torch.equal(batches[0]["completion_ids"], batches[1]["completion_ids"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_iterations": 2},  # a batch is kept over two steps
        {"steps_per_generation": 4, "per_device_train_batch_size": 2, "save_steps": 1},
    ],
    ids=["plain", "iterations", "generated ahead"],
)
def test_a_killed_run_has_the_losses_of_an_uninterrupted_one(
    recipe: Recipe, changes: dict[str, Any]
) -> None:
    arguments = training(**{"max_steps": 6, "save_steps": 3, **changes})
    spec = spec_of(recipe, "Stopping", training=arguments)
    grpo_text.run(spec, {})
    whole = curve(spec, "loss", "grad_norm", "entropy")
    assert len(whole) == 6
    interrupted(lambda: grpo_text.run(spec, {}), 8 if changes else 16)  # in step 5
    before = common.latest_checkpoint(spec.run.output_dir)
    assert before is not None and "checkpoint-6" not in str(before)
    grpo_text.run(spec, {})
    assert curve(spec, "loss", "grad_norm", "entropy") == whole


def test_a_process_killed_outright_goes_on_with_the_same_losses(
    recipe: Recipe, tmp_path: Path
) -> None:
    """kill -9 between two checkpoints of a process, then the same command again."""
    arguments = training(max_steps=30, save_steps=4)
    spec = spec_of(recipe, training=arguments)
    file, said = tmp_path / "grpo.yaml", tmp_path / "said.txt"
    file.write_text(json.dumps(spec.model_dump(mode="json", exclude_unset=True)))
    out = Path(spec.run.output_dir)
    process = warm.command("grpo", file, said=said)
    while process.is_alive() and not (out / "checkpoint-8" / "trainer_state.json").exists():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -9, said.read_text()
    before = len(steps(spec))
    assert 8 <= before < 30, "the run was to be killed on its way"
    again = warm.command("grpo", file, said=said)
    again.join()
    assert again.exitcode == 0, said.read_text()
    resumed = curve(spec)
    assert [r["step"] for r in steps(spec)] == list(range(1, 31))
    folder = f"run.output_dir={tmp_path / 'whole'}"
    whole = warm.command("grpo", file, "--set", folder, said=said)
    whole.join()
    assert whole.exitcode == 0, said.read_text()
    text = (tmp_path / "whole" / "training_log.jsonl").read_text()
    rows = [r for r in map(json.loads, text.splitlines()) if "loss" in r]
    assert resumed == [(r["loss"], r["grad_norm"], r["reward"]) for r in rows]


def test_prompts_are_shared_under_mixed_precision(recipe: Recipe) -> None:
    found = grpo_text.run(spec_of(recipe, training=training(bf16=True, max_steps=1)), {})
    shared = found["metrics"]["shared_prefix"]
    assert shared["generation"] and shared["pass"] is not None


@pytest.mark.parametrize("share", ["auto", "off"])
def test_an_answer_that_closes_ends_there_and_its_end_token_is_not_trained(
    recipe: Recipe, batches: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    """Here an answer closes with the digit 1, which an untrained model writes often.

    TRL's own generation goes on behind it; the end token may be the model's own then.
    """
    monkeypatch.setattr(grpo_text, "STOP", ("1",))
    arguments = training(num_generations=16, per_device_train_batch_size=16)
    spec = spec_of(recipe, training=arguments, grpo={"shared_prefix": share})
    grpo_text.run(spec, {})
    stage = common.begin("grpo", spec, {})
    eos = stage.loaded.tokenizer.eos_token_id
    closed = foreign = 0
    for batch in batches:
        for ids, mask, own in zip(
            batch["completion_ids"], batch["completion_mask"], batch["tool_mask"], strict=True
        ):
            written = ids[mask.bool()].tolist()
            if written[-1] == eos and stage.tokens.decode(written[:-1]).endswith("1"):
                closed += 1
                assert own[: len(written) - 1].all()
                foreign += not own[len(written) - 1]
            assert stage.tokens.decode(written[:-2]).count("1") == 0
    assert closed > 2
    assert foreign == closed if share == "auto" else foreign > 2
    assert any(r["completions/clipped_ratio"] < 1 for r in steps(spec))


def test_flat_groups_are_dropped_from_the_loss_and_its_mean(
    recipe: Recipe, batches: list[dict[str, Any]]
) -> None:
    arguments = training(
        max_steps=3, gradient_accumulation_steps=4, loss_type="grpo", learning_rate=1e-9
    )
    results = {}
    for policy in ("keep", "drop"):
        spec = spec_of(recipe, "Often", training=arguments, grpo={"flat_groups": policy})
        grpo_text.run(spec, {})
        results[policy] = curve(spec, "grad_norm"), batches[-3:]
        dropped = [r.get("flat/dropped") for r in steps(spec)]
    kept_norms, kept = results["keep"]
    norms, batch = results["drop"]
    for i in range(3):
        rows = kept[i]["completion_mask"].shape[0]
        lost = ~kept[i]["advantages"].view(4, 4).ne(0).any(1)
        assert dropped[i] == pytest.approx(float(lost.float().mean()))
        empty = batch[i]["completion_mask"].sum(1).view(4, 4) == 0
        assert torch.equal(empty.all(1), lost) and rows == 16
        if lost.any() and not lost.all():
            share = 1 - float(lost.float().mean())
            assert norms[i][0] == pytest.approx(kept_norms[i][0] / share, rel=1e-3)
    assert 0 < sum(d for d in dropped if d is not None) < 3


def test_flat_groups_are_replaced_by_others(recipe: Recipe, batches: list[dict[str, Any]]) -> None:
    arguments = training(max_steps=4, gradient_accumulation_steps=2)
    grpo = {"flat_groups": "resample", "flat_tries": 6, "log_completions": 1}
    spec = spec_of(recipe, "Often", training=arguments, grpo=grpo)
    grpo_text.run(spec, {})
    logged = pandas.read_parquet(Path(spec.run.output_dir) / "completions")
    assert len(logged) > logged["trained"].sum() == 4 * 8
    for number, batch in enumerate(batches, 1):
        used = logged[logged["trained"] & (logged["step"] == number)]["advantage"]
        assert sorted(used) == pytest.approx(sorted(batch["advantages"].tolist()))
    varied = [b["advantages"].view(2, 4).ne(0).any(1).float().mean() for b in batches]
    drop = spec_of(recipe, "Often", training=arguments, grpo={"flat_groups": "drop"})
    before = len(batches)
    grpo_text.run(drop, {})
    alone = [b["advantages"].view(2, 4).ne(0).any(1).float().mean() for b in batches[before:]]
    assert sum(varied) > sum(alone)
    assert all(share == 1 for share in varied)
    for batch in batches[:before]:  # a replaced group is whole: prompt, answers, masks
        for rows in batch["prompt_ids"].view(2, 4, -1):
            assert (rows == rows[0]).all()
        assert (batch["completion_mask"].sum(1) > 0).all()


@pytest.mark.parametrize(
    ("shuffled", "epoch", "reached"), [(True, 0.0, 40), (False, 0.0, 8), (False, 0.25, 18)]
)
def test_other_prompts_are_none_that_an_order_of_difficulty_has_not_come_to(
    shuffled: bool, epoch: float, reached: int
) -> None:
    """40 rows, 2 groups a step."""
    trainer = SimpleNamespace(
        train_dataset=[{"row": i} for i in range(40)],
        accelerator=SimpleNamespace(num_processes=2, process_index=1),
        state=SimpleNamespace(epoch=epoch, global_step=3),
        args=SimpleNamespace(
            generation_batch_size=8,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            seed=7,
        ),
        num_generations=4,
        shuffle_dataset=shuffled,
        _step=3,
    )
    drawn = set()
    for attempt in range(200):
        rows = [row["row"] for row in flat_groups.others(trainer, 1, attempt)]
        assert len(rows) == 4 and len(set(rows)) == 1
        drawn |= set(rows)
    assert drawn == set(range(reached))


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "luspo"])
def test_the_mean_is_over_the_groups_that_are_kept(
    recipe: Recipe, batches: list[dict[str, Any]], loss: str
) -> None:
    """One batch of four groups: policy and KL terms grow by the share that was dropped."""
    arguments = training(
        max_steps=2, gradient_accumulation_steps=4, loss_type=loss, beta=0.04, learning_rate=1e-9
    )
    norms = {}
    for policy in ("keep", "drop"):
        spec = spec_of(recipe, "Often", training=arguments, grpo={"flat_groups": policy})
        grpo_text.run(spec, {})
        norms[policy] = curve(spec, "grad_norm")
    dropped = [r["flat/dropped"] for r in steps(spec)]
    tokens = [b["completion_mask"].sum(1) for b in batches[:2]]
    compared = 0
    for i, lost in enumerate(dropped):
        if not 0 < lost < 1:
            continue
        factor = 1 / (1 - lost)
        if loss == "dapo":  # the mean is over tokens
            rows = batches[i]["advantages"].view(4, 4).ne(0).any(1).repeat_interleave(4)
            factor = float(tokens[i].sum() / tokens[i][rows].sum())
        assert norms["drop"][i][0] == pytest.approx(norms["keep"][i][0] * factor, rel=1e-2)
        compared += 1
    assert compared


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        ("drop", {"loss_type": "bnpo"}, "bnpo takes its mean over each micro-batch"),
        ("resample", {"scale_rewards": "batch"}, "scaled over a batch cannot be mixed"),
        (
            "resample",
            {"multi_objective_aggregation": "normalize_then_sum"},
            "scaled over a batch cannot be mixed",
        ),
    ],
)
def test_settings_that_contradict_flat_groups_are_refused(
    recipe: Recipe, policy: str, changes: dict[str, Any], message: str
) -> None:
    spec = spec_of(recipe, training=training(**changes), grpo={"flat_groups": policy})
    with pytest.raises(RecipeError, match=message):
        grpo_text.run(spec, {})


def test_dropout_does_not_make_the_check_fail_on_resume(recipe: Recipe) -> None:
    model = {"lora": {"r": 4, "alpha": 64, "dropout": 0.2}}
    arguments = training(max_steps=6, save_steps=3, learning_rate=1e-2)
    spec = spec_of(recipe, "Stopping", training=arguments, model=model)
    interrupted(lambda: grpo_text.run(spec, {}), 16)
    assert grpo_text.run(spec, {})["metrics"]["shared_prefix"]["pass"] == "gather"


def test_a_form_that_gives_nan_is_not_chosen() -> None:
    from rank_rl.training.shared_pass import _error

    good = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert _error((good, None), (good, None)) == 0
    assert _error((good * float("nan"), None), (good, None)) == float("inf")


def test_groups_without_spread_are_flat() -> None:
    parts = torch.tensor([[1.0], [1.0], [0.5], [1.0], [0.0], [float("nan")]])
    flats = flat_groups.flat(parts, torch.tensor([1.0]), 2, apart=False)
    assert flats.tolist() == [True, False, True]


def test_parts_that_cancel_are_flat_only_as_a_sum() -> None:
    parts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([1.0, 1.0])
    assert flat_groups.flat(parts, weights, 2, apart=False).tolist() == [True]
    assert flat_groups.flat(parts, weights, 2, apart=True).tolist() == [False]


def test_settings_that_shared_decoding_does_not_know_are_left_to_trl(recipe: Recipe) -> None:
    arguments = training(max_steps=1, repetition_penalty=1.2)
    summary = grpo_text.run(spec_of(recipe, training=arguments), {})
    assert summary["metrics"]["shared_prefix"] == {"pass": "gather", "generation": False}
