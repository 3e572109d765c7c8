"""What every scorer is: an encoder, a head, and one pass from encoded views to raw results.

Contract: padding and the company of other views change no score beyond rounding. Everything that
training needs gradients of happens in ``forward``, so that distributed wrappers see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rank_rl.models.scorers.texts import Row, TextTokens
from rank_rl.records import Outcome, Scores, View
from rank_rl.specs import ModelSpec

FILE = "scorer.safetensors"
TASK = "FEATURE_EXTRACTION"  # of PEFT
BATCH_TOKENS = 8192  # of a padded batch at inference
PARTS = 4  # padded batches of a training pass: sharded weights want the same number everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One view as token ids; the meaning of ``rows`` is its scorer's.

    ``head``, ``pieces`` and ``order`` are there for listwise queries: token ids of how the query
    begins and of each document, and the documents by first-stage rank.
    """

    rows: tuple[Row, ...]
    head: tuple[int, ...] = ()
    pieces: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return sum(len(row.ids) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What a scorer says of one view of n documents.

    Attributes:
        scores: (n,) higher is better.
        pairs: (n, n) weight of placing document i right before document j, of a pair scorer.
        query, documents: (D,) and (n, D) unit vectors of an embedding, and the ``temperature``
            that scores are cosines divided by; negatives of the batch are made of them.
        extra: weight and result of what is trained beside, in training mode only.
        tokens: tokens read for it.
    """

    scores: torch.Tensor
    pairs: torch.Tensor | None = None
    query: torch.Tensor | None = None
    documents: torch.Tensor | None = None
    temperature: float = 1.0
    extra: tuple[tuple[float, Raw], ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Rows as one batch: (N, L) ids, mask and, where the model has them, types."""

    rows: tuple[Row, ...]
    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor | None

    def inputs(self) -> dict[str, torch.Tensor]:
        """Arguments of an encoder."""
        typed = {} if self.types is None else {"token_type_ids": self.types}
        return {"input_ids": self.ids, "attention_mask": self.mask, **typed}


class Scorer(nn.Module):
    """Base of the scorers.

    Args:
        encoder: an AutoModel; its LoRA adapter included.
        tokens: its tokenizer.
        fmt: an input of ``formats.inputs`` with ``params``.

    Parts named in ``training_only`` are neither saved in checkpoints to use nor used by them.
    """

    training_only: tuple[str, ...] = ()

    def __init__(self, encoder: Any, tokens: TextTokens, fmt: Any) -> None:
        super().__init__()
        self.encoder, self.tokens, self.fmt = encoder, tokens, fmt

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.encoder.config

    @property
    def _no_split_modules(self) -> Any:
        """The layers that FSDP divides one by one, by class name."""
        return getattr(self.encoder, "_no_split_modules", None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, view: View) -> Encoded:
        """Token ids of a view whose texts are within budget."""
        raise NotImplementedError

    def read(self, batch: Padded) -> torch.Tensor:
        """(N, F) features of the rows of a batch."""
        raise NotImplementedError

    def finish(self, states: Sequence[torch.Tensor], groups: Sequence[Encoded]) -> list[Raw]:
        """Results of views from the features of their rows."""
        raise NotImplementedError

    def outcome(self, view: View, raw: Raw) -> Outcome:
        """What a view's raw result says of its documents."""
        values = zip(view.docids, raw.scores.tolist(), strict=True)
        return Outcome(status="ok", answer=Scores(values=dict(values)))

    def forward(self, groups: Sequence[Encoded]) -> list[Raw]:
        """Results of views, one each, in order."""
        states = self.features([row for group in groups for row in group.rows])
        return self.finish(states.split([len(g.rows) for g in groups]), groups)

    def features(self, rows: Sequence[Row]) -> torch.Tensor:
        """(N, F) features of rows, in their order; rows of similar length are padded together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        parts = self._parts([len(rows[i].ids) for i in order])
        found = [self.read(self._pad([rows[order[i]] for i in part])) for part in parts]
        place = torch.tensor(order, device=found[0].device).argsort()
        return torch.cat(found)[place]

    def heads(self) -> dict[str, torch.Tensor]:
        """The weights beside the encoder's that inference needs."""
        left_out = ("encoder.", *(f"{name}." for name in self.training_only))
        return {k: v for k, v in self.state_dict().items() if not k.startswith(left_out)}

    def encoder_twin(self, state: Mapping[str, torch.Tensor], spec: ModelSpec) -> Scorer:
        """A scorer like this one with the weights of ``state``, where this one's are sharded."""
        base = self.encoder.get_base_model() if spec.lora is not None else self.encoder
        with torch.device("meta"):
            encoder = type(base)(base.config)
            if spec.lora is not None:
                from peft import get_peft_model

                from rank_rl.models.loading import lora_config

                encoder = get_peft_model(encoder, lora_config(spec.lora, TASK))
            known = {"published": True} if getattr(self, "published", False) else {}
            made: Scorer = type(self)(encoder, self.tokens, self.fmt, **known)
        made.load_state_dict(state, assign=True)
        return made

    @property
    def is_gradient_checkpointing(self) -> bool:
        """As transformers' models have it, and the next four."""
        return bool(self.encoder.is_gradient_checkpointing)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Compute layers again in the backward pass."""
        self.encoder.gradient_checkpointing_enable(**options)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers computed for the backward pass."""
        self.encoder.gradient_checkpointing_disable()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """What newer transformers call it."""
        self.encoder.activation_checkpointing_enable(**options)

    def activation_checkpointing_disable(self) -> None:
        """What newer transformers call it."""
        self.encoder.activation_checkpointing_disable()

    def _parts(self, lengths: Sequence[int]) -> Iterator[range]:
        """Consecutive rows of one padded batch each; ``lengths`` are ascending."""
        count = len(lengths)
        if self.training:
            size = math.ceil(count / min(PARTS, count))
            yield from (range(i, min(count, i + size)) for i in range(0, count, size))
            return
        start = 0
        for end in range(1, count + 1):
            if end == count or lengths[end] * (end + 1 - start) > BATCH_TOKENS:
                yield range(start, end)
                start = end

    def _pad(self, rows: Sequence[Row]) -> Padded:
        width = max(len(row.ids) for row in rows)
        pad, device = self.tokens.tokenizer.pad_token_id or 0, self.device

        def table(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
            return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)

        typed = any(row.types for row in rows)
        return Padded(
            rows=tuple(rows),
            ids=table([row.ids for row in rows], pad),
            mask=table([[1] * len(row.ids) for row in rows], 0),
            types=table([row.types for row in rows], 0) if typed else None,
        )


def pool(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """(N, H), fp32, of (N, L, H) token states: the first, the last, or the mean without padding."""
    if how == "cls":
        return states[:, 0].float()
    if how == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last].float()
    share = mask / mask.sum(1, keepdim=True)
    return (states.float() * share[..., None]).sum(1)


def exact(tensor: torch.Tensor) -> Any:
    """A block without autocast: scores in bf16 would have three digits, and many ties."""
    return torch.autocast(tensor.device.type, enabled=False)


def linear(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """A linear layer computed in fp32, whatever its weights are in."""
    bias = None if layer.bias is None else layer.bias.float()
    with exact(states):
        return nn.functional.linear(states.float(), layer.weight.float(), bias)


def write_head(model: Scorer, folder: Path) -> None:
    """Save what a scorer has beside its encoder; nothing when that is nothing."""
    from safetensors.torch import save_file

    if heads := model.heads():
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.items()}
        save_file(plain, str(folder / FILE), metadata={"scorer": model.fmt.scorer})
