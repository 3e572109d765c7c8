"""The attention of a packed sequence, and the pass through a causal language model that uses it.

Three forms with equal results: ``flex`` (one kernel for GPUs, see ``flex``), ``gather`` (prefixes
and segments as two small padded batches, so that attention stays linear in the number of documents)
and ``dense`` (the model's own attention under the full block mask). ``choose`` checks them on a few
tokens against separate prompts and picks the first that agrees, so no model is trusted by its name.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

from rank_rl.errors import ModelError
from rank_rl.models import flex
from rank_rl.models.attention import Call, config_of, using
from rank_rl.models.copies import known_of_models
from rank_rl.models.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
Attention = Literal["flex", "gather", "dense"]
NAME = "rank_rl_packed"
HEAD_ROWS = 8192  # of the output layer that are converted at once


def gather(call: Call, packed: PackedBatch) -> torch.Tensor:
    """Attention over one packed sequence, (1, T, heads, dim), as two small padded batches."""
    import torch

    q, k, v = (x[0].transpose(0, 1) for x in (call.query, call.key, call.value))
    how = {"scale": call.scaling, "dropout_p": call.dropout, "window": call.window}
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves those with positions in fp32
        return _attend(q, k, v, packed, how)[None]
    # fp32 even under bf16 autocast: the CPU kernel's backward pass is several times faster so.
    with torch.autocast("cpu", enabled=False):
        out = _attend(q.float(), k.float(), v.float(), packed, how)
    return out[None].to(call.value.dtype)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packed: PackedBatch, how: dict[str, Any]
) -> torch.Tensor:
    """(T, heads, dim) from (T, heads, dim) queries and (T, key heads, dim) keys and values."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    prefix, segment = packed.prefix_index, packed.segment_index
    before, mask = _windowed(packed, how.pop("window"))
    a, b, c = (_rows(x, prefix).transpose(1, 2) for x in (q, k, v))
    first = sdpa(a, b, c, attn_mask=before, is_causal=before is None, enable_gqa=True, **how)
    first = first.transpose(1, 2)
    shared = prefix[packed.owner]
    keys, values = (
        torch.cat([_rows(x, shared), _rows(x, segment)], 1).transpose(1, 2) for x in (k, v)
    )
    # Query heads that share a key head become rows of it: no kernel has to repeat the keys.
    (n, length), (heads, dim) = segment.shape, q.shape[1:]
    times = heads // k.shape[1]
    rows = _rows(q, segment).transpose(1, 2).reshape(n, -1, times * length, dim)
    rest = sdpa(rows, keys, values, attn_mask=mask.repeat(1, 1, times, 1), **how)
    rest = rest.reshape(n, heads, length, -1).transpose(1, 2)
    return torch.cat([first.flatten(0, 1), rest.flatten(0, 1)]).index_select(0, packed.cells)


def _windowed(packed: PackedBatch, window: int | None) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The masks of prefixes (None: plainly causal) and segments under a sliding window."""
    import torch

    places = torch.arange(packed.prefix_index.shape[1], device=packed.prefix_index.device)
    own = packed.position_ids[0][packed.segment_index]
    if window is None or len(places) + own.shape[1] <= window:
        return None, packed.segment_mask
    back = places[:, None] - places
    keys = torch.cat([places.expand(len(own), -1), own], 1)
    near = own[:, :, None] - keys[:, None] < window
    return (back >= 0) & (back < window), packed.segment_mask & near[:, None]


def _rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``x[index]`` with a faster backward pass than that of plain indexing."""
    return x.index_select(0, index.flatten()).unflatten(0, index.shape)


@contextlib.contextmanager
def attending(model: Any, attention: Attention) -> Iterator[None]:
    """Let ``model`` attend as packed passes need it; the block must hold the backward pass too.

    Layers that are computed again for the backward pass (gradient checkpointing) look the
    implementation up a second time.
    """
    if attention == "gather":
        chosen = using(model, NAME, gather)
    elif attention == "flex":
        chosen = using(model, flex.NAME, flex.attend)
    else:
        # The mask needs an implementation that takes one; the model's may do more (soft caps).
        before = config_of(model)._attn_implementation
        chosen = using(model, before if before in ("eager", "sdpa") else "sdpa")
    with chosen:
        yield


def seeing(model: Any, batch: PackedBatch, attention: Attention) -> dict[str, Any]:
    """The arguments of a model's forward that say which tokens see which."""
    if attention == "dense":
        return {"attention_mask": _additive(batch.dense_mask(), model)}
    return {"layout": flex.Masks(batch) if attention == "flex" else batch}


def forms(device: str) -> tuple[Attention, ...]:
    """The forms to try on a kind of device, the fastest first."""
    every: tuple[Attention, ...] = get_args(Attention)
    return every if device == "cuda" and flex.works(device) else every[1:]


def slot_logits(model: Any, batch: PackedBatch, attention: Attention) -> torch.Tensor:
    """Logits over the whole vocabulary at the slot of every segment: (N, V), fp32.

    ``model`` may be wrapped (DDP, FSDP, PEFT): its ordinary forward is called.

    Raises:
        ModelError: a prompt is longer than the model can read.
    """
    limit = reach(model, attention)
    longest = int(batch.position_ids.max()) + 1
    if longest > limit:
        raise ModelError(
            f"a prompt has {longest} tokens",
            where=_name(model),
            expected=f"at most {limit}",
            remedy="lower format.doc_tokens or format.prompt_tokens",
        )
    with attending(model, attention), exact_head(model):
        out = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=batch.slots,
            **seeing(model, batch, attention),
        )
    logits: torch.Tensor = out.logits[0].float()
    return logits


