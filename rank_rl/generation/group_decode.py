"""Several drawn answers to each prompt, with one prefill and one key-value cache a prompt.

Ordinary generation repeats the prompt for every answer, keeps a copy of its keys and values each,
and copies all of them at every token. Here the rows of a prompt attend to the same keys in one
matrix product and keep only their own tokens apart; rows that are done leave the batch. What a row
draws depends on its seed and its prompt, not on what else is in the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rank_rl.models.attention import Call, using
from rank_rl.models.packed_attention import alone, relative_error, tolerance

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
NAME = "rank_rl_decode"
Ended = Callable[[list[int]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the next token is drawn; the names and meanings are those of transformers."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None

    def __call__(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """(R,) tokens for (R, V) logits and (R,) numbers in [0, 1), by the inverse distribution."""
        import torch

        scores = logits.float()
        for warp in self._warpers():
            scores = warp(None, scores)
        # Sums in double precision: single rounds the small probabilities of 10^5 tokens away.
        cumulated = scores.softmax(-1).double().cumsum(-1)
        aim = uniform.to(cumulated)[:, None] * cumulated[:, -1:]
        return torch.searchsorted(cumulated, aim, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)

    def _warpers(self) -> Iterator[Any]:
        from transformers.generation import logits_process as given

        if self.temperature != 1.0:
            yield given.TemperatureLogitsWarper(self.temperature)
        if self.top_k:
            yield given.TopKLogitsWarper(self.top_k)
        if self.top_p < 1.0:
            yield given.TopPLogitsWarper(self.top_p)
        if self.min_p is not None:
            yield given.MinPLogitsWarper(self.min_p)


class Decoding:
    """Keys and values of prompts and rows while a batch is decoded.

    Attributes:
        prefix: for each layer and prompt, keys and values (key heads, P, dim).
        own: for each layer, keys and values of the rows' own tokens (R, key heads, room, dim).
        rows: how many rows each prompt has; they stand together, in the order of the prompts.
        step: how many own tokens are stored.
    """

    ROOM = 32

    def __init__(self, prefix: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        self.prefix = prefix
        self.own: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(prefix)
        self.rows: list[int] = []
        self.step = 0

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[Any, Any]:
        """Add one token of every row, (R, key heads, 1, dim); returns all of them."""
        held = self.own[layer]
        room = 0 if held is None else held[0].shape[2]
        if self.step >= room:
            held = (
                _more(held, key, max(self.ROOM, room)),
                _more(held, value, max(self.ROOM, room), 1),
            )
            self.own[layer] = held
        assert held is not None
        keys, values = held
        keys[:, :, self.step], values[:, :, self.step] = key[:, :, 0], value[:, :, 0]
        return keys[:, :, : self.step + 1], values[:, :, : self.step + 1]

    def keep(self, index: torch.Tensor, rows: list[int]) -> None:
        """Keep the rows of ``index``; ``rows`` is how many of each prompt these are."""
        self.own = [None if o is None else (o[0][index], o[1][index]) for o in self.own]
        self.rows = rows


def _more(held: Any, new: torch.Tensor, room: int, part: int = 0) -> torch.Tensor:
    """A buffer with ``room`` more places that begins with what is held."""
    import torch

    n, heads, _, dim = new.shape
    free = new.new_zeros(n, heads, room, dim)
    return free if held is None else torch.cat([held[part], free], 2)


def attend(call: Call, decoding: Decoding) -> torch.Tensor:
    """Attention of one new token a row to its prompt and its own tokens, (R, 1, heads, dim).

    Raises:
        TypeError: a model whose layers bear no number.
    """
    import torch

    if call.layer is None:
        raise TypeError("attention without the number of its layer")
    keys, values = decoding.store(call.layer, call.key, call.value)
    # How far back the prompt is seen; layers with a window may hold no more of it than that.
    seen = None if call.window is None else max(0, call.window - keys.shape[2])
    if call.window is not None:
        keys, values = keys[:, :, -call.window :], values[:, :, -call.window :]
    n, heads, _, dim = call.query.shape
    kinds = keys.shape[1]
    scale = dim**-0.5 if call.scaling is None else call.scaling
    q = (call.query[:, :, 0] * scale).view(n, kinds, heads // kinds, dim)
    own = q @ keys.transpose(-1, -2)
    out = torch.empty_like(q)
    start = 0
    for (k, v), count in zip(decoding.prefix[call.layer], decoding.rows, strict=True):
        mine = slice(start, start + count)
        start += count
        if count:
            first = 0 if seen is None else max(0, k.shape[1] - seen)
            out[mine] = _attend(q[mine], own[mine], k[:, first:], v[:, first:], values[mine])
    return out.view(n, 1, heads, dim)


def _attend(
    q: torch.Tensor, own: torch.Tensor, k: torch.Tensor, v: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """The rows of one prompt: (n, key heads, times, dim) queries, already scaled."""
    import torch

    n, kinds, times, dim = q.shape
    rows = q.transpose(0, 1).reshape(kinds, n * times, dim)
    shared = (rows @ k.transpose(-1, -2)).view(kinds, n, times, -1)
    weights = torch.cat([shared, own.transpose(0, 1)], -1).float().softmax(-1).to(v.dtype)
    before, after = weights.split([k.shape[1], own.shape[-1]], -1)
    out = (before.reshape(kinds, n * times, -1) @ v).view(kinds, n, times, dim).transpose(0, 1)
    return out + after.transpose(0, 1) @ values


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer to draw: the number of its prompt, and its seed."""

    prompt: int
    seed: int


