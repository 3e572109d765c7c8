"""Statistics over per-query values: intervals, paired tests, correction. No ranking here.

All functions are pure and take their seed; the same values give the same numbers anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rank_rl.seeds import derive

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Values, *, samples: int = 10000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean with its percentile bootstrap interval over queries (Efron, 1979).

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no values")
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    means = np.concatenate(
        [data[rng.integers(0, data.size, (n, data.size))].mean(1) for n in _chunks(samples)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(data.mean()), low=float(low), high=float(high))


def difference(first: Values, second: Values, *, samples: int = 10000, seed: int = 0) -> Interval:
    """``second - first``, paired by position, with its bootstrap interval."""
    return bootstrap(_paired(first, second), samples=samples, seed=seed)


def randomisation_test(
    first: Values, second: Values, *, samples: int = 10000, seed: int = 0
) -> float:
    """Two-sided p of a paired randomisation test on the mean difference (Smucker et al., 2007).

    Signs of the differences are drawn ``samples`` times; the observed assignment counts as one
    more, so that p is never 0.
    """
    data = _paired(first, second)
    rng = np.random.default_rng(derive(seed, "randomisation"))
    observed = abs(data.sum())
    # Sums in another order differ in the last bits; without slack equal ones would be missed.
    observed -= 1e-9 * max(1.0, float(observed))
    extreme = 0
    for n in _chunks(samples):
        signs = rng.integers(0, 2, (n, data.size)) * 2 - 1
        extreme += int((np.abs(signs @ data) >= observed).sum())
    return (extreme + 1) / (samples + 1)


def holm(pvalues: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): adjusted p-values, in the order given."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, name in enumerate(sorted(pvalues, key=pvalues.__getitem__)):
        highest = max(highest, min(1.0, (len(pvalues) - i) * pvalues[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in pvalues}


def _paired(first: Values, second: Values) -> NDArray[np.float64]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"{a.size} values against {b.size}: a paired comparison needs pairs")
    return np.asarray(b - a)


def _chunks(samples: int, size: int = 1000) -> list[int]:
    """Sample counts of chunks, so that memory does not grow with the number of samples."""
    return [min(size, samples - start) for start in range(0, samples, size)]
