"""Decoding rows of different lengths together: one cache that is written in place.

Ordinary generation copies all keys and values at every token, keeps rows that are done, and reads
one token a pass. Here a pass reads as many tokens of each row as there are to read (a prompt, text
that a grammar gives, a guess that is checked), rows leave and others take their place. Prompts are
read packed, so that what they begin with alike is computed once. What a row reads next is a
``writers.Writer``'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rank_rl.models.attention import Call, using
from rank_rl.models.packed_attention import alone, exact_head, gather, relative_error, tolerance
from rank_rl.models.packing import Encoded, PackedBatch, pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
READ, GO_ON = "rank_rl_read", "rank_rl_go_on"
ROOM = 64  # more tokens a row when there is no room left
# Least tokens, and least share of a prompt, that reading once must save: segments of a group attend
# under a mask, which takes up to twice as long as plainly causal attention.
LEAST_SHARED, LEAST_SHARE = 16, 0.15


class Cache:
    """Keys and values of ``rows`` rows, each with its own length.

    Attributes:
        layers: for each layer, keys and values (rows, key heads, room + 1, dim); what is written
            into the last place is never read.
        lengths: how many tokens of each row are held.
        room: tokens that a row may have without growing.
    """

    def __init__(self, rows: int, room: int) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.lengths = [0] * rows
        self.room = room
        # Of the pass under way: (R, W) where its tokens go and stand, (R, 1, W, S) what they see.
        self.index: Any = None
        self.positions: Any = None
        self.mask: Any = None
        self._added: dict[tuple[int, int | None], torch.Tensor] = {}

    def grow(self, room: int) -> None:
        """Make room for rows of so many tokens."""
        import torch

        if room <= self.room:
            return
        more = max(room, self.room + ROOM) - self.room
        for n, (keys, values) in self.layers.items():
            free = keys.new_zeros(*keys.shape[:2], more, keys.shape[3])
            late = values.new_zeros(*values.shape[:2], more, values.shape[3])
            self.layers[n] = (torch.cat([keys, free], 2), torch.cat([values, late], 2))
        self.room += more

    def place(
        self, layer: int, rows: Sequence[int], index: Sequence[torch.Tensor], call: Call
    ) -> None:
        """Store whole rows that a packed pass read, (1, key heads, T, dim)."""
        held = self.layers.get(layer)
        if held is None:
            shape = (len(self.lengths), call.key.shape[1], self.room + 1)
            held = (
                call.key.new_zeros(*shape, call.key.shape[3]),
                call.value.new_zeros(*shape, call.value.shape[3]),
            )
            self.layers[layer] = held
        for row, places in zip(rows, index, strict=True):
            held[0][row, :, : len(places)] = call.key[0].index_select(1, places)
            held[1][row, :, : len(places)] = call.value[0].index_select(1, places)

    def begin(self, index: Any, positions: Any, mask: Any) -> None:
        """Say where the tokens of the next pass go and stand, and what they see."""
        self.index, self.positions, self.mask = index, positions, mask
        self._added = {}

    def added(self, times: int, window: int | None, dtype: Any) -> torch.Tensor:
        """What is added to the scores of the pass, (R, 1, times * W, S); alike in most layers."""
        import torch

        known = self._added.get((times, window))
        if known is None:
            seen = self.mask
            if window is not None:
                places = torch.arange(seen.shape[-1], device=seen.device)
                seen = seen & (self.positions[:, None, :, None] - places < window)
            known = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            lowest = torch.finfo(torch.bfloat16).min  # finite in every dtype that models have
            known = known.masked_fill_(~seen, lowest).repeat(1, 1, times, 1)
            self._added[(times, window)] = known
        return known

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        import torch

        device = next(iter(self.layers.values()))[0].device if self.layers else "cpu"
        index = torch.tensor(list(rows), device=device)
        self.layers = {n: (k[index], v[index]) for n, (k, v) in self.layers.items()}
        self.lengths = [self.lengths[row] for row in rows]


class Reading:
    """The layout of a packed pass whose keys and values are kept."""

    def __init__(self, packed: PackedBatch, cache: Cache, rows: Sequence[int]) -> None:
        import torch

        self.packed, self.cache, self.rows = packed, cache, rows
        device = packed.group.device
        count = int(packed.group.max()) + 1
        by_group = [torch.nonzero(packed.group == g)[:, 0] for g in range(count)]
        self.index = []
        for segment, owner in enumerate(packed.owner.tolist()):
            own = by_group[owner]
            of = packed.segment[own]
            self.index.append(own[(of == -1) | (of == segment)].to(device))


def read(call: Call, layout: Reading) -> torch.Tensor:
    """Attention of a packed pass, ``gather``'s, that stores what it reads.

    Raises:
        TypeError: a model whose layers bear no number.
    """
    if call.layer is None:
        raise TypeError("attention without the number of its layer")
    layout.cache.place(call.layer, layout.rows, layout.index, call)
    return gather(call, layout.packed)


def go_on(call: Call, cache: Cache) -> torch.Tensor:
    """Attention of the next tokens of every row, (R, W, heads, dim), to all of the row.

    Raises:
        TypeError: a model whose layers bear no number.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    if call.layer is None:
        raise TypeError("attention without the number of its layer")
    keys, values = cache.layers[call.layer]
    rows = torch.arange(len(keys), device=keys.device)[:, None]
    keys[rows, :, cache.index] = call.key.transpose(1, 2).to(keys.dtype)
    values[rows, :, cache.index] = call.value.transpose(1, 2).to(values.dtype)
    n, heads, width, dim = call.query.shape
    kinds, seen = keys.shape[1], cache.mask.shape[-1]
    # Query heads that share a key head become rows of it: no kernel has to repeat the keys.
    times = heads // kinds
    queries = call.query.reshape(n, kinds, times * width, dim)
    out = sdpa(
        queries.to(keys.dtype),
        keys[:, :, :seen],
        values[:, :, :seen],
        attn_mask=cache.added(times, call.window, keys.dtype),
        scale=call.scaling,
    )
    return out.reshape(n, heads, width, -1).transpose(1, 2).to(call.value.dtype)


