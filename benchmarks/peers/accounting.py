"""The arithmetic of ``benchmarks/rerank.py``: what has to be computed, and how rates compare.

The floor of a block is the least time in which this machine could do it: every distinct token once
(``distinct``: what several prompts begin with is shared), in matrix products at the best rate that
was measured for the model's own shapes. Normalisation, softmax, tokenising and Python count as
nothing, so that no system reaches it.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl.seeds import rng


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a token costs in a model.

    Attributes:
        linear: (inputs, outputs) of every matrix that all tokens go through.
        head: (inputs, outputs) of the matrix that only written tokens and labels go through.
        layers, width: attention layers, and heads times their size.
        shared: whether prompts that begin alike may share (a causal model).
    """

    linear: tuple[tuple[int, int], ...]
    head: tuple[int, int]
    layers: int
    width: int
    shared: bool = True

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with."""
        return sum(a * b for a, b in self.linear)


def distinct(rows: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Tokens that a tree of all rows holds, and the positions that these see, themselves included.

    >>> distinct([[1, 2, 3], [1, 2, 4], [1, 2, 3]])
    (4, 9)
    """
    tokens = seen = 0
    before: Sequence[int] = ()
    for row in sorted(map(tuple, rows)):
        pairs = zip(before, row, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(row)))
        tokens += len(row) - same
        seen += _places(len(row)) - _places(same)
        before = row
    return tokens, seen


def separate(rows: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The same where every token sees its whole row and nothing is shared but equal rows."""
    kept = {tuple(row) for row in rows}
    return sum(map(len, kept)), sum(len(row) ** 2 for row in kept)


def _places(length: int) -> int:
    return length * (length + 1) // 2


def floor_flops(shape: Shape, rows: Sequence[Sequence[int]], written: int) -> tuple[int, int]:
    """Tokens and floating point operations that a block cannot do without.

    Two for each weight and token, four for each position seen, layer and unit of width, two for
    each weight of the head and token written or label read.
    """
    tokens, seen = distinct(rows) if shape.shared else separate(rows)
    attention = 4 * shape.layers * shape.width * seen
    head = 2 * shape.head[0] * shape.head[1] * written
    return tokens, 2 * shape.weights * tokens + attention + head


def matrix_rate(
    shape: Shape, dtype: str = "float32", *, rows: int = 1024, rounds: int = 20
) -> float:
    """Best floating point operations a second over the matrices of a model."""
    import torch

    sizes = sorted({*shape.linear})
    counts = [shape.linear.count(size) for size in sizes]
    kind = getattr(torch, dtype)
    weights = [(torch.randn(b, a, dtype=kind), torch.randn(rows, a, dtype=kind)) for a, b in sizes]
    seconds = 0.0
    for (weight, x), count in zip(weights, counts, strict=True):
        best = float("inf")
        for _ in range(rounds + 1):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best = min(best, time.perf_counter() - started)
        seconds += best * count
    return 2 * shape.weights * rows / seconds


def shape_of(folder: str, *, encoder: bool = False) -> Shape:
    """The shape of a saved model, from its configuration."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    linear = tuple(
        (m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear)
    )
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        linear=linear,
        head=(config.hidden_size, 1 if encoder else config.vocab_size),
        layers=config.num_hidden_layers,
        width=heads * size,
        shared=not encoder,
    )


def ratio(
    ours: Sequence[float], theirs: Sequence[float], *, samples: int = 10000
) -> dict[str, Any]:
    """How many times as fast ours is: the median over paired blocks, with a 95 % interval.

    Args:
        ours, theirs: seconds of the same blocks.
        samples: bootstrap resamples of the blocks; the interval is theirs by percentiles.
    """
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    random = rng(7, "rerank_speed", *(round(r, 6) for r in ratios))
    drawn = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(samples))
    low, high = drawn[int(0.025 * samples)], drawn[int(0.975 * samples) - 1]
    return {"median": statistics.median(ratios), "low": low, "high": high, "blocks": len(ratios)}


def summary(
    blocks: Sequence[Mapping[str, Any]], queries: int, shape: Shape, rate: float
) -> dict[str, Any]:
    """What a system's blocks come to.

    Args:
        blocks: replies of its worker: ``seconds``, ``rows``, ``written``, ``calls`` …
        queries: how many each block has.
        shape, rate: of the model and the machine.
    """
    seconds = [block["seconds"] for block in blocks]
    floors = [floor_flops(shape, block["rows"], block["written"]) for block in blocks]
    total = queries * len(blocks)
    least = [flops / rate for _, flops in floors]
    read = sum(len(row) for block in blocks for row in block["rows"])
    return {
        "seconds": [round(s, 4) for s in seconds],
        "queries_per_second": total / sum(seconds),
        "tokens_per_second": read / sum(seconds),
        "calls_per_query": sum(block["calls"] for block in blocks) / total,
        "tokens_per_query": read / total,
        "computed_per_query": sum(block["computed"] for block in blocks) / total,
        "written_per_query": sum(block["written"] for block in blocks) / total,
        "distinct_per_query": sum(tokens for tokens, _ in floors) / total,
        "floor_seconds_per_query": sum(least) / total,
        "share_of_floor": sum(least) / sum(seconds),
    }


def agreement(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How many queries are ranked alike, and how many generated answers are the same.

    Answers are compared where both systems asked as many.
    """
    pairs = [
        (a, b)
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x["rankings"], y["rankings"], strict=True)
    ]
    found: dict[str, Any] = {
        "same_rankings": sum(a == b for a, b in pairs),
        "same_first": sum(a[0] == b[0] for a, b in pairs),
        "rankings": len(pairs),
    }
    mine, yours = ([t for block in blocks for t in block["texts"]] for blocks in (ours, theirs))
    if mine and len(mine) == len(yours):
        # Systems ask in different orders: what counts is how many answers both gave.
        found |= {"same_texts": (Counter(mine) & Counter(yours)).total(), "texts": len(mine)}
    return found
