"""Statistics over per-query values: intervals, paired tests, correction, seeds. No ranking here.

All functions are pure and take their seed; the same values give the same numbers anywhere. What
they hold in simulations, coverage and false positives, is measured by
``benchmarks/statistics_check.py`` and written in docs/statistics.md. How small a difference can be
found is ``power``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from rank_rl.seeds import derive

Values = Sequence[float] | NDArray[np.float64]
Bounds = tuple[float, float]
METRIC: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
NOISE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Values,
    *,
    samples: int = 10000,
    seed: int = 0,
    level: float = 0.95,
    bounds: Bounds | None = None,
) -> Interval:
    """Mean with its bootstrap interval over queries, corrected for few queries and for skewness.

    Each bound is the farther one of two: Student's t bound, and the quantile of the resampled means
    (Efron, 1979) at a level that is moved outwards as a normal quantile is by the t distribution
    (Hesterberg, 2015) and shifted by half of BCa's acceleration (Efron, 1987). The
    plain percentile interval covers too rarely with few queries, the t interval with skewed values;
    docs/statistics.md has the numbers. Values that are all equal, or one value alone, say nothing
    about the spread: the interval has no width then.

    Args:
        values: one a query.
        samples: how often queries are drawn anew.
        seed: of the drawing.
        level: share of such intervals that hold the true mean.
        bounds: the range that the mean cannot leave, ``METRIC`` for per-query metrics: the interval
            is cut there, which takes nothing from what it covers.

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no values")
    return _within(_interval(data, samples, seed, level), bounds)


