"""Per-token log-probabilities of several completions of one prompt, the prompt computed once.

The rows of a GRPO batch repeat their prompt. ``share`` lays the distinct prompts and all
completions out as one packed sequence; ``token_logprobs`` runs the model on it through its own
forward, so that vocabulary projections, wrappers and adapters stay what they are, and puts the
values back into the rows. Every segment begins with the prompt's last token again: then each
completion token is predicted by the one before it, as in an ordinary sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rank_rl.models.packed_attention import Attention, attending, reach, seeing
from rank_rl.models.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

# Rows by prompt: number and completion of each.
Groups: TypeAlias = dict[tuple[int, ...], list[tuple[int, list[int]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A batch of B rows with completions of at most C tokens, laid out once a prompt.

    Attributes:
        batch: the packed sequence of T tokens.
        labels: (1, T) the completion tokens where they stand, -100 elsewhere.
        index: (B, C) where the value of each completion token stands among the T - 1 predictions.
        real: (B, C) whether there is such a token.
        tokens: T; ``repeated`` is what separate rows would hold, ``padded`` with their padding.
    """

    batch: PackedBatch
    labels: torch.Tensor
    index: torch.Tensor
    real: torch.Tensor
    tokens: int
    repeated: int
    padded: int


def share(input_ids: torch.Tensor, attention_mask: torch.Tensor, kept: int) -> Shared | None:
    """Lay out (B, P + C) rows, prompts padded on the left and completions on the right.

    Args:
        input_ids: (B, P + C) token ids.
        attention_mask: (B, P + C) 1 where a token is real; a row may have no real completion.
        kept: C, the length of the completion part.

    Returns:
        The layout, or None where it does not apply: a prompt of fewer than two tokens, or gaps
        between real tokens.
    """
    pairs = zip(input_ids.tolist(), attention_mask.tolist(), strict=True)
    rows = [_row(ids, mask, kept) for ids, mask in pairs]
    found = [row for row in rows if row is not None]
    if len(found) < len(rows):
        return None
    known: Groups = {}
    for number, (prompt, completion) in enumerate(found):
        if completion:
            known.setdefault(prompt, []).append((number, completion))
    if not known:  # a pass over something, so that the loss stays connected to the weights
        known[found[0][0]] = [(0, [])]
    return _layout(known, rows=len(rows), kept=kept, padded=input_ids.numel())


def _row(ids: list[int], mask: list[int], kept: int) -> tuple[tuple[int, ...], list[int]] | None:
    """Prompt and completion without padding."""
    start = len(ids) - kept
    first = next((i for i, m in enumerate(mask) if m), start)
    length = sum(mask[start:])
    gaps = sum(mask[first:start]) < start - first or not all(mask[start : start + length])
    if gaps or start - first < 2:
        return None
    return tuple(ids[first:start]), ids[start : start + length]


def _layout(known: Groups, *, rows: int, kept: int, padded: int) -> Shared:
    import torch

    groups = [
        (prompt[:-1], [[prompt[-1], *completion] for _, completion in members])
        for prompt, members in known.items()
    ]
    batch = pack(groups)
    lengths = [len(segment) for _, segments in groups for segment in segments]
    owners = [number for members in known.values() for number, _ in members]
    index = torch.zeros(rows, kept, dtype=torch.long)
    real = torch.zeros(rows, kept, dtype=torch.bool)
    labels = torch.full_like(batch.input_ids, -100)
    for last, length, row in zip(batch.slots.tolist(), lengths, owners, strict=True):
        start = last - length + 1
        labels[0, start + 1 : last + 1] = batch.input_ids[0, start + 1 : last + 1]
        index[row, : length - 1] = torch.arange(start, last)
        real[row, : length - 1] = True
    repeated = sum(len(p) + len(c) for p, members in known.items() for _, c in members)
    return Shared(
        batch=batch,
        labels=labels,
        index=index,
        real=real,
        tokens=batch.input_ids.shape[1],
        repeated=repeated,
        padded=padded,
    )


def fits(model: Any, shared: Shared, attention: Attention) -> bool:
    """Whether no prompt and completion are together longer than the model, or its window, reads."""
    return int(shared.batch.position_ids.max()) + 1 <= reach(model, attention)


def token_logprobs(
    model: Any, shared: Shared, attention: Attention
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, C) log-probabilities and entropies of the completion tokens, 0 where there is none.

    The model must answer ``fused_lm_head=True`` as those that TRL prepares do. Under gradient
    checkpointing the caller keeps ``attending`` open until the backward pass is done.
    """
    device = shared.labels.device
    batch = shared.batch
    with attending(model, attention):
        out = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            labels=shared.labels,
            fused_lm_head=True,
            **seeing(model, batch, attention),
        )
    index, real = shared.index.to(device), shared.real.to(device)

    def rows(values: torch.Tensor | None) -> torch.Tensor | None:
        if values is None:
            return None
        taken = values[0].index_select(0, index.flatten()).view(index.shape)
        return taken.masked_fill(~real, 0.0)

    logprobs = rows(out.log_probs)
    assert logprobs is not None
    return logprobs, rows(out.entropy)


def to(shared: Shared, device: Any) -> Shared:
    """The same layout on another device."""
    return replace(
        shared,
        batch=shared.batch.to(device),
        labels=shared.labels.to(device),
        index=shared.index.to(device),
        real=shared.real.to(device),
    )
