"""Cross-encoder: query and document in one sequence, one score (Nogueira and Cho, 2019).

With ``term_control`` a layer over the tokens that document and query share scores too, in training
only (RRADistill, 2410.18097): a term-matching signal that reaches the encoder through the loss of
those scores and costs nothing at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rank_rl.models.scorers.base import Encoded, Padded, Raw, Scorer, exact, linear, pool
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.records import View


class CrossEncoder(Scorer):
    """Scores each document by a linear head on the pooled state, or by a model's published head.

    Args:
        encoder: an AutoModel, or an AutoModelForSequenceClassification with one label.
        tokens, fmt: as for every scorer.
        published: whether the encoder has such a head.
    """

    training_only = ("terms",)

    def __init__(
        self, encoder: Any, tokens: TextTokens, fmt: Any, *, published: bool = False
    ) -> None:
        super().__init__(encoder, tokens, fmt)
        size = encoder.config.hidden_size
        self.published = published
        if published:
            _in_full(encoder)
        else:
            self.head = nn.Linear(size, 1)
        self.terms = TermControl(size) if fmt.params.term_control else None

    def encode(self, view: View) -> Encoded:
        """One row a document."""
        query, documents = self.fmt.texts(view)
        rows = self.tokens.pairs(query, documents, match=self.terms is not None)
        return Encoded(rows=tuple(rows))

    def read(self, batch: Padded) -> torch.Tensor:
        """(N, 1) scores; in training with ``term_control`` (N, 2), its own behind them."""
        controlled = self.training and self.terms is not None
        if self.published:
            found = self.encoder(**batch.inputs(), output_hidden_states=controlled)
            scores = found.logits
            states = found.hidden_states[-1] if controlled else None
        else:
            states = self.encoder(**batch.inputs()).last_hidden_state
            scores = linear(self.head, pool(states, batch.mask, self.fmt.params.pooling))
        if not controlled:
            return scores.float()
        assert self.terms is not None
        pooled = pool(states, batch.mask, self.fmt.params.pooling)
        return torch.cat([scores, self.terms(pooled, states, batch)], 1).float()

    def finish(self, states: Sequence[torch.Tensor], groups: Sequence[Encoded]) -> list[Raw]:
        """The scores as they are."""
        weight = self.fmt.params.term_control
        found = []
        for state, group in zip(states, groups, strict=True):
            extra = tuple((weight, Raw(scores=column)) for column in state[:, 1:].unbind(1))
            found.append(Raw(scores=state[:, 0], extra=extra, tokens=group.tokens))
        return found


class TermControl(nn.Module):
    """Term control layer on selected tokens: the pooled state attends to shared terms, and scores.

    Tokens of the document that occur in the query are selected; where there is none the layer sees
    the pooled state alone.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.asks, self.shows = nn.Linear(size, size), nn.Linear(size, size)
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, 1)

    def forward(self, pooled: torch.Tensor, states: torch.Tensor, batch: Padded) -> torch.Tensor:
        """(N, 1) scores from (N, H) pooled and (N, L, H) token states."""
        chosen = torch.zeros_like(batch.mask, dtype=torch.bool)
        for i, row in enumerate(batch.rows):
            chosen[i, list(row.matches)] = True
        seen = torch.cat([chosen.new_ones(len(chosen), 1), chosen], 1)
        with exact(states):
            keys = torch.cat([pooled[:, None].float(), states.float()], 1)
            asked = linear(self.asks, pooled)[..., None] / keys.shape[-1] ** 0.5
            weights = (linear(self.shows, keys) @ asked)[..., 0]
            shares = weights.masked_fill(~seen, float("-inf")).softmax(1)
            found = pooled.float() + (shares[..., None] * keys).sum(1)
            scale, shift = self.norm.weight.float(), self.norm.bias.float()
            normed = nn.functional.layer_norm(found, scale.shape, scale, shift, self.norm.eps)
            return linear(self.head, normed)


def _in_full(encoder: Any) -> None:
    """Let the last layer of a published head give its score in fp32, whatever the rest is in."""
    model = encoder.get_base_model() if hasattr(encoder, "get_base_model") else encoder
    below = set(model.base_model.modules())
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in below]
    for layer in layers:
        if layer.out_features == 1:
            layer.register_forward_hook(_again_in_full)


def _again_in_full(layer: nn.Linear, inputs: tuple[torch.Tensor, ...], _: Any) -> torch.Tensor:
    return linear(layer, inputs[0])
