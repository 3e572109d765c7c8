"""Paired comparisons of systems: every one with every baseline, and the named steps.

Contract: differences are of per-query values, means over seeds, with an interval over queries (and
seeds, where a system has several) and the p-values of a randomisation test and of a t-test; Holm's
correction runs over all systems that are compared with the same baseline in the same metric. Steps
are not corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rank_rl.bench import stats
from rank_rl.bench.measures import PerQuery

BySeed = Mapping[str, Sequence[PerQuery]]  # system → values with each seed


class Compares(Protocol):
    """What says which systems are compared: ``merge.Plan``."""

    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def baselines(self) -> Sequence[str]: ...
    @property
    def steps(self) -> Sequence[tuple[str, str]]: ...
    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...


def comparisons(plan: Compares, values: BySeed) -> list[dict[str, Any]]:
    """Every system against every baseline, Holm's correction within metric and baseline."""
    rows: list[dict[str, Any]] = []
    for metric in plan.metrics:
        for baseline in plan.baselines:
            others = [name for name in values if name != baseline]
            found = {o: compare(plan, values, metric, baseline, o) for o in others}
            adjusted = stats.holm({o: row["p"] for o, row in found.items()})
            rows += [
                {"metric": metric, "baseline": baseline, "system": o, **row, "p_holm": adjusted[o]}
                for o, row in found.items()
            ]
    return rows


def steps(plan: Compares, values: BySeed) -> list[dict[str, Any]]:
    """What each stage added: differences of named pairs, uncorrected."""
    return [
        {"metric": m, "from": a, "to": b, **compare(plan, values, m, a, b)}
        for m in plan.metrics
        for a, b in plan.steps
    ]


def compare(
    plan: Compares, values: BySeed, metric: str, first: str, second: str
) -> dict[str, float]:
    """``second - first`` in one metric: difference, interval, p of both tests."""
    a, b = ([list(by_metric[metric].values()) for by_metric in values[n]] for n in (first, second))
    found = stats.seeds_difference(a, b, samples=plan.samples, seed=plan.seed)
    means = _over_seeds(a), _over_seeds(b)
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": stats.randomisation_test(*means, samples=plan.samples, seed=plan.seed),
        "p_t": stats.t_test(*means),
    }


def _over_seeds(table: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*table, strict=True)]
