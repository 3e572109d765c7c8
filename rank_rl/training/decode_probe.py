"""Times of one layer while answers are generated, measured as ``probe`` measures training.

The steps are those of shared decoding; weights of the other layers are stood for by as many bytes.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from rank_rl.generation.group_decode import Drawing, GroupDecoder
from rank_rl.models.loading import cast_once
from rank_rl.training.probe import Probe
from rank_rl.training.workload import Generation

STEPS = 6
ROWS = 64  # most answers decoded at once
EVICT = 1 << 27  # most numbers read between steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What generation takes.

    Attributes:
        prefill: seconds of a layer a prompt token.
        step: seconds of a layer a step of all rows.
        rest: seconds a step outside the layers: projection and drawing.
        cache: bytes of a layer's keys and values a token.
    """

    prefill: float
    step: float
    rest: float
    cache: float


def decoding(probe: Probe, made: Generation, *, others: int) -> Decoded:
    """Measure prefill and steps of a generation batch.

    Args:
        probe: a layer of the model.
        made: the answers.
        others: numbers in the matrices of all other layers: as many bytes are read between steps,
            so that caches hold no more of this layer than in the whole model.
    """
    model, device = probe.model, probe.device
    length, rows = max(2, round(statistics.fmean(made.prompts))), min(made.rows, ROWS)
    prompts = max(1, rows // made.group) if made.shared else rows
    ids = torch.randint(0, probe.built, (length,)).tolist()
    width = 4 if probe.autocast is None else 2
    waste = torch.zeros(min(others * width // 4, EVICT), device=device)
    totals, layers = [], []
    model.eval()
    with torch.no_grad(), cast_once(model), probe.mixed(), watched(probe) as spent:
        model(input_ids=torch.tensor([ids[:8]], device=device))
        one = GroupDecoder(model, [ids], [0]).cache.prefix[0][0]
        prefill = spent[-1] / length
        owners = [i * prompts // rows for i in range(rows)]
        decoder = GroupDecoder(model, [ids[:2]] * prompts, owners)
        decoder.cache.prefix, decoder.sizes = [[one] * prompts], [length] * prompts
        tokens = torch.ones(rows, dtype=torch.long, device=device)
        for _ in range(STEPS):
            waste.sum()
            begun = probe.now()
            decoder.advance(tokens)
            totals.append(probe.now() - begun)
            layers.append(spent[-1])
    model.train()
    step = statistics.median(layers[1:])
    rest = max(0.0, statistics.median(totals[1:]) - step) * probe.vocabulary / probe.built
    cache = sum(x[:, 0].numel() * x.element_size() for x in one)
    return Decoded(
        prefill=prefill, step=step, rest=rest + _drawing(probe, rows), cache=float(cache)
    )


def _drawing(probe: Probe, rows: int) -> float:
    """Seconds to draw a token for every row."""
    logits = torch.randn(rows, probe.vocabulary, device=probe.device)
    uniform = torch.rand(rows, dtype=torch.float64)
    return probe.timed(lambda: Drawing()(logits, uniform).tolist())


@contextlib.contextmanager
def watched(probe: Probe) -> Iterator[list[float]]:
    """The seconds of every pass through the layer."""
    spent: list[float] = []
    started = 0.0

    def before(*_: Any) -> None:
        nonlocal started
        started = probe.now()

    def after(*_: Any) -> None:
        spent.append(probe.now() - started)

    layer = probe.decoder.layers[0]
    hooks = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()
