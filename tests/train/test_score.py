"""Stage score on the tiny model: what a batch is, what moves, what is saved, how it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import (
    SLOTS,
    STOPPING,
    TRAINING,
    interrupted,
    learned,
    moved,
    records,
    scores,
    weights,
)

from rank_rl.errors import DataError, ModelError, RecipeError
from rank_rl.models.packed import PackedScorer
from rank_rl.specs import LossSpec, RecipeSpec
from rank_rl.training import common, score
from rank_rl.training.batches import Repeated, shuffled
from rank_rl.training.followed import DEFAULT_LOSSES
from rank_rl.training.slot_trainer import SlotTrainer, collate, examples

Recipe = Callable[..., RecipeSpec]


def trainer_of(spec: RecipeSpec, **arguments: Any) -> tuple[SlotTrainer, list[Any]]:
    from transformers import TrainingArguments

    stage = common.begin("score", spec, {})
    args = common.hf_arguments(spec, TrainingArguments, stage.out_dir)
    data, _ = examples(stage)
    objective = score.supervised(DEFAULT_LOSSES)
    return SlotTrainer(stage, objective, args=args, train_dataset=data, **arguments), data


def test_groups_are_what_inference_reads_at_the_same_slots(recipe: Recipe) -> None:
    spec = recipe(format={**SLOTS, "params": {"labels": [" 0", " 1", " 2"], "values": [0, 1, 5]}})
    trainer, data = trainer_of(spec)
    batch = data[:3]
    stage = common.begin("score", spec, {})
    readings = PackedScorer(stage.loaded, stage.fmt).score([e.view for e in batch])
    logits = scored_logits(trainer, batch)
    groups = trainer.groups(logits, batch)
    for example, group, reading in zip(batch, groups, readings, strict=True):
        assert group.scores.tolist() == pytest.approx(reading.scores, abs=1e-5)
        logprobs = [list(row.values()) for row in reading.logprobs]
        among = group.logits.log_softmax(-1) + group.mass[:, None]
        torch.testing.assert_close(among, torch.tensor(logprobs), atol=1e-5, rtol=0)
        grades = [example.grades[d] for d in example.view.docids]
        assert group.grades.tolist() == grades == group.targets.tolist()


def scored_logits(trainer: SlotTrainer, batch: Any) -> torch.Tensor:
    from rank_rl.models.packed_attention import slot_logits

    with torch.no_grad():
        packed = collate(batch)["batch"].packed
        return slot_logits(trainer.model.eval(), packed, trainer.attention)


def test_grades_above_the_best_label_call_for_the_best_label(recipe: Recipe) -> None:
    trainer, data = trainer_of(recipe(format=SLOTS))
    example = data[0]
    graded = {d: 3 * g for d, g in example.grades.items()}
    changed = type(example)(key="k", view=example.view, grades=graded, encoded=example.encoded)
    (group,) = trainer.groups(scored_logits(trainer, [changed]), [changed])
    assert sorted(group.grades.tolist()) == [0, 0, 0, 3]
    assert group.targets.tolist() == [int(g > 0) for g in group.grades.tolist()]


def test_full_weights_move_and_the_saved_model_scores_the_same(
    recipe: Recipe, tiny_model_dir: Path
) -> None:
    spec = recipe(format=SLOTS, training={"save_steps": 1})
    summary = score.run(spec, {"hash": "abc"})
    assert (summary["stage"], summary["steps"]) == ("score", 2)
    assert moved(tiny_model_dir, summary["checkpoint"]) == set(weights(tiny_model_dir))
    saved = scores(summary["checkpoint"], spec)
    assert saved == scores(Path(spec.run.output_dir) / "checkpoint-2", spec)
    assert saved != scores(tiny_model_dir, spec)
    assert [r["step"] for r in records(spec.run.output_dir) if "eval_ndcg@10" in r] == [0, 2]
    contract = json.loads((Path(summary["checkpoint"]) / "rank_rl.json").read_text())
    assert (contract["stage"], contract["recipe_hash"]) == ("score", "abc")
    views = summary["metrics"]["views"]
    assert views["sampled"]["views"] == 8 and 0 < views["longest"] < views["tokens"]


def test_lora_is_trained_through_packed_passes_and_merged(
    recipe: Recipe, tiny_model_dir: Path
) -> None:
    spec = recipe(
        format=SLOTS, model={"lora": {"r": 4, "alpha": 8}}, training={"learning_rate": 1e-2}
    )
    summary = score.run(spec, {})
    names = moved(tiny_model_dir, summary["checkpoint"])
    assert names == {n for n in weights(tiny_model_dir) if "_proj" in n}


def test_the_losses_of_the_recipe_are_learned(recipe: Recipe) -> None:
    losses = [{"name": "label_ce", "params": {"vocabulary": 1.0}}, {"name": "ranknet"}]
    training = {**TRAINING, "max_steps": 24, "per_device_train_batch_size": 4}
    spec = recipe(format=SLOTS, losses=losses, training={**training, "learning_rate": 3e-3})
    score.run(spec, {})
    seen = [r["loss"] for r in learned(spec.run.output_dir)]
    assert sum(seen[-4:]) < 0.5 * sum(seen[:4])
    failed = [r["eval_parse_failed"] for r in records(spec.run.output_dir) if "eval_seconds" in r]
    assert failed == [1, 0]  # the model now says nothing but labels


def test_the_best_checkpoint_by_validation_becomes_final(recipe: Recipe) -> None:
    training = {**TRAINING, "max_steps": 6, "save_steps": 1, "save_total_limit": 10}
    spec = recipe(format=SLOTS, eval={"every": 1}, training={**training, "learning_rate": 3e-2})
    summary = score.run(spec, {})
    out = Path(spec.run.output_dir)
    values = {r["step"]: r["eval_selection"] for r in records(out) if "eval_selection" in r}
    best = max((v, step) for step, v in values.items() if step)[1]
    assert summary["metrics"]["best"]["step"] == best
    assert len(set(values.values())) > 1
    kept = scores(summary["checkpoint"], spec)
    assert kept == scores(out / f"checkpoint-{best}", spec)
    others = [s for s in values if s not in (0, best)]
    assert all(kept != scores(out / f"checkpoint-{s}", spec) for s in others)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_killed_run_ends_as_if_it_had_not_been(recipe: Recipe, accumulation: int) -> None:
    training = {
        **TRAINING,
        "max_steps": 6,
        "save_steps": 2,
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 2 // accumulation,
    }
    whole = recipe(format=SLOTS, losses=[STOPPING, {"name": "bce"}], training=training)
    out = Path(whole.run.output_dir)
    score.run(whole, {})
    broken = recipe(
        format=SLOTS,
        losses=[STOPPING, {"name": "bce"}],
        training=training,
        run={"output_dir": str(out.with_name("broken"))},
    )
    interrupted(lambda: score.run(broken, {}), calls=2 * 5 + 1)  # within step 6, in epoch 2
    assert [r["step"] for r in learned(broken.run.output_dir)] == [1, 2, 3, 4, 5]
    summary = score.run(broken, {})
    assert summary["steps"] == 6
    assert learned(broken.run.output_dir) == learned(out)
    assert not moved(out / "final", summary["checkpoint"])


def test_layers_computed_again_for_the_backward_pass_learn_the_same(recipe: Recipe) -> None:
    plain = recipe(format=SLOTS)
    score.run(plain, {})
    out = Path(plain.run.output_dir)
    again = recipe(
        format=SLOTS,
        training={**TRAINING, "gradient_checkpointing": True},
        run={"output_dir": str(out.with_name("again"))},
    )
    score.run(again, {})
    for before, after in zip(learned(out), learned(again.run.output_dir), strict=True):
        assert after == pytest.approx(before, rel=1e-4)


def test_the_graph_keeps_logits_over_the_vocabulary_once(recipe: Recipe) -> None:
    trainer, data = trainer_of(recipe(format=SLOTS))
    logits = scored_logits(trainer, data[:2]).requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        groups = trainer.groups(logits, data[:2])
        specs = [LossSpec(name="label_ce", params={"vocabulary": 1.0})]
        score.supervised(specs)(groups, data[:2], 0)
    large = {t.data_ptr() for t in kept if t.numel() >= logits.numel()}
    assert large == {logits.data_ptr()}


def test_another_format_is_refused_before_anything_is_loaded(recipe: Recipe) -> None:
    spec = recipe(model={"name": "/no/such/model"}, format={"name": "permutation"})
    message = (
        "format.name: format 'permutation' has no label slots, which stage score learns through; "
        "expected slots (set format.name: slots)"
    )
    with pytest.raises(RecipeError) as error:
        score.run(spec, {})
    assert str(error.value) == message


def test_labels_that_the_tokenizer_splits_are_refused(recipe: Recipe) -> None:
    spec = recipe(format={**SLOTS, "params": {"labels": ["irrelevant", "relevant"]}})
    with pytest.raises(ModelError, match="is not one token after"):
        score.run(spec, {})


def test_documents_beyond_the_models_window_are_refused_before_training(recipe: Recipe) -> None:
    stage = common.begin("score", recipe(format=SLOTS), {})
    stage.loaded.model.config.max_position_embeddings = 40
    with pytest.raises(
        DataError, match=r"the prompt of a document has \d+ tokens; expected at mos"
    ):
        examples(stage)


def test_tasks_without_grades_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "unjudged.jsonl"
    candidates = [{"docid": f"d{i}", "text": f"text {i}"} for i in range(3)]
    lines = [
        {"qid": split, "query": f"a {split}?", "candidates": candidates, "split": split}
        for split in ("train", "validation", "test")
    ]
    for line in lines[1:]:
        line["grades"] = {"d0": 1}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {**recipe().data.model_dump(), "path": str(file)}
    with pytest.raises(DataError, match="query 'train': the task has no grades"):
        score.run(recipe(format=SLOTS, data=data), {})


def test_batches_are_repeated_in_an_order_of_seed_and_epoch():
    epochs = iter([None, 1.0, 1.5])
    sampler = Repeated(7, order=lambda: shuffled(7, 1, next(epochs)), size=3, times=2)
    first = list(sampler)
    assert len(first) == len(sampler) == 12
    assert first[:3] == first[3:6] and first[6:9] == first[9:12]
    assert len(set(first)) == 6
    second = list(sampler)
    assert second != first
    assert list(sampler) == second  # resumed in the middle of the second epoch
    assert list(Repeated(7, order=lambda: shuffled(7, 2, 0.0), size=3, times=2)) != first
