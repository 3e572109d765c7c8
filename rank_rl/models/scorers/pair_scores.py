"""Pair scorer: what placing one document right before another is worth (TSPRank, 2411.12064).

States h_i of (query, document i), as of a cross-encoder, give weights W[i, j]; a view's order is
the path through all documents of most weight. Scores, for losses that need one a document, are
what placing a document before the others is worth minus what placing it behind them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rank_rl.models.scorers.base import Encoded, Padded, Raw, Scorer, pool
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.records import Order, Outcome, View


class PairScores(Scorer):
    """Weights of ordered pairs, ``bilinear`` in two projections of the states, or an ``mlp``."""

    def __init__(self, encoder: Any, tokens: TextTokens, fmt: Any) -> None:
        super().__init__(encoder, tokens, fmt)
        size = fmt.params.size
        self.before = nn.Linear(encoder.config.hidden_size, size)
        self.behind = nn.Linear(encoder.config.hidden_size, size)
        if fmt.params.form == "mlp":
            self.weight = nn.Linear(size, 1, bias=False)

    def encode(self, view: View) -> Encoded:
        """One row a document."""
        query, documents = self.fmt.texts(view)
        return Encoded(rows=tuple(self.tokens.pairs(query, documents)))

    def read(self, batch: Padded) -> torch.Tensor:
        """(N, 2 x size): the two projections of every state."""
        states = self.encoder(**batch.inputs()).last_hidden_state
        pooled = pool(states, batch.mask, self.fmt.params.pooling)
        return torch.cat([self.before(pooled), self.behind(pooled)], 1)

    def finish(self, states: Sequence[torch.Tensor], groups: Sequence[Encoded]) -> list[Raw]:
        """Weights of all pairs of a view, and scores made of them."""
        found = []
        for state, group in zip(states, groups, strict=True):
            pairs = self._weights(*state.chunk(2, 1)).float()
            others = pairs * (1 - torch.eye(len(pairs), device=pairs.device))
            scores = (others.sum(1) - others.sum(0)) / max(1, len(pairs) - 1)
            found.append(Raw(scores=scores, pairs=pairs, tokens=group.tokens))
        return found

    def outcome(self, view: View, raw: Raw) -> Outcome:
        """The order along the path of most weight."""
        from rank_rl.strategies.aggregate import hamiltonian

        assert raw.pairs is not None
        path = hamiltonian(raw.pairs.tolist())
        return Outcome(status="ok", answer=Order(docids=tuple(view.docids[i] for i in path)))

    def _weights(self, before: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
        """(n, n) weights from (n, size) projections."""
        if self.fmt.params.form == "bilinear":
            return before @ behind.T / before.shape[1] ** 0.5
        hidden = torch.nn.functional.gelu(before[:, None] + behind[None])
        weights: torch.Tensor = self.weight(hidden)[..., 0]
        return weights
