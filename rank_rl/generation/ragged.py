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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rank_rl.models.attention import Call, using
from rank_rl.models.packed_attention import alone, exact_head, gather, relative_error, tolerance
from rank_rl.models.packing import Encoded, PackedBatch, pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
# Tokens that may follow, each with the number of the one before it; -1 is what was read.
Tree: TypeAlias = Sequence[tuple[int, int]]
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
        self.rows: Any = None  # (R,) numbers of the rows of the pass
        self.whole = True  # whether these are all rows in their order
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

    def begin(self, rows: Any, index: Any, positions: Any, mask: Any) -> None:
        """Say where the tokens of the next pass go and stand, and what they see."""
        self.rows, self.index, self.positions, self.mask = rows, index, positions, mask
        self.whole = rows.tolist() == list(range(len(self.lengths)))
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
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    if call.layer is None:
        raise TypeError("attention without the number of its layer")
    keys, values = cache.layers[call.layer]
    rows = cache.rows[:, None]
    keys[rows, :, cache.index] = call.key.transpose(1, 2).to(keys.dtype)
    values[rows, :, cache.index] = call.value.transpose(1, 2).to(values.dtype)
    n, heads, width, dim = call.query.shape
    kinds, seen = keys.shape[1], cache.mask.shape[-1]
    if not cache.whole:
        keys, values = keys[cache.rows, :, :seen], values[cache.rows, :, :seen]
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


@dataclass(slots=True, kw_only=True)
class _Laid:
    """Tokens of a row in a pass: where they go, their positions, and what they see.

    ``before``: all places below it are seen; ``path``: places that a token of the tree sees
    besides, by its number.
    """

    ids: list[int]
    places: list[int]
    stands: list[int]
    before: list[int]
    path: dict[int, list[int]]


def _lay(length: int, chunk: Sequence[int], tree: Tree) -> _Laid:
    """A chunk and the tree behind it, for a row of so many tokens."""
    end = length + len(chunk)
    places = list(range(length, end + len(tree)))
    stands = list(range(length, end))
    before = [place + 1 for place in stands]
    path: dict[int, list[int]] = {}
    for number, (_, parent) in enumerate(tree):
        above = path[len(chunk) + parent] if parent >= 0 else []
        path[len(chunk) + number] = [*above, end + number]
        stands.append(end + len(above))
        before.append(end)
    ids = [*chunk, *(token for token, _ in tree)]
    return _Laid(ids=ids, places=places, stands=stands, before=before, path=path)


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
        return self._pass(range(len(chunks)), chunks, None, kept)

    def look(
        self, rows: Sequence[int], chunks: Sequence[Sequence[int]], trees: Sequence[Tree]
    ) -> list[torch.Tensor]:
        """Read the next tokens of some rows, and try out what may follow them.

        Args:
            rows: numbers of rows.
            chunks: token ids, at least one a row; they count only once ``accept`` says so.
            trees: what may follow each chunk; it never counts.

        Returns:
            (1 + tree, V) logits behind each chunk and behind each token of its tree.
        """
        kept = 1 + max(map(len, trees))
        logits = self._pass(rows, chunks, trees, kept)
        return [row[kept - 1 - len(tree) :] for row, tree in zip(logits, trees, strict=True)]

    def _pass(
        self,
        rows: Sequence[int],
        chunks: Sequence[Sequence[int]],
        trees: Sequence[Tree] | None,
        kept: int,
    ) -> torch.Tensor:
        """(R, kept, V) logits; chunks and trees stand at the end of their rows."""
        # What a tree tries is compared; what is written token by token cannot wait for that.
        head = exact_head(self.model, convert=trees is not None)
        import torch

        cache, device = self.cache, self.device
        lengths = [cache.lengths[row] for row in rows]
        laid = list(map(_lay, lengths, chunks, trees or [()] * len(chunks)))
        width = max(len(part.ids) for part in laid)
        most = max((part.places[-1] + 1 for part in laid if part.ids), default=1)
        cache.grow(most)
        pads = [width - len(part.ids) for part in laid]
        table = [
            ([0] * p + x.ids, [cache.room] * p + x.places, [0] * p + x.stands, [0] * p + x.before)
            for p, x in zip(pads, laid, strict=True)
        ]
        ids, index, stands, before = (
            torch.tensor(t, device=device) for t in zip(*table, strict=True)
        )
        # A token sees what stands before its tree, the tokens that lead to it, and itself.
        seen = torch.arange(most, device=device) < before[:, None, :, None]
        for row, (pad, part) in enumerate(zip(pads, laid, strict=True)):
            for own, places in part.path.items():
                seen[row, 0, pad + own, places] = True
        cache.begin(torch.tensor(list(rows), device=device), index, stands, seen)
        # By number, not as a slice: the head would copy itself for every row of a slice in bf16.
        wanted = torch.arange(max(0, width - kept), width, device=device)
        with using(self.model, GO_ON, go_on), head:
            out = self.model(
                input_ids=ids,
                position_ids=stands,
                use_cache=False,
                logits_to_keep=wanted,
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
