"""Prompts whose keys and values are kept: the next one that begins alike goes on from there.

The rounds of a sort ask about the same query again and again, and most documents stand where they
stood (Setwise, Zhuang et al., 2023; the rounds of pairs alike). Contract: what is read is the
model's own, exactly; what is kept is only as good as the model, so whoever changes it forgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rank_rl.generation.ragged import LEAST_SHARED, Decoder, Tree, alike

if TYPE_CHECKING:
    import torch

ROWS = 128  # prompts kept at most
# Rows of one pass are padded to the longest; what is added must stay below this share.
PADDING = 0.25


class Kept:
    """Reads prompts, each from where one that is kept begins alike.

    Args:
        model: a causal language model in evaluation mode; gradients must be off while it reads.
        tokens: most tokens of keys and values.
        read_tokens: about how many tokens a pass reads.

    ``spared`` holds the tokens that the prompts of the last call were spared.
    """

    def __init__(self, model: Any, *, tokens: int, read_tokens: int) -> None:
        self.model, self.tokens, self.read_tokens = model, tokens, read_tokens
        self.spared: list[int] = []
        self.decoder: Decoder | None = None
        self._ids: list[list[int]] = []
        self._used: list[int] = []
        self._clock = 0

    def read(self, prompts: Sequence[list[int]], trees: Sequence[Tree]) -> list[torch.Tensor]:
        """Read prompts of at least three tokens.

        Args:
            prompts: token ids.
            trees: what may follow each, see ``Decoder.look``.

        Returns:
            (1 + tree, V) logits behind each prompt and each token of its tree.
        """
        found: dict[int, torch.Tensor] = {}
        self.spared = [0] * len(prompts)
        left = list(range(len(prompts)))
        while left:
            rows = self._rows(prompts, left)
            self._begin({i: row for i, row in rows.items() if not self._ids[row]}, prompts)
            assert self.decoder is not None
            for part in self._passes(prompts, rows):
                numbers = [rows[i] for i in part]
                pairs = zip(part, numbers, strict=True)
                chunks = [prompts[i][len(self._ids[row]) :] for i, row in pairs]
                logits = self.decoder.look(numbers, chunks, [trees[i] for i in part])
                for i, row, chunk, own in zip(part, numbers, chunks, logits, strict=True):
                    self.decoder.accept(row, len(chunk))
                    self._ids[row] = list(prompts[i])
                    found[i] = own
            left = [i for i in left if i not in rows]
        return [found[i] for i in range(len(prompts))]

    def _rows(self, prompts: Sequence[list[int]], left: Sequence[int]) -> dict[int, int]:
        """A row for each prompt, as far as there are rows; each is cut to what it has in common."""
        self._clock += 1
        if self.decoder is None:
            longest = max(map(len, prompts)) + 8
            count = max(1, min(ROWS, 4 * len(prompts), self.tokens // longest))
            self.decoder = Decoder(self.model, count, longest)
            self._ids, self._used = [[] for _ in range(count)], [0] * count
        taken: dict[int, int] = {}
        free = set(range(len(self._ids)))
        scored = [(alike(self._ids[row], prompts[i][:-1]), i, row) for i in left for row in free]
        for same, i, row in sorted(scored, reverse=True):
            if same < LEAST_SHARED:
                break
            if i not in taken and row in free:
                taken[i] = row
                free.discard(row)
                self._cut(row, same)
                self.spared[i] = same
        oldest = sorted(free, key=lambda row: (self._used[row], row))
        for i, row in zip([i for i in left if i not in taken], oldest, strict=False):
            taken[i] = row
            self._cut(row, 0)
        for row in taken.values():
            self._used[row] = self._clock
        return taken

    def _cut(self, row: int, length: int) -> None:
        assert self.decoder is not None
        self._ids[row] = self._ids[row][:length]
        self.decoder.cache.lengths[row] = length

    def _begin(self, rows: dict[int, int], prompts: Sequence[list[int]]) -> None:
        """Read all but the last token of prompts that go on from none, what they share once."""
        assert self.decoder is not None
        order = sorted(rows, key=lambda i: prompts[i])
        while order:
            part = [order.pop(0)]
            size = len(prompts[part[0]])
            while order and size + len(prompts[order[0]]) <= self.read_tokens:
                size += len(prompts[order[0]])
                part.append(order.pop(0))
            starts = [prompts[i][:-1] for i in part]
            self.decoder.start([rows[i] for i in part], starts)
            for i, start in zip(part, starts, strict=True):
                self._ids[rows[i]] = start

    def _passes(self, prompts: Sequence[list[int]], rows: dict[int, int]) -> list[list[int]]:
        """Prompts in passes of similar lengths that are still to be read."""
        rest = {i: len(prompts[i]) - len(self._ids[row]) for i, row in rows.items()}
        parts: list[list[int]] = []
        held = 0
        for i in sorted(rest, key=lambda i: (rest[i], i)):
            padded = rest[i] * (len(parts[-1]) + 1) if parts else 0
            if parts and padded <= min((1 + PADDING) * (held + rest[i]) + 64, self.read_tokens):
                parts[-1].append(i)
                held += rest[i]
            else:
                parts.append([i])
                held = rest[i]
        return parts
