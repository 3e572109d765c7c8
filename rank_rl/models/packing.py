"""Packing: prompts that share a beginning become one sequence without repeating it.

``pack`` lays out, for each group, the shared prefix once and then its segments; positions restart
after the prefix, and a segment sees the prefix and itself only. A packed pass therefore gives every
segment the values it would have had in a prompt of its own, at the cost of one prefix a group.
This file only arranges indices; ``rank_rl.models.packed_attention`` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

# A prefix and its segments, as token ids: what ``ChatTokens.encode_slots`` returns.
Encoded: TypeAlias = tuple[Sequence[int], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """One packed sequence of T tokens: B groups, each a prefix and its segments, N segments in all.

    Attributes:
        input_ids, position_ids: (1, T).
        group: (T,) group of each token.
        segment: (T,) segment of each token, -1 in a prefix.
        slots: (N,) index of the last token of each segment.
        owner: (N,) group of each segment.
        prefix_index: (B, P) token at each position of each prefix, 0 where padded.
        segment_index: (N, L) the same for segments.
        segment_mask: (N, 1, L, P + L) True where a segment position may look.
        cells: (T,) where each token stands in the two flattened tables, prefixes first.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    group: torch.Tensor
    segment: torch.Tensor
    slots: torch.Tensor
    owner: torch.Tensor
    prefix_index: torch.Tensor
    segment_index: torch.Tensor
    segment_mask: torch.Tensor
    cells: torch.Tensor

    def to(self, device: Any) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def dense_mask(self) -> torch.Tensor:
        """(1, 1, T, T) True where a token may look: earlier in its group's prefix or segment."""
        group, segment = self.group, self.segment
        inside = (segment[None, :] == -1) | (segment[:, None] == segment[None, :])
        return ((group[:, None] == group[None, :]) & inside).tril()[None, None]


def pack(groups: Sequence[Encoded]) -> PackedBatch:
    """Lay out groups, each a prefix followed by its segments, as one sequence.

    Raises:
        ValueError: no group, a group without segments, or an empty prefix or segment.
    """
    import torch

    if not groups or not all(p and s and all(s) for p, s in groups):
        raise ValueError("every group needs segments, each of at least one token, and a prefix")
    ids: list[int] = []
    prefixes: list[list[int]] = []
    segments: list[list[int]] = []
    owner: list[int] = []
    # One row a token: position, group, segment.
    places: list[tuple[int, int, int]] = []
    for number, (prefix, own) in enumerate(groups):
        prefixes.append(_append(ids, prefix))
        places += [(i, number, -1) for i in range(len(prefix))]
        for segment in own:
            places += [(len(prefix) + i, number, len(segments)) for i in range(len(segment))]
            segments.append(_append(ids, segment))
            owner.append(number)
    position, group, of_segment = torch.tensor(places).unbind(1)
    prefix_index, prefix_real = _table(prefixes)
    segment_index, segment_real = _table(segments)
    owners = torch.tensor(owner)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=position[None],
        group=group,
        segment=of_segment,
        slots=torch.tensor([row[-1] for row in segments]),
        owner=owners,
        prefix_index=prefix_index,
        segment_index=segment_index,
        segment_mask=_segment_mask(prefix_real[owners], segment_index.shape[1]),
        cells=_cells([prefix_index, segment_index], [prefix_real, segment_real]),
    )


def _append(ids: list[int], part: Sequence[int]) -> list[int]:
    """Put tokens at the end of a sequence and return where they stand."""
    start = len(ids)
    ids.extend(part)
    return list(range(start, len(ids)))


def _table(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (rows, longest) table and its mask of real entries."""
    import torch

    width = max(map(len, rows))
    index = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return index, torch.arange(width)[None, :] < lengths[:, None]


def _segment_mask(prefix_real: torch.Tensor, width: int) -> torch.Tensor:
    """(N, 1, L, P + L) from the real prefix positions (N, P) of each segment."""
    import torch

    n = len(prefix_real)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    before = prefix_real[:, None, :].expand(n, width, -1)
    return torch.cat([before, causal[None].expand(n, -1, -1)], dim=-1)[:, None]


def _cells(tables: Sequence[torch.Tensor], real: Sequence[torch.Tensor]) -> torch.Tensor:
    """For each token its place in the tables, flattened one behind the other."""
    import torch

    tokens = torch.cat([table.flatten() for table in tables])
    kept = torch.cat([mask.flatten() for mask in real]).nonzero()[:, 0]
    cells = torch.empty(len(kept), dtype=torch.long)
    cells[tokens[kept]] = kept
    return cells
