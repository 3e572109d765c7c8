"""Answers by transformers' own ``generate``: for models that ``ragged`` does not fit.

Contract: as ``local``; rows of a batch are padded on their left and wait for the longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from rank_rl.models.loading import Loaded, autocast_context, evaluating
from rank_rl.seeds import derive

if TYPE_CHECKING:
    from rank_rl.generation.local import LocalGenerator


@torch.no_grad()
def generate(generator: LocalGenerator, rows: list[list[int]], most: int) -> list[list[int]]:
    """Ids of one answer a row, with whatever was written behind its end."""
    model = generator.loaded.model
    device = next(model.parameters()).device
    pad = generator.loaded.tokenizer.pad_token_id
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    criteria = StoppingCriteriaList()
    if generator.stop:
        criteria.append(_Closed(generator, width))
    devices = [device] if device.type == "cuda" else []
    forked = torch.random.fork_rng(devices=devices)
    with evaluating(model), forked, autocast_context(generator.loaded):
        torch.manual_seed(derive(generator.seed, *rows[0]))
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings(generator, most),
            stopping_criteria=criteria,
        )
    return [list(map(int, row)) for row in out[:, width:].tolist()]


def settings(generator: LocalGenerator, most: int) -> GenerationConfig:
    """Every setting is given, so that none leaks in from the model's own configuration."""
    given: dict[str, Any] = {
        "max_new_tokens": most,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "pad_token_id": generator.loaded.tokenizer.pad_token_id,
        "eos_token_id": sorted(ends(generator.loaded)),
        "do_sample": generator.temperature > 0,
    }
    if generator.temperature > 0:
        given |= {"temperature": generator.temperature, "top_p": generator.top_p, "top_k": 0}
    return GenerationConfig(**given)


def ends(loaded: Loaded) -> list[int]:
    """Ids that end an answer: the tokenizer's, then those of the model's configuration."""
    own = getattr(loaded.model.generation_config, "eos_token_id", None)
    found = [loaded.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(int(i) for i in found if i is not None))


class _Closed(StoppingCriteria):  # type: ignore[misc]
    """Ends a row as soon as the end of its text holds one of the stop texts."""

    def __init__(self, generator: LocalGenerator, start: int) -> None:
        self.generator, self.start = generator, start
        self.done: torch.Tensor | None = None

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        if self.done is None or len(self.done) != len(input_ids):
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for i, row in enumerate(input_ids[:, self.start :].tolist()):
            if not self.done[i] and self.generator.closed(row):
                self.done[i] = True
        return self.done  # type: ignore[return-value]
