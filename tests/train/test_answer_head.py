"""The projection of answer tokens alone gives what TRL's own fused forward gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from rank_rl.models import loading
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training import answer_head, common, sft

Recipe = Callable[..., RecipeSpec]


@pytest.mark.parametrize(
    ("model", "chunk"), [({}, 1024), ({}, 7), ({"lora": {"r": 4, "alpha": 8}}, 1024)]
)
def test_loss_gradients_and_metrics_equal_those_of_trl(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, model: dict[str, object], chunk: int
) -> None:
    monkeypatch.setattr(answer_head, "CHUNK", chunk)
    stage = common.begin("sft", recipe(model=model), {})
    rows = sft.training_rows(stage)[0]
    args = common.hf_arguments(stage.spec, SFTConfig, stage.out_dir, max_length=None)
    trainer = SFTTrainer(
        model=stage.loaded.model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=stage.loaded.tokenizer,
    )
    batch = trainer.data_collator(rows[:3])

    def both() -> tuple[object, dict[str, torch.Tensor]]:
        trainer.model.zero_grad()
        output = trainer.model(**batch, fused_lm_head=True)
        output.loss.backward()
        named = trainer.model.named_parameters()
        return output, {n: p.grad.clone() for n, p in named if p.grad is not None}

    with_trl, expected = both()
    assert answer_head.install(trainer)
    ours, gradients = both()
    for name in ("loss", "log_probs", "entropy"):
        torch.testing.assert_close(getattr(ours, name), getattr(with_trl, name))
    assert torch.equal(ours.is_top1.bool(), with_trl.is_top1.bool())
    assert torch.equal(ours.label_mask, with_trl.label_mask)
    assert gradients.keys() == expected.keys() and len(gradients) > 3
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    plain = {k: v for k, v in batch.items() if k != "labels"}
    assert trainer.model(**plain).logits.shape[:2] == batch["input_ids"].shape


def test_temperature_divides_the_logits_as_in_trl(tiny_model_dir: Path) -> None:
    model = loading.load(ModelSpec(name=str(tiny_model_dir))).model
    ids = torch.arange(24).view(2, 12) % len(model.get_input_embeddings().weight)
    labels = ids.masked_fill(torch.arange(12) < 7, -100)
    add_fused_lm_head(model, temperature=0.5, outputs=("log_probs", "entropy"))
    expected = model(input_ids=ids, labels=labels, fused_lm_head=True)
    hidden = model.model(input_ids=ids).last_hidden_state
    ours = answer_head.fused_output(hidden, model.lm_head.weight, None, labels, 0.5)
    torch.testing.assert_close(ours.log_probs, expected.log_probs)
    torch.testing.assert_close(ours.entropy, expected.entropy)


def test_a_batch_without_answers_has_a_loss_of_zero_and_a_gradient() -> None:
    hidden = torch.ones(1, 3, 2, requires_grad=True)
    labels = torch.full((1, 3), -100)
    output = answer_head.fused_output(hidden, torch.ones(5, 2), None, labels, 1.0)
    output.loss.backward()
    assert output.loss.item() == 0.0
    assert torch.equal(hidden.grad, torch.zeros(1, 3, 2))
