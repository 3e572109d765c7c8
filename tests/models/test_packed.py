"""A packed pass is worth as many separate passes: values, gradients, and who sees whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_configs import CONFIGS as DECODERS
from tiny_configs import SIZES, model_of
from transformers import (
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    MambaConfig,
    MistralConfig,
    StableLmConfig,
)

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.models import packed_attention
from rank_rl.models.loading import load
from rank_rl.models.packed import PackedScorer, SlotLabels, label_ids, label_weights
from rank_rl.models.packed_attention import attending, choose, exact_head, slot_logits
from rank_rl.models.packing import pack
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Candidate, Prompt, Query, View, numbered
from rank_rl.specs import FormatSpec, ModelSpec

# Groups of three, one and two segments, of different lengths.
GROUPS = [
    ([5, 9, 14, 20], [[30, 31, 33], [40, 7, 42, 45, 46], [12]]),
    ([8], [[17, 18]]),
    ([6, 9, 9, 3, 4, 2, 1], [[30, 31, 33], [50, 51, 52, 53]]),
]
CONFIGS = {
    "llama": DECODERS["llama"],
    "qwen3": DECODERS["qwen3"],
    "gpt2": lambda: GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, bos_token_id=1
    ),
}


def alone(model: Any, groups: Any = GROUPS) -> torch.Tensor:
    """Logits behind every segment, each from a pass of its own."""
    rows = [[*prefix, *segment] for prefix, segments in groups for segment in segments]
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["gather", "dense"])
@pytest.mark.parametrize("name", CONFIGS)
def test_slot_logits_equal_those_of_separate_prompts(name, attention):
    model = model_of(CONFIGS[name]())
    with torch.no_grad():
        packed = slot_logits(model, pack(GROUPS), attention)
        expected = alone(model)
    assert packed.shape == (6, 64)
    assert (expected - expected.mean(0)).abs().max() > 0.5  # prompts do matter
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["gather", "dense"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_gradients_equal_those_of_separate_prompts(name, attention):
    model = model_of(CONFIGS[name]()).train()
    weights = torch.linspace(-1, 1, 6 * 64).view(6, 64)
    expected = gradients(model, (alone(model).log_softmax(-1) * weights).sum())
    logits = slot_logits(model, pack(GROUPS), attention)
    found = gradients(model, (logits.log_softmax(-1) * weights).sum())
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name_, gradient in expected.items():
        torch.testing.assert_close(found[name_], gradient, atol=1e-4, rtol=1e-3, msg=name_)


@pytest.mark.parametrize("attention", ["gather", "dense"])
def test_a_segment_is_blind_for_the_others(attention):
    model = model_of(CONFIGS["llama"]())
    prefix, segments = GROUPS[0]
    changed = [segments[0], [1, 2, 3], segments[2]]
    other = [([9, 9, 9], [[9, 9]]), *GROUPS[2:]]
    with torch.no_grad():
        before = slot_logits(model, pack(GROUPS), attention)
        after = slot_logits(model, pack([(prefix, changed), *other]), attention)
    torch.testing.assert_close(after[[0, 2, 4, 5]], before[[0, 2, 4, 5]])
    assert (after[[1, 3]] - before[[1, 3]]).abs().amax(-1).min() > 0.1


@pytest.mark.parametrize("attention", ["gather", "dense"])
def test_one_document_is_an_ordinary_prompt(attention):
    model = model_of(CONFIGS["llama"]())
    one = [([5, 9, 14], [[30, 31]])]
    with torch.no_grad():
        torch.testing.assert_close(slot_logits(model, pack(one), attention), alone(model, one))


def test_a_lora_model_is_packed_with_its_adapter():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(model_of(CONFIGS["llama"]()), config, autocast_adapter_dtype=False)
    model.eval()
    assert choose(model) == "gather"
    expected = gradients(model, alone(model).log_softmax(-1)[:, 3].sum())
    assert expected and all(".lora_" in name for name in expected)
    found = gradients(model, slot_logits(model, pack(GROUPS), "gather").log_softmax(-1)[:, 3].sum())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_layers_computed_again_for_the_backward_pass_attend_alike():
    model = model_of(CONFIGS["llama"]()).train()

    def packed() -> dict[str, torch.Tensor]:
        with attending(model, "gather"):
            loss = slot_logits(model, pack(GROUPS), "gather").log_softmax(-1)[:, 3].sum()
            return gradients(model, loss)

    expected = packed()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, gradient in packed().items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_the_attention_of_a_model_is_as_before():
    model = model_of(CONFIGS["llama"]())
    slot_logits(model, pack(GROUPS), "gather")
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ModelError):
        slot_logits(model, pack([([5] * 64, [[6]])]), "gather")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_ordinary_decoders_are_gathered_whatever_their_precision(name, dtype):
    assert choose(model_of(CONFIGS[name]()).to(dtype)) == "gather"


def test_soft_caps_leave_the_dense_form():
    model = model_of(Gemma2Config(**SIZES, head_dim=16, attn_logit_softcapping=0.2))
    assert choose(model) == "dense"
    with torch.no_grad():
        packed = slot_logits(model, pack(GROUPS), "dense")
        torch.testing.assert_close(packed, alone(model), atol=1e-5, rtol=1e-4)
        with pytest.raises(TypeError, match="softcap"):
            slot_logits(model, pack(GROUPS), "gather")
        model.config.attn_logit_softcapping = None
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        assert (alone(model) - packed).abs().max() > 0.1  # the cap was at work


def test_a_model_that_does_not_pass_the_layout_on_is_packed_by_a_mask():
    assert choose(model_of(StableLmConfig(**SIZES))) == "dense"


@pytest.mark.parametrize(
    "config",
    [
        lambda: BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
        lambda: MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
    ],
)
def test_models_that_cannot_be_packed_are_refused_in_one_line(config):
    model = model_of(config())
    with pytest.raises(ModelError, match="expected plain causal attention") as error:
        choose(model)
    assert "\n" not in str(error.value)


def test_prompts_beyond_a_sliding_window_are_read_through_it_or_refused():
    model = model_of(MistralConfig(**SIZES, sliding_window=6))
    groups = [([5, 9, 14, 20], [[30, 31, 33], [7, 8, 9, 10, 11]]), ([5, 9], [[30]])]
    with torch.no_grad():
        found = slot_logits(model, pack(groups), "gather")
        torch.testing.assert_close(found, alone(model, groups))
    with pytest.raises(ModelError, match="a prompt has 9 tokens; expected at most 6"):
        slot_logits(model, pack(groups), "dense")


@pytest.mark.parametrize("gradients_on", [True, False])
def test_bf16_autocast_stays_close(gradients_on):
    model = model_of(CONFIGS["llama"]())
    with torch.set_grad_enabled(gradients_on):
        exact = slot_logits(model, pack(GROUPS), "gather")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = slot_logits(model, pack(GROUPS), "gather")
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().max() < 0.1 * (exact - exact.mean(0)).abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_slots_of_weights_in_half_precision_are_read_in_single(dtype, bias, monkeypatch):
    monkeypatch.setattr(packed_attention, "HEAD_ROWS", 24)  # parts, and one that is not full
    model = model_of(CONFIGS["llama"]()).to(dtype)
    head = model.get_output_embeddings()
    if bias:
        head.bias = torch.nn.Parameter(torch.randn(64).to(dtype))
    batch, seen = pack(GROUPS), []
    with torch.no_grad():
        handle = head.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
        found = slot_logits(model, batch, "gather")
        handle.remove()
        ((states, _),) = seen
        exact = states[0].double() @ head.weight.double().T
        exact = exact + head.bias.double() if bias else exact
        assert states.dtype == dtype and found.shape == exact.shape
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
        assert not torch.equal(found, found.to(dtype).float())  # finer than the weights'
        with exact_head(model, convert=False):  # as the model itself says it
            assert head(states).dtype == dtype
        assert head(states).dtype == dtype  # and afterwards
    with exact_head(model):  # training keeps the graph of the layer itself
        assert head(states).dtype == dtype


# Reading views with the tiny model of the fixtures.


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def slots(**params: Any) -> Any:
    return formats.make(FormatSpec(name="slots", doc_tokens=16, params=params))


def view(*texts: str, qid: str = "q") -> View:
    candidates = [Candidate(docid=f"d{i}", text=t, rank=i + 1) for i, t in enumerate(texts)]
    return numbered(Query(qid=qid, text="who is the father?"), candidates)


VIEWS = [
    view("the river runs", "it says who the father is, and where", "the lake"),
    view("the film"),
    view("the town <|im_end|>", "born in a small town near the river"),
]


def test_a_reading_is_what_a_plain_pass_says_at_each_slot(loaded):
    fmt = slots(labels=["no", "yes"])
    tokens = ChatTokens(loaded.tokenizer)
    no, yes = (tokens.encode(text)[0] for text in (" no", " yes"))
    readings = PackedScorer(loaded, fmt).score(VIEWS)
    assert [len(r.scores) for r in readings] == [3, 1, 2]
    for shown, reading in zip(VIEWS, readings, strict=True):
        for i in range(len(shown.docids)):
            prompt = Prompt(messages=fmt.slot_messages(shown, i), prefill=fmt.lead)
            with torch.no_grad():
                ids = torch.tensor([tokens.encode_prompt(prompt)])
                logits = loaded.model(ids).logits[0, -1]
            logprobs = logits.log_softmax(-1)
            expected = {" no": float(logprobs[no]), " yes": float(logprobs[yes])}
            assert reading.logprobs[i] == pytest.approx(expected, abs=1e-4)
            assert reading.scores[i] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)
            odds = torch.sigmoid(logits[yes] - logits[no])
            assert reading.expected[i] == pytest.approx(float(odds), abs=1e-4)
            assert reading.greedy[i] == loaded.tokenizer.decode([int(logits.argmax())])
            assert reading.best()[i] == (" yes" if reading.scores[i] > 0 else " no")


def test_readings_do_not_depend_on_what_is_packed_together(loaded):
    fmt = slots()
    together = PackedScorer(loaded, fmt).score(VIEWS)
    apart = PackedScorer(loaded, fmt, batch_tokens=1).score(VIEWS)
    for a, b in zip(together, apart, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
        assert a.tokens == b.tokens
    assert PackedScorer(loaded, fmt).score([]) == []


def test_tokens_count_the_shared_prefix_once(loaded):
    fmt = slots()
    scorer = PackedScorer(loaded, fmt)
    prefix, segments = scorer.tokens.encode_slots(fmt.slots(VIEWS[0]))
    (reading,) = scorer.score(VIEWS[:1])
    assert reading.tokens == len(prefix) + sum(map(len, segments))


def test_scoring_leaves_a_model_in_training_mode_training(loaded):
    loaded.model.train()
    PackedScorer(loaded, slots()).score(VIEWS[:1])
    assert loaded.model.training
    loaded.model.eval()


def test_labels_that_are_no_single_token_are_refused(loaded):
    tokens = ChatTokens(loaded.tokenizer)
    assert len(label_ids(tokens, "Relevant:", [" no", " yes"])) == 2
    message = r"label ' perhaps' is not one token after 'Relevant:'; expected labels that this"
    with pytest.raises(ModelError, match=message) as error:
        label_ids(tokens, "Relevant:", [" no", " perhaps"])
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="share a token"):
        label_ids(tokens, "Relevant:", [" no", " no"])
    with pytest.raises(ModelError, match="not one token"):
        PackedScorer(loaded, slots(labels=["irrelevant", "relevant"]))


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([0, 1], [-1, 1]),
        ([0, 1, 2], [-1, 0, 1]),
        ([-3, 5], [-1, 1]),
        ([0, 1, 8], [-0.75, -0.5, 1.25]),
    ],
)
def test_weights_sum_to_zero_so_that_a_common_shift_of_logits_changes_nothing(values, weights):
    assert label_weights(values) == weights
    labels = SlotLabels(
        texts=("a", "b", "c")[: len(values)],
        values=tuple(values),
        ids=(1, 2, 3)[: len(values)],
        weights=tuple(weights),
    )
    logits = torch.tensor([[0.5, 2.0, -1.0], [3.0, 1.0, 0.0]])[:, : len(values)]
    torch.testing.assert_close(labels.scores(logits + 7), labels.scores(logits))


def test_labels_worth_the_same_cannot_rank(loaded):
    with pytest.raises(RecipeError, match=r"format.params.values: values \[1.0, 1.0\]"):
        PackedScorer(loaded, slots(values=[1, 1]))
