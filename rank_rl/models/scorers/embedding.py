"""Embedding: query and document apart, score by cosine; the query may list documents.

A listwise query (E2Rank, 2510.22733) shows the query's best candidates behind it and is embedded
like any query, so that documents, whose vectors stay as they are, are judged beside one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from rank_rl.formats.inputs import EmbeddingInput
from rank_rl.models.scorers.base import Encoded, Padded, Raw, Scorer, pool
from rank_rl.models.scorers.texts import Row
from rank_rl.records import View


class Embedding(Scorer):
    """Scores documents by the cosine with the query over the temperature.

    With ``listwise`` the listwise query scores; the plain one is trained beside it with weight
    ``plain`` and, with ``listwise_order: own``, decides which candidates are listed.
    """

    fmt: EmbeddingInput

    def encode(self, view: View) -> Encoded:
        """The query's row, then one a document; the pieces of a listwise query."""
        query, documents = self.fmt.texts(view)
        rows = tuple(self.tokens.rows([query, *documents]))
        if not self.fmt.params.listwise:
            return Encoded(rows=rows)
        head, texts = self.fmt.listing(view)
        first, *pieces = self.tokens.prime([head, *texts])
        order = sorted(range(len(texts)), key=lambda i: (view.candidates[i].rank, i))
        return Encoded(rows=rows, head=first, pieces=tuple(pieces), order=tuple(order))

    def read(self, batch: Padded) -> torch.Tensor:
        """(N, H) unit vectors."""
        states = self.encoder(**batch.inputs()).last_hidden_state
        pooled = pool(states, batch.mask, self.fmt.params.pooling)
        return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def finish(self, states: Sequence[torch.Tensor], groups: Sequence[Encoded]) -> list[Raw]:
        """Cosines of the query, or of the listwise query in a second pass."""
        plain = [
            self._raw(state[0], state[1:], group.tokens)
            for state, group in zip(states, groups, strict=True)
        ]
        if not self.fmt.params.listwise:
            return plain
        rows = [self.listwise(g, raw) for g, raw in zip(groups, plain, strict=True)]
        queries = self.features(rows)
        found = []
        for query, row, own in zip(queries, rows, plain, strict=True):
            assert own.documents is not None
            raw = self._raw(query, own.documents, own.tokens + len(row.ids))
            trained = self.training and self.fmt.params.plain
            found.append(replace(raw, extra=((self.fmt.params.plain, own),)) if trained else raw)
        return found

    def listwise(self, group: Encoded, plain: Raw) -> Row:
        """The row of a listwise query: the best candidates numbered, cut evenly to what fits."""
        params = self.fmt.params
        own = params.listwise_order == "own"
        order = plain.scores.detach().argsort(descending=True, stable=True).tolist() if own else ()
        best = list(order or group.order)[: params.listwise]
        numbers = [self.tokens.encode(f"{place}.") for place in range(1, len(best) + 1)]
        limit = min(self.fmt.spec.prompt_tokens, self.tokens.window) - self.tokens.frames[1].added
        room = max(0, limit - len(group.head) - sum(map(len, numbers))) // max(1, len(best))
        ids = list(group.head)
        for number, i in zip(numbers, best, strict=True):
            ids += [*number, *group.pieces[i][:room]]
        return self.tokens.row(ids[:limit])

    def _raw(self, query: torch.Tensor, documents: torch.Tensor, tokens: int) -> Raw:
        temperature = self.fmt.params.temperature
        scores = documents @ query / temperature
        return Raw(
            scores=scores, query=query, documents=documents, temperature=temperature, tokens=tokens
        )
