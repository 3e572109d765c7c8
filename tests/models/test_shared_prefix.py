"""A packed pass over groups equals TRL's pass over separate rows: values, entropies, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_configs import CONFIGS as DECODERS
from tiny_configs import HALF, SIZES, gemma3
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    MistralConfig,
    StableLmConfig,
)
from trl.trainer.utils import add_fused_lm_head

from rank_rl.models import shared_prefix
from rank_rl.models.packed_attention import attending
from rank_rl.training.shared_pass import SharedPass

CONFIGS = {
    **DECODERS,
    "gemma2": lambda: Gemma2Config(**SIZES, head_dim=8, sliding_window=32),
    "gemma3": lambda: gemma3(32),
}
FORMS = [(name, "dense") for name in CONFIGS] + [(n, "gather") for n in CONFIGS if n != "gemma2"]

# Prompt and completions of three groups: ragged, one of a single row, one row masked out whole.
GROUPS = [
    ([5, 9, 14, 20, 7, 11], [[30, 31, 33, 8], [40, 7], [12], [30, 31, 33, 8]]),
    ([8, 21], [[17, 18, 2]]),
    ([6, 9, 9, 3, 4, 2, 1, 50, 51], [[30, 31, 2], [], [52, 2]]),
]
WIDTH, KEPT = 9, 4


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """(8, 13) ids and mask as TRL pads them; padding holds a token that would be seen."""
    ids, mask = [], []
    for prompt, completions in GROUPS:
        for completion in completions:
            left, right = WIDTH - len(prompt), KEPT - len(completion)
            ids.append([60] * left + prompt + completion + [61] * right)
            mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask)


def model_of(name: str, *, lora: bool = False, checkpointing: bool = False) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(CONFIGS[name]())
        add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
        if lora:
            config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
            model = get_peft_model(model, config)
            model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def stock(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int, entropy: bool = True
) -> Any:
    """What TRL's pass computes."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-kept] = -100
    out = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    return out.log_probs[:, -kept:], out.entropy[:, -kept:]


def gradients(model: Any, values: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (values * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(("name", "attention"), FORMS)
def test_values_and_gradients_are_those_of_separate_rows(
    name: str, attention: Any, lora: bool, checkpointing: bool
) -> None:
    model = model_of(name, lora=lora, checkpointing=checkpointing)
    ids, mask = batch()
    wanted, entropy = stock(model, ids, mask, KEPT)
    expected = gradients(model, wanted)
    shared = shared_prefix.share(ids, mask, KEPT)
    assert shared is not None and shared.tokens < mask.sum() < ids.numel()
    with attending(model, attention):
        got, ours = shared_prefix.token_logprobs(model, shared, attention)
        assert ours is not None
        found = gradients(model, got)
    real = mask[:, -KEPT:].bool()
    assert torch.equal(got != 0, real)
    assert (got - wanted).abs().max() < 1e-4
    assert (ours - entropy)[real].abs().max() < 1e-4
    assert found.keys() == expected.keys()
    whole = torch.cat([g.flatten() for g in expected.values()])
    off = torch.cat([(found[n] - expected[n]).flatten() for n in expected])
    assert off.norm() < 1e-3 * whole.norm()


@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "gemma2"])
def test_the_form_for_gpus_has_the_same_values(name: str) -> None:
    """Values only: FlexAttention has no backward pass on a CPU."""
    model = model_of(name)
    ids, mask = batch()
    shared = shared_prefix.share(ids, mask, KEPT)
    assert shared is not None
    with torch.no_grad():
        wanted, entropy = stock(model, ids, mask, KEPT)
        got, ours = shared_prefix.token_logprobs(model, shared, "flex")
    assert ours is not None
    assert (got - wanted).abs().max() < 1e-4
    assert (ours - entropy)[mask[:, -KEPT:].bool()].abs().max() < 1e-4


def test_a_batch_without_any_completion_keeps_the_loss_connected() -> None:
    model = model_of("llama")
    ids, mask = batch()
    mask[:, -KEPT:] = 0
    shared = shared_prefix.share(ids, mask, KEPT)
    assert shared is not None
    got, _ = shared_prefix.token_logprobs(model, shared, "gather")
    assert got.shape == (8, KEPT) and not got.any()
    assert all(not g.any() for g in gradients(model, got).values())