class Decoder:
    """Rows of one model that are read and gone on with.

    Args:
        model: a causal language model in evaluation mode; gradients must be off.
        rows: most rows at once.
        room: tokens that rows are expected to have in the end; more are made room for.
    """

    def __init__(self, model: Any, rows: int, room: int) -> None:
        self.model = model
        self.cache = Cache(rows, room)

    @property
    def device(self) -> Any:
        """Where the model is."""
        return next(self.model.parameters()).device

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts into rows, what they begin with alike once.

        Args:
            rows: numbers of free rows.
            prompts: token ids of one prompt a row.

        Returns:
            (rows, V) logits of the token behind each prompt.
        """
        import torch

        order, groups = shared(prompts)
        packed = pack(groups).to(self.device)
        self.cache.grow(max(map(len, prompts)))
        layout = Reading(packed, self.cache, [rows[i] for i in order])
        with using(self.model, READ, read), exact_head(self.model):
            out = self.model(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                use_cache=False,
                logits_to_keep=packed.slots,
                layout=layout,
            )
        for row, prompt in zip(rows, prompts, strict=True):
            self.cache.lengths[row] = len(prompt)
        back = torch.tensor(order).argsort()
        logits: torch.Tensor = out.logits[0][back.to(out.logits.device)]
        return logits

    def advance(self, chunks: Sequence[Sequence[int]], kept: int) -> torch.Tensor:
        """Read the next tokens of every row; none for rows that are free.

        Args:
            chunks: token ids, one sequence a row; they count only once ``accept`` says so.
            kept: of how many tokens, at most, the logits are wanted.

        Returns:
            (rows, kept, V) logits behind the last tokens of each chunk, which stand at the end.
        """
        import torch

        cache = self.cache
        width = max(map(len, chunks))
        most = max(n + len(c) for n, c in zip(cache.lengths, chunks, strict=True))
        cache.grow(most)
        ids, index, positions = [], [], []
        for length, chunk in zip(cache.lengths, chunks, strict=True):
            pad = width - len(chunk)
            places = list(range(length, length + len(chunk)))
            ids.append([0] * pad + list(chunk))
            index.append([cache.room] * pad + places)
            positions.append([0] * pad + places)
        device = self.device
        stands = torch.tensor(positions, device=device)
        seen = torch.arange(most, device=device) <= stands[:, None, :, None]
        cache.begin(torch.tensor(index, device=device), stands, seen)
        with using(self.model, GO_ON, go_on), exact_head(self.model):
            out = self.model(
                input_ids=torch.tensor(ids, device=device),
                position_ids=stands,
                use_cache=False,
                logits_to_keep=kept,
                layout=cache,
            )
        logits: torch.Tensor = out.logits
        return logits

    def accept(self, row: int, count: int) -> None:
        """The first ``count`` tokens of a row's last chunk are part of it."""
        self.cache.lengths[row] += count

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        self.cache.keep(rows)


