"""Shared decoding: the logits of ordinary passes, seeds that do not depend on the batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tiny_configs import CONFIGS as DECODERS
from tiny_configs import HALF, SIZES, gemma3, model_of
from transformers import BloomConfig, Gemma2Config, MistralConfig, StableLmConfig

from rank_rl.generation.group_decode import Drawing, GroupDecoder, Row, agrees, decode

CONFIGS = {
    **DECODERS,
    "gemma3": lambda: gemma3(64),
    "window 4": lambda: MistralConfig(**SIZES, sliding_window=4),
    "window 12": lambda: MistralConfig(**SIZES, sliding_window=12),
    "layers with window 4": lambda: gemma3(4, layer_types=HALF),
}
PROMPTS = [[5, 9, 14, 20, 7], [8, 21], [6, 9, 9, 3, 4, 3, 11]]
OWNERS = [0, 0, 1, 2, 2, 2]


def never(ids: list[int]) -> bool:
    return False


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_of_rows_that_come_and_go_are_those_of_separate_passes(name: str) -> None:
    model = model_of(CONFIGS[name]())
    assert agrees(model)
    decoder = GroupDecoder(model, PROMPTS, OWNERS)
    texts = {i: list(PROMPTS[owner]) for i, owner in enumerate(OWNERS)}
    drawn = torch.arange(40 * 6).view(40, 6) % 50 + 5
    for step in range(40):  # longer than the room that is made at first
        if step == 3:
            decoder.keep([0, 2, 4, 5])
        if step == 7:
            decoder.keep([0, 3])
        for i, token in zip(decoder.alive, drawn[step].tolist(), strict=False):
            texts[i].append(token)
        decoder.advance(drawn[step, : len(decoder.alive)])
        if step in (0, 3, 7, 39):
            rows = [torch.tensor([texts[i]]) for i in decoder.alive]
            alone = torch.stack([model(input_ids=row).logits[0, -1] for row in rows])
            assert (decoder.logits - alone).abs().max() < 1e-4
    assert decoder.alive == [0, 5]


@pytest.mark.parametrize("half", ["weights", "autocast"])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_rounding_to_half_precision_is_no_disagreement_but_a_wrong_position_is(
    name: str, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(DECODERS[name]())
    if half == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        assert agrees(model)
        begin = GroupDecoder.__init__

        def late(self: GroupDecoder, *arguments: Any) -> None:
            begin(self, *arguments)
            self.sizes = [size + 1 for size in self.sizes]

        monkeypatch.setattr(GroupDecoder, "__init__", late)
        assert not agrees(model)


@torch.no_grad()
def test_draws_depend_on_seed_and_prompt_not_on_the_batch() -> None:
    model = model_of(CONFIGS["llama"]())
    rows = [Row(prompt=p, seed=10 + i) for i, p in enumerate(OWNERS)]
    settings: Any = {"most": 12, "drawing": Drawing(temperature=0.9, top_p=0.95), "ended": never}
    together = decode(model, PROMPTS, rows, **settings)
    assert [len(ids) for ids in together] == [12] * 6
    assert together[0] != together[1]
    for i, row in enumerate(rows):
        alone = decode(model, [PROMPTS[row.prompt]], [Row(prompt=0, seed=row.seed)], **settings)
        assert alone == [together[i]]


@torch.no_grad()
def test_an_answer_ends_where_it_is_complete_and_the_others_go_on() -> None:
    model = model_of(CONFIGS["llama"]())
    rows = [Row(prompt=0, seed=s) for s in range(16)]
    whole = decode(model, PROMPTS[:1], rows, most=20, drawing=Drawing(), ended=never)
    ends = {7, 9, 13}
    cut = decode(
        model, PROMPTS[:1], rows, most=20, drawing=Drawing(), ended=lambda ids: ids[-1] in ends
    )
    for long, short in zip(whole, cut, strict=True):
        stop = next((i for i, t in enumerate(long) if t in ends), len(long) - 1)
        assert short == long[: stop + 1]
    assert len({len(ids) for ids in cut}) > 2


@torch.no_grad()
def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    count = 20_000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for drawing, wanted in [
        (Drawing(), logits.softmax(-1)),
        (Drawing(temperature=2.0), (logits / 2).softmax(-1)),
        (Drawing(top_k=2), torch.tensor([[0.731, 0.269, 0, 0]])),
        (Drawing(top_p=0.6), torch.tensor([[1.0, 0, 0, 0]])),
        (Drawing(min_p=0.3), torch.tensor([[0.731, 0.269, 0, 0]])),
    ]:
        drawn = Counter(drawing(logits.expand(count, -1), uniform).tolist())
        for token, share in enumerate(wanted[0].tolist()):
            assert abs(drawn[token] / count - share) < 0.015
            assert share > 0 or not drawn[token]


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=5.0),
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
        StableLmConfig(**SIZES),
    ],
    ids=["capped scores", "no attention of its own kind", "layout not passed on"],
)
@torch.no_grad()
def test_models_that_it_does_not_fit_are_told(config: Any) -> None:
    assert not agrees(model_of(config))
