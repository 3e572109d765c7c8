"""Attention of our own in a transformers model: one calling convention, switched on for a block.

A function of ``Call`` and a layout is all that a form of attention has to be; ``using`` registers
it under a name and makes a model use it. The layout (who sees whom, or what is cached) reaches it
as the argument ``layout`` of the model's forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

# A call and the forward's ``layout`` to (B, T, heads, dim).
Attend: TypeAlias = "Callable[[Call, Any], torch.Tensor]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a layer asks of its attention.

    Attributes:
        layer: number of the layer; None where the model does not say.
        query: (B, heads, T, dim).
        key, value: (B, key heads, T, dim).
        scaling: factor of the scores before the softmax; None is dim ** -0.5.
        dropout: share of the attention weights to drop.
        window: tokens that a sliding window reaches back; None without one.
    """

    layer: int | None
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scaling: float | None = None
    dropout: float = 0.0
    window: int | None = None


def adapted(attend: Attend) -> Callable[..., tuple[torch.Tensor, None]]:
    """``attend`` in the calling convention of transformers, without weights.

    What it returns raises TypeError where a model caps its scores or adds sinks or biases to them,
    which would be lost, and where it does not pass on the layout that its forward was given.
    """

    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        for name in ("softcap", "s_aux", "position_bias"):
            if options.get(name) is not None:
                raise TypeError(f"attention with {name}")
        if "layout" not in options:
            raise TypeError("attention without the layout of its sequence")
        call = Call(
            layer=getattr(module, "layer_idx", None),
            query=query,
            key=key,
            value=value,
            scaling=options.get("scaling"),
            dropout=options.get("dropout", 0.0),
            window=options.get("sliding_window"),
        )
        return attend(call, options["layout"]), None

    return attention


@contextlib.contextmanager
def using(model: Any, name: str, attend: Attend | None = None) -> Iterator[None]:
    """Let ``model`` attend by the implementation ``name`` within the block.

    Args:
        model: a transformers model, wrapped or not.
        name: an implementation that transformers knows, or one to register.
        attend: what to register under it.
    """
    from transformers import AttentionInterface

    if attend is not None:
        AttentionInterface.register(name, adapted(attend))
    config = config_of(model)
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def config_of(model: Any) -> Any:
    """The configuration of a model, wrapped or not."""
    return getattr(model, "module", model).config