def test_prompts_too_short_or_with_gaps_are_left_to_the_ordinary_pass() -> None:
    ids, mask = batch()
    assert shared_prefix.share(ids[:, 8:], mask[:, 8:], KEPT) is None
    holes = mask.clone()
    holes[0, 5] = 0
    assert shared_prefix.share(ids, holes, KEPT) is None


def test_the_layout_computes_each_prompt_once() -> None:
    shared = shared_prefix.share(*batch(), KEPT)
    assert shared is not None
    # Prompts 6 + 2 + 9, the last token of each again for all completions but one of it.
    completions = [len(c) for _, group in GROUPS for c in group if c]
    assert shared.tokens == (5 + 1 + 8) + sum(n + 1 for n in completions)
    assert shared.repeated == sum(len(p) + len(c) for p, group in GROUPS for c in group if c)


@pytest.mark.parametrize("name", [*CONFIGS])
def test_the_form_of_attention_is_chosen_by_numbers(name: str) -> None:
    chosen = SharedPass(stock, exact=True).choose(model_of(name))
    assert chosen == ("dense" if name == "gemma2" else "gather")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma"])
def test_rounding_in_bf16_is_no_reason_to_refuse(name: str) -> None:
    model = model_of(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert SharedPass(stock, exact=False).choose(model) == "gather"


@pytest.mark.parametrize("exact", [True, False])
def test_a_pass_that_is_wrong_is_refused(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that see one another, and positions that go on instead of starting again."""
    from dataclasses import replace

    from rank_rl.models import packing

    original = packing.pack

    def moved(groups: Any) -> Any:
        made = original(groups)
        places = torch.arange(made.input_ids.shape[1])[None]
        return replace(made, position_ids=places)

    def open_(groups: Any) -> Any:
        made = original(groups)
        return replace(made, segment=torch.full_like(made.segment, -1))

    model = model_of("llama")
    for wrong in (moved, open_):
        monkeypatch.setattr(shared_prefix, "pack", wrong)
        form = "dense" if wrong is open_ else "gather"
        monkeypatch.setattr("rank_rl.training.shared_pass.forms", lambda _, form=form: (form,))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not exact):
            assert SharedPass(stock, exact=exact).choose(model) is None


def test_a_model_that_does_not_pass_the_layout_on_is_packed_by_a_mask() -> None:
    model = AutoModelForCausalLM.from_config(StableLmConfig(**SIZES))
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    shared = SharedPass(stock, exact=True)
    assert shared(model, *batch(), KEPT) is not None and shared.attention == "dense"


def test_a_model_with_another_attention_gets_the_ordinary_pass() -> None:
    """Positions counted from the mask: packed segments would be placed behind one another."""
    model = AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    )
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    shared = SharedPass(stock, exact=True)
    assert shared(model, *batch(), KEPT) is None and shared.attention is None


@pytest.mark.parametrize("window", [3, 8])
@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_sliding_windows_are_those_of_the_model(kind: str, window: int) -> None:
    config = (
        MistralConfig(**SIZES, sliding_window=window)
        if kind == "mistral"
        else gemma3(window, layer_types=HALF)
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    shared = SharedPass(stock, exact=True, least=2.0)
    found = shared(model, *batch(), KEPT)
    shared.close()
    assert found is not None and shared.attention == "gather"
    wanted, _ = stock(model, *batch(), KEPT)
    assert (found[0] - wanted).abs().max() < 1e-4
    with torch.no_grad():
        laid = shared_prefix.share(*batch(), KEPT)
        assert laid is not None
        values, _ = shared_prefix.token_logprobs(model, laid, "flex")
    assert (values - wanted).abs().max() < 1e-4
    # A window that reaches less far gives something else.
    model.config.sliding_window = None
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    plain = shared(model, *batch(), KEPT)
    shared.close()
    assert plain is not None and (plain[0] - wanted).abs().max() > 1e-2


def test_a_form_without_windows_leaves_long_rows_to_the_ordinary_pass() -> None:
    """The third prompt is too long for the window of this dense form, the others fit."""
    model = model_of("gemma2")
    model.config.sliding_window = 11
    shared = SharedPass(stock, exact=True, least=2.0)
    ids, mask = batch()
    assert shared(model, ids, mask, KEPT) is None and shared.attention == "dense"
    fitting = shared(model, ids[:5], mask[:5], KEPT)
    shared.close()
    assert fitting is not None
    assert (fitting[0] - stock(model, ids[:5], mask[:5], KEPT)[0]).abs().max() < 1e-4