def percentile(
    values: Values, *, samples: int = 10000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean with its plain percentile bootstrap interval (Efron, 1979), to compare with.

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no values")
    low, high = np.quantile(_means(data, samples, seed), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(data.mean()), low=float(low), high=float(high))


def difference(first: Values, second: Values, *, samples: int = 10000, seed: int = 0) -> Interval:
    """``second - first``, paired by position, with its interval as ``bootstrap`` gives it.

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    data = _paired(first, second)
    return _within(_interval(data, samples, seed, 0.95), _difference_bounds(first, second))


def randomisation_test(
    first: Values, second: Values, *, samples: int = 10000, seed: int = 0
) -> float:
    """Two-sided p of a paired randomisation test on the mean difference (Smucker et al., 2007).

    Queries without a difference do not matter to it. Where the others have at most ``samples``
    assignments of signs (13 queries for 10,000), all are counted and p is exact. Else ``samples``
    are drawn, and the observed one counts as one more, so that p is never 0.

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    data = _paired(first, second)
    data = data[data != 0]
    if not data.size:
        return 1.0
    observed = abs(data.sum())
    # Sums in another order differ in the last bits; without slack equal ones would be missed.
    observed -= 1e-9 * max(1.0, float(observed))
    if 2**data.size <= samples:
        # Other signs for all change no absolute sum: the first query keeps its own.
        numbers = np.arange(2 ** (data.size - 1))[:, None]
        signs = 1 - 2 * (numbers >> np.arange(data.size) & 1)
        return float((np.abs(signs @ data) >= observed).mean())
    rng = np.random.default_rng(derive(seed, "randomisation"))
    extreme, width = 0, (data.size + 7) // 8
    for n in _chunks(samples, data.size):
        drawn = np.frombuffer(rng.bytes(n * width), dtype=np.uint8).reshape(n, width)
        positive = np.unpackbits(drawn, axis=1, count=data.size)
        sums = 2 * (positive @ data) - data.sum()
        extreme += int((np.abs(sums) >= observed).sum())
    return (extreme + 1) / (samples + 1)


def t_test(first: Values, second: Values) -> float:
    """Two-sided p of the paired t-test (Student, 1908).

    Without any difference, and for a single query, p is 1. Where all differences are equal but not
    0, their spread is unknown and t has no value; p is then the least that a randomisation test
    can give, 2 to the power of 1 minus the number of queries.

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    data = _paired(first, second)
    n = data.size
    if n == 1 or not data.any():
        return 1.0
    if np.ptp(data) <= NOISE * np.abs(data).max():
        return float(2.0 ** (1 - n))
    t = abs(data.mean()) / (data.std(ddof=1) / math.sqrt(n))
    return float(2 * stdtr(n - 1, -t))


def holm(pvalues: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): adjusted p-values, in the order given."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, name in enumerate(sorted(pvalues, key=pvalues.__getitem__)):
        highest = max(highest, min(1.0, (len(pvalues) - i) * pvalues[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in pvalues}


def seed_spread(values_by_seed: Sequence[Values]) -> float | None:
    """Standard deviation between the means of the seeds (n - 1); None for fewer than two seeds."""
    if len(values_by_seed) < 2:
        return None
    return float(np.std([np.mean(values) for values in values_by_seed], ddof=1))


def seeds_interval(
    values_by_seed: Sequence[Values],
    *,
    samples: int = 10000,
    seed: int = 0,
    bounds: Bounds | None = None,
) -> Interval:
    """Mean over queries and seeds with an interval for other queries and other seeds.

    The interval over queries of the mean over seeds (``bootstrap``), widened by what the seeds add:
    the variance between their means beyond what chance in queries explains, in a model where
    queries and seeds are crossed and both drawn at random (Cornfield and Tukey, 1956). Both parts
    are multiplied by their own t quantile (Cochran, 1964): with few seeds the interval is wide, as
    two seeds say little about a third. With one seed it is the interval over queries.

    Args:
        values_by_seed: one list a seed, all over the same queries in the same order.
        samples, seed, bounds: as for ``bootstrap``.

    Raises:
        ValueError: no values, or lists that differ in length.
    """
    table = _table(values_by_seed)
    data = table.mean(0)
    found = _widened(_interval(data, samples, seed, 0.95), data, [table])
    return _within(found, bounds)


def seeds_difference(
    first: Sequence[Values], second: Sequence[Values], *, samples: int = 10000, seed: int = 0
) -> Interval:
    """``second - first`` of systems with one or more seeds each, for other queries and seeds.

    Queries are paired, seeds are not: the runs of one system are taken to be independent of those
    of the other, also where they bear the same numbers. Widened as in ``seeds_interval``. A test on
    the means over seeds (``randomisation_test``) speaks of these very runs instead: it asks whether
    their difference would be so large on queries that do not tell them apart.

    Raises:
        ValueError: no values, or lists that differ in length.
    """
    a, b = _table(first), _table(second)
    data = _paired(a.mean(0), b.mean(0))
    found = _widened(_interval(data, samples, seed, 0.95), data, [a, b])
    return _within(found, _difference_bounds(a, b))


def _interval(data: NDArray[np.float64], samples: int, seed: int, level: float) -> Interval:
    mean, n = float(data.mean()), data.size
    if n == 1 or np.ptp(data) == 0:
        return Interval(mean=mean, low=mean, high=mean)
    t = float(stdtrit(n - 1, (1 + level) / 2))
    half = t * float(data.std(ddof=1)) / math.sqrt(n)
    z = t * math.sqrt(n / (n - 1))  # resampled means spread less, by this factor
    centred = data - mean
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    levels = [float(ndtr(_shifted(side, acceleration / 2))) for side in (-z, z)]
    low, high = np.quantile(_means(data, samples, seed), levels)
    return Interval(mean=mean, low=min(float(low), mean - half), high=max(float(high), mean + half))


def _shifted(z: float, acceleration: float) -> float:
    """A normal quantile after BCa's acceleration, which turns over where it is too large."""
    slope = 1 - acceleration * z
    return z / slope if slope > 0 else math.copysign(math.inf, z)


def _means(data: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """Means of queries drawn anew."""
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    size = data.size
    small = np.uint16 if size < 2**16 else np.int64  # small numbers are drawn several times faster
    return np.concatenate(
        [
            data[rng.integers(0, size, (n, size), dtype=small)].mean(1)
            for n in _chunks(samples, size)
        ]
    )


def _widened(
    found: Interval, data: NDArray[np.float64], tables: Sequence[NDArray[np.float64]]
) -> Interval:
    """An interval over queries, widened by the variance between the seeds of each table."""
    added = sum(_seed_part(table) for table in tables if len(table) > 1)
    n = data.size
    own = 0.0 if n == 1 else float(data.var(ddof=1)) / n * float(stdtrit(n - 1, 0.975)) ** 2
    if own <= (1e-9 * float(np.abs(data).max())) ** 2:
        half = math.sqrt(added)
        return Interval(mean=found.mean, low=found.low - half, high=found.high + half)
    factor = math.sqrt(1 + added / own)
    return Interval(
        mean=found.mean,
        low=found.mean - factor * (found.mean - found.low),
        high=found.mean + factor * (found.high - found.mean),
    )


def _seed_part(table: NDArray[np.float64]) -> float:
    """Squared half-width that seeds add: their variance beyond what queries explain, by their t."""
    m, n = table.shape
    between = float(table.mean(1).var(ddof=1))
    by_chance = _residual(table) / n if n > 1 else 0.0
    return max(0.0, between - by_chance) / m * float(stdtrit(m - 1, 0.975)) ** 2


def _residual(table: NDArray[np.float64]) -> float:
    """Mean square of what neither query nor seed explains."""
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


def _table(values_by_seed: Sequence[Values]) -> NDArray[np.float64]:
    rows = [np.asarray(values, dtype=float) for values in values_by_seed]
    if not rows or rows[0].size == 0:
        raise ValueError("no values")
    if len({row.size for row in rows}) > 1:
        raise ValueError("seeds with different numbers of queries")
    return np.stack(rows)


def _within(found: Interval, bounds: Bounds | None) -> Interval:
    if bounds is None:
        return found
    low, high = max(found.low, bounds[0]), min(found.high, bounds[1])
    return Interval(mean=found.mean, low=low, high=high)


def _difference_bounds(first: Values, second: Values) -> Bounds | None:
    """Differences of metrics cannot leave -1 and 1; of other numbers nothing is known."""
    both = [np.asarray(values, dtype=float) for values in (first, second)]
    inside = all(v.min() >= METRIC[0] and v.max() <= METRIC[1] for v in both)
    return DIFFERENCE if inside else None


def _paired(first: Values, second: Values) -> NDArray[np.float64]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"{a.size} values against {b.size}: a paired comparison needs pairs")
    gap = np.asarray(b - a)
    # What the last bits of a mean over seeds differ by is no difference.
    gap[np.abs(gap) <= NOISE * max(1.0, float(np.abs(a).max()), float(np.abs(b).max()))] = 0.0
    return gap


def _chunks(samples: int, size: int, most: int = 2**16) -> list[int]:
    """Sample counts of chunks that hold ``most`` numbers, which stay in the processor's cache."""
    rows = max(1, most // size)
    return [min(rows, samples - start) for start in range(0, samples, rows)]
