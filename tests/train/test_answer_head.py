"""The projection of answer tokens alone gives what TRL's own fused forward gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rank_rl.specs import RecipeSpec
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
