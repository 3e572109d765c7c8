"""Packing: prompts that share a beginning become one sequence without repeating it.

``pack`` lays out, for each group, the shared prefix once and then its segments; positions restart
after the prefix, and a segment sees the prefix and itself only. A packed pass therefore gives every
segment the values it would have had in a prompt of its own, at the cost of one prefix a group.
This file only arranges indices; ``rank_rl.models.packed_attention`` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Indices of one packed sequence of T tokens with B prefixes and N segments.

    Attributes:
        input_ids, position_ids: (1, T).
        slots: (N,) index of the last token of each segment.
        owner: (N,) number of the prefix that a segment belongs to.
        prefix_index: (B, P) token index of each prefix position, 0 where padded.
        segment_index: (N, L) the same for segments.
        prefix_flat, segment_flat: positions of real tokens within the two flattened tables.
        target: (T,) token index of those real tokens, prefixes first.
        segment_mask: (N, 1, L, P + L) True where a segment position may look.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    slots: torch.Tensor
    owner: torch.Tensor
    prefix_index: torch.Tensor
    segment_index: torch.Tensor
    prefix_flat: torch.Tensor
    segment_flat: torch.Tensor
    target: torch.Tensor
    segment_mask: torch.Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens in the sequence."""
        return int(self.input_ids.shape[1])

    def to(self, device: Any) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def dense_mask(self) -> torch.Tensor:
        """(1, 1, T, T) True where a token may look: the block mask in full, for reference."""
        import torch

        t = self.tokens
        mask = torch.zeros(t, t, dtype=torch.bool, device=self.input_ids.device)
        prefix_ok = torch.zeros_like(self.prefix_index, dtype=torch.bool)
        prefix_ok.view(-1)[self.prefix_flat] = True
        segment_ok = torch.zeros_like(self.segment_index, dtype=torch.bool)
        segment_ok.view(-1)[self.segment_flat] = True
        for row, ok in zip(self.prefix_index, prefix_ok, strict=True):
            index = row[ok]
            mask[index[:, None], index] = _causal(len(index), mask.device)
        for number, (row, ok) in enumerate(zip(self.segment_index, segment_ok, strict=True)):
            index, owner = row[ok], self.owner[number]
            mask[index[:, None], index] = _causal(len(index), mask.device)
            mask[index[:, None], self.prefix_index[owner][prefix_ok[owner]]] = True
        return mask[None, None]


def _causal(n: int, device: Any) -> torch.Tensor:
    import torch

    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def _table(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (rows, longest) index table and its mask of real entries."""
    import torch

    width = max(map(len, rows))
    index = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return index, torch.arange(width)[None, :] < lengths[:, None]


def pack(
    prefixes: Sequence[Sequence[int]], segments: Sequence[Sequence[Sequence[int]]]
) -> PackedBatch:
    """Lay out B prefixes, each followed by its segments, as one sequence.

    Args:
        prefixes: token ids, one non-empty list a group.
        segments: for each group a non-empty list of non-empty token lists.

    Raises:
        ValueError: an empty prefix or segment.
    """
    import torch

    if not prefixes or not all(prefixes) or not all(s and all(s) for s in segments):
        raise ValueError("every prefix and every segment needs at least one token")
    ids: list[int] = []
    positions: list[int] = []
    prefix_rows: list[list[int]] = []
    segment_rows: list[list[int]] = []
    owner: list[int] = []
    for number, (prefix, group) in enumerate(zip(prefixes, segments, strict=True)):
        for part, start in ((prefix, 0), *((segment, len(prefix)) for segment in group)):
            row = list(range(len(ids), len(ids) + len(part)))
            ids.extend(part)
            positions.extend(range(start, start + len(part)))
            if start:
                segment_rows.append(row)
                owner.append(number)
            else:
                prefix_rows.append(row)
    prefix_index, prefix_mask = _table(prefix_rows)
    segment_index, segment_mask = _table(segment_rows)
    own = torch.tensor(owner)
    n, width = segment_index.shape
    seen = torch.cat(
        [
            prefix_mask[own][:, None, :].expand(n, width, -1),
            _causal(width, None)[None].expand(n, width, width),
        ],
        dim=-1,
    )
    prefix_flat = prefix_mask.flatten().nonzero()[:, 0]
    segment_flat = segment_mask.flatten().nonzero()[:, 0]
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        slots=torch.tensor([row[-1] for row in segment_rows]),
        owner=own,
        prefix_index=prefix_index,
        segment_index=segment_index,
        prefix_flat=prefix_flat,
        segment_flat=segment_flat,
        target=torch.cat(
            [prefix_index.flatten()[prefix_flat], segment_index.flatten()[segment_flat]]
        ),
        segment_mask=seen[:, None],
    )