class GroupDecoder:
    """Reads prompts once and then goes on token by token, for several rows a prompt.

    Args:
        model: a causal language model in evaluation mode; gradients must be off.
        prompts: token ids of the distinct prompts.
        owners: the prompt of each row by its number; rows of a prompt stand together, in the order
            of the prompts.

    Attributes:
        alive: the rows that are still decoded.
        logits: (alive rows, V) of the next token.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], owners: Sequence[int]) -> None:

        self.model, self.owners = model, list(owners)
        self.sizes = [len(ids) for ids in prompts]
        self.alive = list(range(len(owners)))
        self.cache, first = prefill(model, prompts)
        self.cache.rows = self._counts()
        self.logits: torch.Tensor = first[self.owners]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the living rows at these places only."""
        import torch

        if len(places) < len(self.alive):
            self.alive = [self.alive[n] for n in places]
            self.cache.keep(torch.tensor(list(places), device=self.logits.device), self._counts())

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append one token to every living row; returns the logits of the next."""
        import torch

        places = [self.sizes[self.owners[i]] + self.cache.step for i in self.alive]
        with using(self.model, NAME, attend):
            out = self.model(
                input_ids=tokens[:, None],
                position_ids=torch.tensor(places, device=tokens.device)[:, None],
                use_cache=False,
                layout=self.cache,
            )
        self.cache.step += 1
        self.logits = out.logits[:, -1]
        return self.logits

    def _counts(self) -> list[int]:
        counts = [0] * len(self.sizes)
        for i in self.alive:
            counts[self.owners[i]] += 1
        return counts


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    *,
    most: int,
    drawing: Drawing,
    ended: Ended,
) -> list[list[int]]:
    """Draw an answer for every row.

    Args:
        model: a causal language model in evaluation mode; gradients must be off.
        prompts: token ids of the distinct prompts.
        rows: the answers to draw, those of a prompt together and in the order of the prompts.
        most: most tokens of an answer.
        drawing: how a token is drawn from its logits.
        ended: whether an answer, given its ids so far, is complete.

    Returns:
        Ids of each answer, with the token that completed it.
    """
    import torch

    answers: list[list[int]] = [[] for _ in rows]
    uniform = torch.stack([_uniform(row.seed, most) for row in rows])
    decoder = GroupDecoder(model, prompts, [row.prompt for row in rows])
    for step in range(most):
        drawn = drawing(decoder.logits, uniform[decoder.alive, step])
        for i, token in zip(decoder.alive, drawn.tolist(), strict=True):
            answers[i].append(token)
        left = [n for n, i in enumerate(decoder.alive) if not ended(answers[i])]
        if not left or step + 1 == most:
            break
        decoder.keep(left)
        decoder.advance(drawn[left])
    return answers


def prefill(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Decoding, torch.Tensor]:
    """Read every prompt once: the cache, and (prompts, V) logits of the first token."""
    import torch

    device = next(model.parameters()).device
    layers: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    logits = []
    for ids in prompts:
        out = model(
            input_ids=torch.tensor([list(ids)], device=device), use_cache=True, logits_to_keep=1
        )
        logits.append(out.logits[0, -1])
        held = [(layer.keys[0], layer.values[0]) for layer in out.past_key_values.layers]
        layers = layers or [[] for _ in held]
        for known, pair in zip(layers, held, strict=True):
            known.append(pair)
    return Decoding(layers), torch.stack(logits)


def agrees(model: Any) -> bool:
    """Whether decoding gives a model's own log-probabilities, on a few tokens.

    As for packed passes, the error is held against what the context changes at all. The model must
    be in evaluation mode, gradients off.
    """
    import torch

    prompts, tails = [[5, 9, 14, 20, 7], [5, 21, 8]], [[30, 33], [40, 33], [30, 33]]
    owners = [0, 0, 1]
    try:
        decoder = GroupDecoder(model, prompts, owners)
        for tokens in zip(*tails, strict=True):
            decoder.advance(torch.tensor(tokens, device=decoder.logits.device))
        got = decoder.logits.float().log_softmax(-1)
        rows = [prompts[o] + tail for o, tail in zip(owners, tails, strict=True)]
        wanted = alone(model, rows)
        allowed = tolerance(model, rows, wanted)
    except (TypeError, RuntimeError, ValueError, AttributeError) as error:
        logger.info("shared decoding does not run here: %s", error)
        return False
    off = relative_error(got, wanted)
    logger.info("shared decoding is off by %.2g of %.2g", off, allowed)
    return off <= allowed


def _uniform(seed: int, count: int) -> torch.Tensor:
    """Numbers in [0, 1) for one row."""
    import torch

    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.rand(count, generator=generator, dtype=torch.float64)
