"""The language-model term of stage score: texts behind the slots, in the same packed pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_runs import SLOTS, TRAINING, learned

from rank_rl.data.annotations import Reasoning
from rank_rl.errors import RecipeError
from rank_rl.models.packed_attention import slot_logits
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, score, sft, slot_texts
from rank_rl.training.slot_trainer import SlotTrainer, collate, examples

Recipe = Callable[..., RecipeSpec]
REASON = {**SLOTS, "mode": "reason"}
LM = [{"name": "bce"}, {"name": "lm", "weight": 0.2}]


def trainer_of(spec: RecipeSpec) -> tuple[SlotTrainer, Any, common.Stage]:
    from transformers import TrainingArguments

    stage = common.begin("score", spec, {})
    args = common.hf_arguments(spec, TrainingArguments, stage.out_dir)
    data, _ = examples(stage)
    objective = score.supervised(spec.losses)
    return SlotTrainer(stage, objective, args=args, train_dataset=data), data, stage


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every document has a note, longer for some: these small tasks have no annotations."""
    notes = {f"d{i}": "It says who the father is. " * i for i in range(4)}
    known = Reasoning(source="test", notes=notes)
    monkeypatch.setattr("rank_rl.data.annotations.reasoning", lambda task: known)
    monkeypatch.setattr(sft, "reasoning", lambda task: known)


def test_texts_cost_what_they_cost_as_rows_of_stage_sft(recipe: Recipe, noted: None) -> None:
    trainer, data, stage = trainer_of(recipe(format=REASON, losses=LM))
    batch = data[:3]
    made = collate(batch)["batch"]
    model = trainer.model.eval()
    with torch.no_grad():
        read = slot_logits(model, made.packed, trainer.attention)
        logits, texts = slot_texts.split(read, made.texts)
        groups = trainer.groups(logits, batch, texts)
        alone = collate([_without(e) for e in batch])["batch"].packed
        torch.testing.assert_close(
            logits, slot_logits(model, alone, trainer.attention), atol=1e-4, rtol=1e-4
        )
        tasks = {t.query.qid: t for t in stage.collection.train}
        for example, group in zip(batch, groups, strict=True):
            rows = sft.rows_of(stage.spec, stage.fmt, tasks[example.view.query.qid], example.view)
            expected = []
            for row in (sft.encode(stage.tokens, row) for row in rows):
                ids, labels = (torch.tensor([row[k]]) for k in ("input_ids", "labels"))
                expected.append(model(input_ids=ids, labels=labels).loss.item())
            assert group.texts.tolist() == pytest.approx(expected, rel=1e-3)
            assert len({len(text) for text in example.written}) > 1


def _without(example: Any) -> Any:
    from dataclasses import replace

    return replace(example, written=())


def test_a_language_model_term_is_learned_beside_ranking_losses(
    recipe: Recipe, noted: None
) -> None:
    training = {**TRAINING, "max_steps": 12, "per_device_train_batch_size": 4}
    spec = recipe(format=REASON, losses=LM, training={**training, "learning_rate": 3e-3})
    summary = score.run(spec, {})
    seen = [r["loss"] for r in learned(spec.run.output_dir)]
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])
    plain = recipe(
        format=REASON,
        losses=[{"name": "bce"}],
        run={"output_dir": str(Path(spec.run.output_dir) / "plain")},
    )
    _, data, _ = trainer_of(plain)
    assert all(example.written == () for example in data)
    tokens = sum(len(p) + sum(map(len, s)) for p, s in (e.encoded for e in data))
    assert summary["metrics"]["views"]["tokens"] > tokens


def test_the_term_needs_label_slots_of_stage_score(recipe: Recipe) -> None:
    spec = recipe(
        format=SLOTS,
        losses=LM,
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "group_size": 4},
    )
    stage = common.begin("grpo", spec, {})
    assert not slot_texts.wanted(stage.name, stage.spec)  # its losses are not used there
    total = score.supervised(spec.losses)
    trainer, data, _ = trainer_of(recipe(format=SLOTS, losses=[{"name": "bce"}]))
    packed = collate(data[:2])["batch"].packed
    groups = trainer.groups(slot_logits(trainer.model, packed, trainer.attention), data[:2])
    with pytest.raises(RecipeError, match="loss 'lm': there are no ideal texts"):
        total(groups, data[:2], 0)