def shared(prompts: Sequence[Sequence[int]]) -> tuple[list[int], list[Encoded]]:
    """Prompts that begin alike as groups, for ``pack``.

    Returns:
        order: numbers of the prompts in the order in which the segments stand.
        groups: for each group the shared tokens and the rest of each prompt, at least one token.
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    groups: list[tuple[list[int], list[list[int]]]] = []
    members: list[list[int]] = []
    for i in order:
        ids = list(prompts[i])
        if groups:
            prefix = groups[-1][0]
            same = alike(prefix, ids[:-1])
            known = len(members[-1])
            # Worth it where fewer tokens are computed: the others get longer by what is cut off.
            lost = (len(prefix) - same) * (known if known > 1 else 0)
            if same >= max(LEAST_SHARED, LEAST_SHARE * len(ids)) and same > lost:
                rest = [[*prefix[same:], *tail] for tail in groups[-1][1]]
                groups[-1] = (prefix[:same], [*rest, ids[same:]])
                members[-1].append(i)
                continue
        groups.append((ids[:-1], [ids[-1:]]))
        members.append([i])
    return [i for group in members for i in group], groups  # type: ignore[return-value]


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def agrees(model: Any) -> bool:
    """Whether reading and going on give a model's own log-probabilities, on a few tokens.

    As for packed passes, the error is held against what the context changes at all. The model must
    be in evaluation mode, gradients off.
    """
    import torch

    shared_start = [5, 9, 14, 20, 7, 11, 3, 8, 6, 12, 4, 2, 9, 31, 17, 22, 19]
    prompts = [[*shared_start, 5, 40, 7], [*shared_start, 33, 8], [5, 21, 8]]
    first, second = [[30, 33, 41], [40], []], [[34], [33, 2], [30, 33]]
    try:
        decoder = Decoder(model, 3, 8)
        decoder.start([2, 0, 1], [prompts[2], prompts[0], prompts[1]])
        decoder.advance(first, 2)
        for row, taken in enumerate((2, 1, 0)):
            decoder.accept(row, taken)
        got = decoder.advance(second, 1)[:, -1].float().log_softmax(-1)
        kept = [chunk[:n] for chunk, n in zip(first, (2, 1, 0), strict=True)]
        rows = [p + a + b for p, a, b in zip(prompts, kept, second, strict=True)]
        wanted = alone(model, rows)
        allowed = tolerance(model, rows, wanted)
    except (TypeError, RuntimeError, ValueError, AttributeError, KeyError) as error:
        logger.info("decoding in place does not run here: %s", error)
        return False
    off = relative_error(got, wanted)
    logger.info("decoding in place is off by %.2g of %.2g", off, allowed)
    return bool(torch.isfinite(got).all()) and off <= allowed
