"""The attention of a packed sequence, and the pass through a causal language model that uses it.

Two forms with equal results: ``gather`` (prefixes and segments as two small padded batches, so that
attention stays linear in the number of documents) and ``dense`` (the model's own attention under
the full block mask). ``choose`` checks them on a few tokens against separate prompts and picks the
first that agrees, so no model is trusted by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rank_rl.errors import ModelError
from rank_rl.models.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
Attention = Literal["gather", "dense"]
NAME = "rank_rl_packed"


def gather_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    packed: PackedBatch,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one packed sequence.

    Args:
        module: the attention layer (unused; part of the calling convention of transformers).
        query: (1, heads, T, dim).
        key, value: (1, key heads, T, dim).
        attention_mask: ignored; the batch says who sees whom.
        scaling: factor of the scores before the softmax.
        dropout: must be 0; packed training uses none.
        packed: the layout of the sequence.
        options: what else the model passes; options that change the scores are refused.

    Returns:
        (1, T, heads, dim) and None for the weights.

    Raises:
        TypeError: the model caps its scores, adds sinks or drops attention.
    """
    import torch

    if dropout or any(options.get(name) is not None for name in ("softcap", "s_aux")):
        raise TypeError("attention with dropout, soft caps or sinks")
    # fp32 even under bf16 autocast: the CPU kernel's backward pass is several times faster so.
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x[0].transpose(0, 1) for x in _attention_inputs(query, key, value))
        out = _attend(q, k, v, packed, scaling)
    return out[None].to(query.dtype), None


def _attention_inputs(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """fp32 copies on a CPU, the tensors themselves elsewhere."""
    return tuple(x.float() if x.device.type == "cpu" else x for x in tensors)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packed: PackedBatch, scaling: float | None
) -> torch.Tensor:
    """(T, heads, dim) from tensors of the same layout."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    def attend(a: Any, b: Any, c: Any, **how: Any) -> torch.Tensor:
        a, b, c = (x.transpose(1, 2) for x in (a, b, c))
        return sdpa(a, b, c, scale=scaling, enable_gqa=True, **how).transpose(1, 2)

    prefix, segment = packed.prefix_index, packed.segment_index
    shared = prefix[packed.owner]
    first = attend(q[prefix], k[prefix], v[prefix], is_causal=True)
    rest = attend(
        q[segment],
        torch.cat([k[shared], k[segment]], dim=1),
        torch.cat([v[shared], v[segment]], dim=1),
        attn_mask=packed.segment_mask,
    )
    source = torch.cat(
        [first.flatten(0, 1)[packed.prefix_flat], rest.flatten(0, 1)[packed.segment_flat]]
    )
    return torch.zeros_like(source).index_copy(0, packed.target, source)


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Let ``model`` use another attention implementation inside the block."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def slot_logits(model: Any, batch: PackedBatch, attention: Attention) -> torch.Tensor:
    """Logits over the whole vocabulary at the slot of every segment: (N, V), fp32.

    ``model`` may be wrapped (DDP, FSDP, PEFT): its ordinary forward is called.
    """
    from transformers import AttentionInterface

    inner = getattr(model, "module", model)
    arguments: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
        "logits_to_keep": batch.slots,
    }
    if attention == "gather":
        AttentionInterface.register(NAME, gather_attention)
        with attention_of(inner, NAME):
            logits = model(**arguments, packed=batch).logits
    else:
        with attention_of(inner, "sdpa"):
            logits = model(**arguments, attention_mask=batch.dense_mask()).logits
    return logits[0].float()


def choose(model: Any, *, tolerance: float = 2e-2) -> Attention:
    """Pick a packed attention that agrees with separate prompts for this model.

    Args:
        model: a causal language model in any precision.
        tolerance: largest difference of the log-probabilities at the slots.

    Raises:
        ModelError: neither form agrees (a model whose attention is not plainly causal).
    """
    import torch

    prefix = [5, 9, 14, 20]
    segments = [[30, 31, 33], [40, 7, 42, 45, 46], [12]]
    batch = pack([prefix, prefix[:2]], [segments, segments[:1]]).to(model.device)
    alone = [prefix + s for s in segments] + [prefix[:2] + segments[0]]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            wanted = [
                model(input_ids=torch.tensor([row], device=model.device)).logits[0, -1].float()
                for row in alone
            ]
            expected = torch.stack(wanted).log_softmax(-1)
            for attention in ("gather", "dense"):
                try:
                    got = slot_logits(model, batch, attention).log_softmax(-1)  # type: ignore[arg-type]
                except (TypeError, RuntimeError, ValueError) as error:
                    logger.info("packed attention %s does not run here: %s", attention, error)
                    continue
                worst = (got - expected).abs().max().item()
                if worst <= tolerance:
                    return attention  # type: ignore[return-value]
                logger.info("packed attention %s differs by %.2g", attention, worst)
    finally:
        model.train(was_training)
    raise ModelError(
        "packed label slots do not give this model's own log-probabilities",
        where=str(getattr(model.config, "_name_or_path", "")) or "model",
        expected="plain causal attention",
        remedy="use a text format, or another base model",
    )
