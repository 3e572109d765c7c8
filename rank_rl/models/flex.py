"""Packed attention as one FlexAttention block mask: the form for GPUs, where it is one kernel.

Blocks of tokens that do not see each other are skipped, so that attention grows with what is
visible; finding the blocks, once a batch, grows with the square of the packed length. On a CPU it
runs without compilation, slowly, and without a backward pass; that is for the tests. Dong et al.,
2024 (FlexAttention, arXiv 2412.05496).
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from rank_rl.models.attention import Call
from rank_rl.models.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
NAME = "rank_rl_flex"


def block_mask(packed: PackedBatch, window: int | None = None) -> Any:
    """The ``BlockMask`` of a packed sequence of T tokens.

    Args:
        packed: its layout.
        window: tokens that a sliding window reaches back, by position; None without one.
    """
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    group, segment, place = packed.group, packed.segment, packed.position_ids[0]

    def visible(batch: Any, head: Any, q: Any, k: Any) -> Any:
        inside = (segment[k] == -1) | (segment[q] == segment[k])
        seen = (q >= k) & (group[q] == group[k]) & inside
        return seen if window is None else seen & (place[q] - place[k] < window)

    length, device = len(group), group.device
    make = create_block_mask if device.type == "cpu" else torch.compile(create_block_mask)
    return make(visible, None, None, length, length, device=device)


class Masks:
    """The block masks of one batch: one for each window that the layers of a model have."""

    def __init__(self, packed: PackedBatch) -> None:
        self.packed = packed
        self.longest = int(packed.position_ids.max()) + 1
        self.made: dict[int | None, Any] = {}

    def of(self, window: int | None) -> Any:
        """The mask for a window; those that reach everything are the same."""
        key = window if window is not None and window < self.longest else None
        if key not in self.made:
            self.made[key] = block_mask(self.packed, key)
        return self.made[key]


def attend(call: Call, masks: Masks) -> torch.Tensor:
    """Attention over one packed sequence, (1, T, heads, dim).

    Raises:
        TypeError: dropout, which the kernel does not have.
    """
    if call.dropout:
        raise TypeError("attention with dropout")
    out: torch.Tensor = _kernel(call.query.device.type)(
        call.query,
        call.key,
        call.value,
        block_mask=masks.of(call.window),
        scale=call.scaling,
        enable_gqa=True,
    )
    return out.transpose(1, 2).contiguous()


@functools.lru_cache
def works(device: str) -> bool:
    """Whether the kernel and its backward pass run on a kind of device."""
    import torch

    packed = pack([(list(range(9)), [[1, 2, 3], [4, 5]])]).to(device)
    shape = (1, 2, len(packed.group), 16)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
    try:
        with torch.enable_grad():
            attend(Call(layer=0, query=q, key=k, value=v), Masks(packed)).sum().backward()
    except (RuntimeError, NotImplementedError, ImportError, TypeError, ValueError) as error:
        logger.info("FlexAttention does not run on %s: %s", device, error)
        return False
    return q.grad is not None and bool(q.grad.isfinite().all())


@functools.lru_cache
def _kernel(device: str) -> Any:
    """FlexAttention, compiled where there is a backward kernel for it."""
    import torch
    from torch.nn.attention import flex_attention as given

    return given.flex_attention if device == "cpu" else torch.compile(given.flex_attention)
