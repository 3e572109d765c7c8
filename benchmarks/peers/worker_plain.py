"""A plain loop over transformers: rank_rl's prompts one at a time, or in left-padded batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from prompts import Asker, Rows
from protocol import serve
from transformers import AutoModelForCausalLM, AutoTokenizer


class Plain:
    """``generate``, or one forward pass for labels, over batches in the order given.

    Args:
        model, tokenizer: as transformers loads them.
        size: most rows of a batch.
    """

    def __init__(self, model: Any, tokenizer: Any, size: int) -> None:
        self.model, self.size, self.computed = model, size, 0
        self.pad, self.end = tokenizer.pad_token_id, tokenizer.eos_token_id

    @torch.no_grad()
    def labels(self, rows: Rows, choices: Sequence[Sequence[int]]) -> list[list[float]]:
        """The logits of the tokens that may come next, from one forward pass a batch."""
        found = []
        for start in range(0, len(rows), self.size):
            ids, mask = self._padded(rows[start : start + self.size])
            places = (mask.cumsum(-1) - 1).clamp(min=0)
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                use_cache=False,
                logits_to_keep=1,
            )
            logits = out.logits[:, -1].float().log_softmax(-1)
            found += [
                logits[i, list(next_ids)].tolist()
                for i, next_ids in enumerate(choices[start : start + self.size])
            ]
            self.computed += ids.numel()
        return found

    @torch.no_grad()
    def texts(self, rows: Rows, most: int) -> Rows:
        """Greedy answers by ``generate``."""
        found: Rows = []
        for start in range(0, len(rows), self.size):
            ids, mask = self._padded(rows[start : start + self.size])
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=self.pad,
                eos_token_id=self.end,
            )
            new = out[:, ids.shape[1] :]
            self.computed += ids.numel() + new.shape[0] * (new.shape[1] - 1)
            found += [_until(row, self.end) for row in new.tolist()]
        return found

    def _padded(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, rows))
        ids = [[self.pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids), torch.tensor(mask)


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


@lru_cache(maxsize=1)
def _loaded(folder: str, dtype: str) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(), tokenizer


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Asker:
    """The loop with ``settings["size"]`` rows a batch."""
    model, tokenizer = _loaded(settings["folder"], settings["dtype"])
    size = int(settings["size"])
    return Asker(tokenizer, workload, Plain(model, tokenizer, size), size)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(open_system, ("torch", "transformers"))