@contextlib.contextmanager
def exact_head(model: Any, *, convert: bool = True) -> Iterator[None]:
    """Let the output layer compute in fp32 while the block runs, not in autocast's or its own bf16.

    Logits of 15 to 20 in bf16 have steps of 1/16 to 1/8, too coarse to tell documents apart. Only
    the slots reach the layer, so fp32 costs next to nothing there. Weights that are not in fp32
    are converted, a part at a time, where gradients are off and ``convert`` is set.
    """
    import torch
    from torch.nn.functional import linear

    head = getattr(model, "module", model).get_output_embeddings()
    single = isinstance(head, torch.nn.Linear) and head.weight.dtype == torch.float32
    converted = convert and not torch.is_grad_enabled()
    if not isinstance(head, torch.nn.Linear) or not (single or converted):
        yield
        return

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if single:
                return linear(x, head.weight, head.bias)
            parts = [linear(x, weight.float()) for weight in head.weight.split(HEAD_ROWS)]
            return torch.cat(parts, -1) + (0 if head.bias is None else head.bias.float())

    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def reach(model: Any, attention: str = "") -> int:
    """Most tokens of one prompt: positions the model knows, and its sliding window if it has one.

    The dense form knows no window; within it the results are the same.
    """
    config = config_of(model).get_text_config()
    names = (
        "max_position_embeddings",
        *(() if attention in ("flex", "gather") else ("sliding_window",)),
    )
    limits = (getattr(config, n, None) for n in names)
    return min((int(limit) for limit in limits if limit), default=1 << 30)


def _additive(mask: torch.Tensor, model: Any) -> torch.Tensor:
    """A boolean mask as numbers to add to the scores, which every implementation takes."""
    import torch

    dtype = next(model.parameters()).dtype
    lowest = torch.finfo(torch.bfloat16).min  # stays finite when autocast makes it smaller
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, lowest)


# Every segment ends in the same token, so that prompts differ in nothing but what they attend to.
_PROBE = (
    ([5, 9, 14, 20, 7], [[30, 31, 33, 8], [40, 7, 42, 45, 46, 8], [8]]),
    ([5, 21], [[30, 31, 33, 8], [6, 8]]),
)

# What was chosen for a model: a trainer may wrap it in autocast later, too coarse to check anew.
_CHOSEN: WeakKeyDictionary[Any, Attention] = known_of_models()


def choose(model: Any) -> Attention:
    """Pick a packed attention that agrees with separate prompts for this model.

    The answer is kept for as long as the model lives.

    Raises:
        ModelError: neither form agrees (a model whose attention is not plainly causal).
    """
    import torch

    from rank_rl.models.loading import evaluating

    if model in _CHOSEN:
        return _CHOSEN[model]
    batch = pack(_PROBE).to(model.device)
    with torch.no_grad(), evaluating(model):
        rows = [[*prefix, *segment] for prefix, segments in _PROBE for segment in segments]
        wanted = alone(model, rows)
        most = tolerance(model, rows, wanted)
        for attention in forms(model.device.type):
            if _error(model, batch, attention, wanted) <= most:
                _CHOSEN[model] = attention
                return attention
    raise ModelError(
        "packed label slots do not give this model's own log-probabilities",
        where=_name(model),
        expected="plain causal attention",
        remedy="use a text format, or another base model",
    )


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest error of (N, V) rows beside what their contexts change at all.

    A wrong position or a neighbour that is seen gives about 1, for trained and untrained models.
    """
    off = (got - wanted).norm(dim=-1).max() / (wanted - wanted.mean(0)).norm(dim=-1).mean()
    return float(off)


def tolerance(model: Any, rows: Sequence[Sequence[int]], wanted: torch.Tensor) -> float:
    """Greatest relative error of another way to compute ``alone(model, rows)``.

    0.01 where the model computes in fp32. In half precision 0.3, or three times what three columns
    of padding change, which mean nothing, but at most 0.5: under bf16 autocast a pass of SmolLM2
    is off by up to 0.17 from its own in fp32, and by 0.2 from shared decoding.
    """
    import torch

    weight = next(model.parameters())
    if weight.dtype == torch.float32 and not torch.is_autocast_enabled(weight.device.type):
        return 0.01
    try:
        noise = relative_error(alone(model, rows, padding=3), wanted)
    except (TypeError, RuntimeError, ValueError):  # as of models that are told no positions
        return 0.3
    return half_tolerance(noise)


def half_tolerance(noise: float) -> float:
    """Greatest relative error in half precision, given what padding changes."""
    return max(0.3, min(0.5, 3 * noise))


def alone(model: Any, rows: Sequence[Sequence[int]], padding: int = 0) -> torch.Tensor:
    """(N, V) log-probabilities behind each row by itself, behind columns of padding."""
    import torch

    found = []
    for row in rows:
        ids = torch.tensor([[0] * padding + list(row)], device=model.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) >= padding).long()[None]
        places = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        seen = {"attention_mask": mask, **places} if padding else {}
        found.append(model(input_ids=ids, **seen).logits[0, -1].float())
    return torch.stack(found).log_softmax(-1)


def _error(model: Any, batch: PackedBatch, attention: Attention, wanted: torch.Tensor) -> float:
    """How far a packed form is off."""
    try:
        off = relative_error(slot_logits(model, batch, attention).log_softmax(-1), wanted)
    except (TypeError, RuntimeError, ValueError) as error:
        logger.info("packed attention %s does not run here: %s", attention, error)
        return math.inf
    logger.info("packed attention %s is off by %.2g", attention, off)
    return off


def _name(model: Any) -> str:
    name = getattr(getattr(model, "module", model).config, "_name_or_path", "")
    return f"model {name!r}" if name else "model"
