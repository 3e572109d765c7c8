"""Text from a local transformers model: batched by length, left-padded, stopped where it is done.

Contract: one completion a prompt, in the order asked; randomness depends on the seed and the
prompt, never on global state; a prompt that leaves no room to answer gets ``finish="error"``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from rank_rl.generation import Progress
from rank_rl.models.loading import Loaded, autocast_context, evaluating
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Completion, Prompt
from rank_rl.seeds import derive

STOP = ("</answer>",)
BATCH_TOKENS = 32768
# Long answers on a CPU: a batch of 32 was no faster per token than one of 8 and waits longer.
CPU_BATCH_TOKENS = 4096


class LocalGenerator:
    """Greedy or sampled answers of a loaded model.

    Args:
        loaded: model and tokenizer.
        max_new_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: nucleus (Holtzman et al., 2020), in (0, 1]; 1 keeps every token.
        seed: what sampling is derived from, together with the prompt.
        batch_size: most prompts a forward pass; prompts of similar length share one. Long ones
            are fewer, so that prompts and answers together stay below 32,768 tokens (4,096 on a
            CPU).

    ``stop`` holds the texts that end an answer; they stay in it.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        self.loaded = loaded
        self.tokens = ChatTokens(loaded.tokenizer)
        self.max_new_tokens = max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.batch_size = batch_size
        self.stop = STOP

    @property
    def deterministic(self) -> bool:
        """Whether a prompt always gets the same answer."""
        return self.temperature == 0

    def shortened(self, max_new_tokens: int) -> LocalGenerator:
        """The same generator with shorter answers."""
        short = copy.copy(self)
        short.max_new_tokens = min(max_new_tokens, self.max_new_tokens)
        return short

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts; ``seconds`` of a completion is its share of its batch."""
        return self.generate_ids(self.tokens.encode_prompts(prompts), progress=progress)

    def generate_ids(
        self, rows: Sequence[Sequence[int]], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Go on from token ids, one row a prompt."""
        done: dict[int, Completion] = {}
        lengths = [len(row) + self.max_new_tokens for row in rows]
        for batch in batches(lengths, size=self.batch_size, loaded=self.loaded):
            answers = self._batch([list(rows[i]) for i in batch])
            done.update(zip(batch, answers, strict=True))
            if progress is not None:
                progress(len(batch))
        return [done[i] for i in range(len(rows))]

    def _batch(self, rows: list[list[int]]) -> list[Completion]:
        room = window(self.loaded) - max(map(len, rows))
        if room < 1:
            return [self._alone(row) for row in rows]
        started = time.perf_counter()
        answers = self._run(rows, min(room, self.max_new_tokens))
        share = (time.perf_counter() - started) / len(rows)
        return [
            replace(self._completion(ids), prompt_tokens=len(row), seconds=share)
            for row, ids in zip(rows, answers, strict=True)
        ]

    def _alone(self, row: list[int]) -> Completion:
        """A row of a batch whose longest prompt fills the model's window."""
        if len(row) >= window(self.loaded):
            return Completion(text="", finish="error", prompt_tokens=len(row))
        return self._batch([row])[0]

    @torch.no_grad()
    def _run(self, rows: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        model = self.loaded.model
        device = next(model.parameters()).device
        pad = self.loaded.tokenizer.pad_token_id
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=device)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
        criteria = StoppingCriteriaList()
        if self.stop:
            criteria.append(_Closed(self.tokens, self.stop, width))
        devices = [device] if device.type == "cuda" else []
        forked = torch.random.fork_rng(devices=devices)
        with evaluating(model), forked, autocast_context(self.loaded):
            torch.manual_seed(derive(self.seed, *rows[0]))
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._config(max_new_tokens),
                stopping_criteria=criteria,
            )
        return [list(map(int, row)) for row in out[:, width:].tolist()]

    def _config(self, max_new_tokens: int) -> GenerationConfig:
        """Every setting is given, so that none leaks in from the model's own configuration."""
        settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "num_beams": 1,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "pad_token_id": self.loaded.tokenizer.pad_token_id,
            "eos_token_id": sorted(ends(self.loaded)),
            "do_sample": self.temperature > 0,
        }
        if self.temperature > 0:
            settings |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return GenerationConfig(**settings)

    def _completion(self, ids: list[int]) -> Completion:
        last = ends(self.loaded)
        stop_at = next((i for i, t in enumerate(ids) if t in last), None)
        kept = ids if stop_at is None else ids[:stop_at]
        text = self.tokens.decode(kept)
        closed, length = self._close(kept, text)
        finish: Literal["stop", "length"] = (
            "stop" if stop_at is not None or closed is not None else "length"
        )
        return Completion(
            text=text if closed is None else closed,
            finish=finish,
            completion_tokens=length + (stop_at is not None and closed is None),
        )

    def _close(self, ids: list[int], text: str) -> tuple[str | None, int]:
        """The text up to its first stop text, and the tokens it took; None when it has none."""
        ends = [text.index(s) + len(s) for s in self.stop if s in text]
        if not ends:
            return None, len(ids)
        closed = text[: min(ends)]
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.tokens.decode(ids[:middle])) >= len(closed):
                high = middle
            else:
                low = middle + 1
        return closed, low


def ends(loaded: Loaded) -> list[int]:
    """Ids that end an answer: the tokenizer's, then those of the model's configuration."""
    own = getattr(loaded.model.generation_config, "eos_token_id", None)
    found = [loaded.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(int(i) for i in found if i is not None))


def closed(tokens: ChatTokens, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the end of an answer holds one of the ``stop`` texts, which its last token ended."""
    if not stop:
        return False
    text = tokens.decode(list(ids[-_tail(stop) :]))
    return any(s in text for s in stop)


def _tail(stop: Sequence[str]) -> int:
    """Most tokens that a stop text takes, with slack for one that ends it and goes on."""
    return max(len(text.encode()) for text in stop) + 4  # no more tokens than bytes


def window(loaded: Loaded) -> int:
    """How many tokens a model takes at most, prompt and answer."""
    return int(getattr(loaded.model.config, "max_position_embeddings", None) or 1 << 30)


def batches(lengths: Sequence[int], *, size: int, loaded: Loaded) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that the largest one fails first if any does.

    Args:
        lengths: tokens of each row, prompt and answer.
        size: most rows a batch.
        loaded: the model, whose device says how many tokens a batch may hold.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    on_cpu = next(loaded.model.parameters()).device.type == "cpu"
    most = CPU_BATCH_TOKENS if on_cpu else BATCH_TOKENS
    start = 0
    while start < len(order):
        end = start + max(1, min(size, most // lengths[order[start]]))
        yield order[start:end]
        start = end


class _Closed(StoppingCriteria):  # type: ignore[misc]
    """Ends a row as soon as the end of its text holds one of the stop texts."""

    def __init__(self, tokens: ChatTokens, stop: tuple[str, ...], start: int) -> None:
        self.tokens, self.stop, self.start = tokens, stop, start
        self.done: torch.Tensor | None = None

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        if self.done is None or len(self.done) != len(input_ids):
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        tail = input_ids[:, max(self.start, input_ids.shape[1] - _tail(self.stop)) :]
        for i, row in enumerate(tail.tolist()):
            if not self.done[i] and closed(self.tokens, row, self.stop):
                self.done[i] = True
        return self.done  # type: ignore[return-value]
