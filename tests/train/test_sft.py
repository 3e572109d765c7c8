"""Stage sft on the tiny model: what is learned from, what moves, what is saved, how it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rank_rl import formats
from rank_rl.errors import DataError, RecipeError
from rank_rl.models import loading
from rank_rl.records import RankingTask
from rank_rl.rerank import Reranker
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import common, sft
from rank_rl.training.callbacks import measure, summarise

Recipe = Callable[..., RecipeSpec]
SLOTS = {"name": "slots", "mode": "reason"}


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return dict(loading.load(ModelSpec(name=str(folder))).model.state_dict())


def moved(before: Path | str, after: Path | str) -> set[str]:
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]


def slot_scores(folder: Path | str, spec: RecipeSpec, tasks: Any) -> list[float]:
    loaded = loading.load(ModelSpec(name=str(folder), autocast="off"))
    results = Reranker(loaded=loaded, fmt=formats.make(spec.format)).rank_tasks(tasks)
    return [score for r in results for score in r.ranking.scores]


def validation(spec: RecipeSpec) -> tuple[RankingTask, ...]:
    return common.begin("sft", spec, {}).collection.validation


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ({"name": "permutation", "mode": "answer"}, "[{relevant}] > ["),
        ({"name": "permutation", "mode": "reason"}, "<think>"),
        (
            {"name": "permutation", "mode": "reason", "params": {"prefill": "<think>\n"}},
            "</think>",
        ),
        ({"name": "scores", "mode": "answer"}, '{{"[1]": '),
    ],
)
def test_labels_are_exactly_the_answer_and_its_end(
    recipe: Recipe, form: dict[str, Any], answer: str
) -> None:
    stage = common.begin("sft", recipe(format=form), {})
    (task, view), *_ = common.training_views(stage)[0]
    (row,) = sft.answer_rows(stage, task, view)
    encoded = sft.encode(stage.tokens, row)
    prompt = stage.fmt.render(view)
    context = stage.tokens.encode_prompt(prompt)
    assert encoded["input_ids"][: len(context)] == context
    assert encoded["labels"][: len(context)] == [-100] * len(context)
    learned = encoded["labels"][len(context) :]
    assert learned == encoded["input_ids"][len(context) :]
    assert learned[-1] == stage.loaded.tokenizer.eos_token_id
    text = stage.loaded.tokenizer.decode(learned[:-1], skip_special_tokens=False)
    assert prompt.prefill + text == stage.fmt.ideal(view, task.grades or {})
    relevant = next(view.label(d) for d, g in (task.grades or {}).items() if g)
    assert answer.format(relevant=relevant) in text
    parsed = stage.fmt.parse(text, view, prefill=prompt.prefill)
    assert parsed.status == "ok", parsed.issues


def test_slot_rows_learn_label_and_note_behind_the_lead(recipe: Recipe) -> None:
    sampler = {"name": "pool", "size": 4, "negatives_per_positive": 2}
    stage = common.begin("sft", recipe(format=SLOTS, data={"sampler": sampler}), {})
    encoded, report = sft.training_rows(stage)
    # One relevant document and twice as many others for each of the eight queries.
    assert report["rows"] == len(encoded) == 8 * 3
    texts = []
    for row in encoded:
        start = row["labels"].count(-100)
        shown = stage.loaded.tokenizer.decode(row["input_ids"][:start])
        assert shown.endswith("Relevant:")
        texts.append(stage.loaded.tokenizer.decode(row["labels"][start:-1]))
    assert sum(text.startswith(" yes.") for text in texts) == 8
    assert sum(text.startswith(" no.") for text in texts) == 16


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_answers_carries_reasoning(recipe: Recipe, share: float) -> None:
    data = {"reasoning": "scored", "reasoning_share": share, "sampler": {"size": 3, "per_query": 8}}
    form = {"name": "permutation", "mode": "reason", "doc_tokens": 8}
    stage = common.begin("sft", recipe(format=form, data=data), {})
    rows, _ = sft.drawn_rows(stage)
    texts = [row["completion"][0]["content"] for row in rows]
    empty = [text for text in texts if text.startswith("<think>\n\n</think>\n<answer>[")]
    thinking = [text for text in texts if text.startswith('<think>\n{"[1] ')]
    assert len(empty) + len(thinking) == len(texts) >= 16
    if share == 0.5:
        assert len(texts) / 5 < len(thinking) < len(texts) * 4 / 5
    else:
        assert len(thinking) == share * len(texts)


def test_a_share_needs_reasoning_to_share(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="reasoning_share has no effect with reasoning: none"):
        recipe(data={"reasoning": "none", "reasoning_share": 0.5})


def test_rows_are_shuffled_by_the_seed_alone(recipe: Recipe) -> None:
    first = sft.training_rows(common.begin("sft", recipe(), {}))[0]
    again = sft.training_rows(common.begin("sft", recipe(), {}))[0]
    assert first == again
    other = recipe(run={"name": "t", "output_dir": recipe().run.output_dir, "seed": 4})
    assert sft.training_rows(common.begin("sft", other, {}))[0] != first


def test_a_row_that_would_be_cut_is_refused_before_training(recipe: Recipe) -> None:
    with pytest.raises(DataError, match=r"training.max_length: a training row has \d+ tokens"):
        sft.run(recipe(training={"max_steps": 1, "max_length": 40}), {})


def test_full_weights_move_and_the_saved_model_scores_the_same(
    recipe: Recipe, tiny_model_dir: Path
) -> None:
    spec = recipe(format=SLOTS)
    summary = sft.run(spec, {"hash": "abc"})
    assert summary["steps"] == 2
    assert moved(tiny_model_dir, summary["checkpoint"]) == set(weights(tiny_model_dir))
    tasks = validation(spec)
    saved = slot_scores(summary["checkpoint"], spec, tasks)
    assert saved == slot_scores(Path(spec.run.output_dir) / "checkpoint-2", spec, tasks)
    assert saved != slot_scores(tiny_model_dir, spec, tasks)
    logged = [r for r in records(Path(spec.run.output_dir)) if "eval_ndcg@10" in r]
    assert [r["step"] for r in logged] == [0, 2]
    results = Reranker.from_pretrained(summary["checkpoint"]).rank_tasks(tasks)
    values = summarise(tasks, results, measure("ndcg@10"), "ndcg@10")
    assert values["eval_ndcg@10"] == pytest.approx(logged[-1]["eval_ndcg@10"])
    contract = json.loads((Path(summary["checkpoint"]) / "rank_rl.json").read_text())
    assert (contract["stage"], contract["recipe_hash"]) == ("sft", "abc")


def test_frozen_layers_and_embeddings_stay(recipe: Recipe, tiny_model_dir: Path) -> None:
    model = {"freeze_layers": 1}
    names = moved(tiny_model_dir, sft.run(recipe(model=model), {})["checkpoint"])
    assert names
    assert all(name.startswith(("model.layers.1.", "model.norm")) for name in names)


def test_lora_moves_every_linear_layer_and_is_merged_into_the_checkpoint(
    recipe: Recipe, tiny_model_dir: Path
) -> None:
    model = {"lora": {"r": 4, "alpha": 8}}
    training = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    spec = recipe(model=model, format=SLOTS, training=training)
    summary = sft.run(spec, {})
    names = moved(tiny_model_dir, summary["checkpoint"])
    linear = {n for n in weights(tiny_model_dir) if "_proj" in n}
    assert names == linear
    tasks = validation(spec)
    adapter = slot_scores(Path(spec.run.output_dir) / "checkpoint-2", spec, tasks)
    merged = slot_scores(summary["checkpoint"], spec, tasks)
    assert merged == pytest.approx(adapter, abs=1e-5)
    assert merged != pytest.approx(slot_scores(tiny_model_dir, spec, tasks), abs=1e-3)


def test_a_run_goes_on_from_its_last_complete_checkpoint(recipe: Recipe) -> None:
    steps = {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_steps": 1}
    first = sft.run(recipe(training={**steps, "max_steps": 2}), {})
    out = Path(first["checkpoint"]).parent
    shutil.rmtree(out / "final")
    (out / "checkpoint-9").mkdir()  # what a kill leaves of a checkpoint being written
    second = sft.run(recipe(training={**steps, "max_steps": 4}), {})
    assert second["steps"] == 4
    state = json.loads((out / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    losses = [r["step"] for r in records(out) if "loss" in r]
    assert losses == [1, 2, 3, 4]
    assert (out / "final" / "model.safetensors").is_file()


def test_checkpoints_of_other_settings_are_not_resumed(recipe: Recipe) -> None:
    steps = {"max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1}
    sft.run(recipe(training={**steps, "learning_rate": 1e-3}), {})
    out = Path(recipe().run.output_dir)
    sft.run(recipe(training={**steps, "learning_rate": 1e-4}), {})
    learned = [(r["step"], r["learning_rate"]) for r in records(out) if "loss" in r]
    assert learned == [(1, 1e-4), (2, 5e-5)]


def test_fewer_steps_than_were_trained_start_over(recipe: Recipe) -> None:
    steps = {"per_device_train_batch_size": 2, "save_steps": 1}
    sft.run(recipe(training={**steps, "max_steps": 3}), {})
    fewer = sft.run(recipe(training={**steps, "max_steps": 2}), {})
    assert fewer["steps"] == 2
    logged = [r["step"] for r in records(Path(fewer["log"]).parent) if "loss" in r]
    assert logged == [1, 2]


def test_a_finished_run_asked_for_again_starts_over(recipe: Recipe) -> None:
    steps = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    first = sft.run(recipe(training=steps), {})
    before = weights(first["checkpoint"])
    for file in Path(first["checkpoint"]).glob("*.safetensors"):
        file.unlink()
    again = sft.run(recipe(training=steps), {})
    assert again["steps"] == 1
    assert all(torch.equal(before[n], w) for n, w in weights(again["checkpoint"]).items())
    assert len([r for r in records(Path(again["log"]).parent) if "loss" in r]) == 1


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rat": 1e-3}, r"training.learning_rat: unknown key.*nearest: learning_rate"),
        ({"learning_rate": "fast"}, r"training.learning_rate: value 'fast'"),
        ({"output_dir": "x"}, r"training.output_dir: not set here; expected run.output_dir"),
        ({"lr_scheduler_type": "round"}, r"training: .*round"),
    ],
)
def test_wrong_training_arguments_are_one_line(
    recipe: Recipe, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        sft.run(recipe(training=training), {})
    assert "\n" not in str(error.value)
