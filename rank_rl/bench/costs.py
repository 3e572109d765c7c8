"""What a system costs: seconds a query, money and energy for a thousand queries.

Contract: plain functions of what was counted while asking; only ``latency`` asks again, and only
``energy`` reads sensors. A number that cannot be known is None, never a guess.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rank_rl.records import RankingTask
from rank_rl.registry import need
from rank_rl.specs import PriceSpec

log = logging.getLogger(__name__)

BATCHED = "batched share"
ALONE = "one at a time"


def share_latency(costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Median and 95th percentile of a query's share of the batches that it was asked in.

    That is what a query costs where many are asked together. It says little about how long one
    user waits, which is ``latency``.

    Args:
        costs: query id → costs with ``seconds``.

    Returns:
        ``p50``, ``p95`` (seconds), ``mode`` and ``queries``; None without any seconds.
    """
    seconds = [cost["seconds"] for cost in costs.values() if "seconds" in cost]
    return _percentiles(seconds, BATCHED) if seconds else None


def latency(
    rank_one: Callable[[RankingTask], object], tasks: Sequence[RankingTask], n: int
) -> dict[str, Any] | None:
    """Seconds that the first ``n`` queries take when each is asked alone, after one unmeasured.

    The unmeasured one is another query where there is one, so that nothing of those that count
    has been computed before.

    Args:
        rank_one: ranks one task and returns when it is done.
        tasks: queries to choose from.
        n: how many are measured, at most.

    Returns:
        As ``share_latency``; None without queries.
    """
    measured = tasks[: max(0, n)]
    if not measured:
        return None
    rank_one(tasks[len(measured)] if len(tasks) > len(measured) else tasks[0])
    seconds = []
    for task in measured:
        started = time.perf_counter()
        rank_one(task)
        seconds.append(time.perf_counter() - started)
    return _percentiles(seconds, ALONE)


def _percentiles(seconds: Sequence[float], mode: str) -> dict[str, Any]:
    """Quantiles, linear between neighbours; of few queries the 95th is near the slowest."""
    p50, p95 = np.quantile(np.asarray(seconds, dtype=float), [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "mode": mode, "queries": len(seconds)}


def price_per_1000(
    costs: Mapping[str, float],
    *,
    price: PriceSpec | None,
    gpu_hour: float | None,
    currency: str,
) -> dict[str, Any] | None:
    """What a thousand queries cost: by tokens where they have a price, else by machine hours.

    Args:
        costs: means a query, with ``prompt_tokens`` and ``completion_tokens``, or ``seconds``.
        price: of a million tokens; None where tokens have none.
        gpu_hour: price of an hour of the machine; None for a system that runs elsewhere.
        currency: what both are in.

    Returns:
        ``per_1000_queries``, ``basis`` (``tokens`` or ``gpu hours``) and ``currency``; None where
        neither price, or what it is for, is known.
    """
    if price is not None and {"prompt_tokens", "completion_tokens"} <= costs.keys():
        read, written = costs["prompt_tokens"], costs["completion_tokens"]
        amount, basis = (read * price.input + written * price.output) / 1000, "tokens"
    elif gpu_hour is not None and "seconds" in costs:
        amount, basis = costs["seconds"] / 3600 * gpu_hour * 1000, "gpu hours"
    else:
        return None
    return {"per_1000_queries": amount, "basis": basis, "currency": currency}


def energy_per_1000(kwh: float | None, queries: int) -> dict[str, float] | None:
    """Energy of a thousand queries from that of ``queries`` of them; None when not measured."""
    if kwh is None or queries < 1:
        return None
    return {"kwh_per_1000_queries": kwh / queries * 1000}


@dataclass(slots=True)
class Meter:
    """What ``energy`` measured, filled in when its block ends.

    Attributes:
        kwh: energy of CPU, memory and GPUs; None when nothing could be measured.
    """

    kwh: float | None = None


def check_energy() -> None:
    """Refuse to measure energy without codecarbon, before anything is asked.

    Raises:
        RecipeError: it is not installed.
    """
    need("codecarbon", "energy")


@contextmanager
def energy(wanted: bool = True) -> Iterator[Meter]:
    """Measure the energy that a block takes with codecarbon, offline and without files.

    GPUs are read from their own counters, the CPU from its counters where the system shows them;
    elsewhere codecarbon estimates the CPU from its load, and memory always. CPU and memory are
    those of this process where an estimate can tell. Blocks shorter than a tenth of a second are
    below what is counted.

    Args:
        wanted: False measures nothing.

    Yields:
        The meter; its ``kwh`` is there after the block, None where a sensor failed, of which a
        warning is logged.

    Raises:
        RecipeError: codecarbon is not installed.
    """
    meter = Meter()
    if not wanted:
        yield meter
        return
    check_energy()
    with tempfile.TemporaryDirectory() as folder:
        tracker = _quietly(lambda: _started(folder))
        try:
            yield meter
        finally:
            if tracker is not None:
                meter.kwh = _quietly(lambda: _stopped(tracker))
    if meter.kwh is None:
        log.warning("energy could not be measured: codecarbon found no sensor that it can read")


def _started(folder: str) -> Any:
    """A running tracker that writes and sends nothing, whatever the user's own settings are."""
    codecarbon = need("codecarbon", "energy")
    # Importing it sets a level, and its constructor speaks before it has read log_level.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker = codecarbon.OfflineEmissionsTracker(
        output_methods=[],
        emissions_endpoint=None,
        electricitymaps_api_token=None,
        output_dir=folder,
        tracking_mode="process",
        log_level="critical",
        allow_multiple_runs=True,  # else it takes over the signals of this process
        measure_power_secs=5,
        # Energy alone is asked for, so that no country has to be known.
        country_iso_code=None,
        cloud_provider=None,
        cloud_region=None,
        force_carbon_intensity_g_co2e_kwh=0.0,
    )
    tracker.start()
    return tracker


def _stopped(tracker: Any) -> float | None:
    """kWh of a tracker that is stopped now; None where it counted nothing."""
    tracker.stop()
    found = getattr(tracker, "final_emissions_data", None)
    kwh = float(found.energy_consumed) if found is not None else 0.0
    return kwh if math.isfinite(kwh) and kwh > 0 else None


def _quietly(read: Callable[[], Any]) -> Any:
    """What ``read`` returns; None with a warning where it fails."""
    try:
        return read()
    except Exception as error:  # a sensor must never end a benchmark
        log.warning("energy: %s: %s", type(error).__name__, error)
        return None
