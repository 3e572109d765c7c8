"""How small a difference a paired comparison can find, and how many queries a difference needs.

By the power of the paired t-test (noncentral t distribution; Cohen, 1988), from the spread of the
per-query differences alone. A randomisation test finds about as much, as
``benchmarks/statistics_check.py`` measures. Tests and intervals are ``stats``.
"""

from __future__ import annotations

import numpy as np
from scipy.special import nctdtr, nctdtrinc, stdtrit

from rank_rl.bench.stats import Values

MOST_QUERIES = 10_000_000


def minimal_difference(
    differences: Values, *, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest true mean difference that these queries show as significant so often.

    A smaller difference may exist and be missed: a comparison that is not significant says that the
    difference is hardly larger than this, not that there is none.

    Args:
        differences: per query, of two systems.
        power: how often the difference is found.
        alpha: the p below which it counts as found.

    Returns:
        The difference in the unit of the metric; None for fewer than two queries and for
        differences that are all equal, whose spread is not known.
    """
    data = np.asarray(differences, dtype=float)
    if data.size < 2 or np.ptp(data) <= 1e-12:
        return None
    return detectable(float(data.std(ddof=1)), data.size, power=power, alpha=alpha)


def detectable(spread: float, queries: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true mean difference found with ``power`` on so many queries.

    Args:
        spread: standard deviation of the per-query differences, e.g. of an earlier comparison.
        queries: how many there are or will be, 2 or more.
        power, alpha: as for ``minimal_difference``.

    Raises:
        ValueError: fewer than 2 queries, or shares outside 0 and 1.
    """
    if queries < 2 or not 0 < alpha < power < 1:
        raise ValueError("needs 2 queries or more, and 0 < alpha < power < 1")
    freedom = queries - 1
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    return float(nctdtrinc(freedom, 1 - power, critical)) * spread / queries**0.5


def queries_needed(
    spread: float, difference: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Fewest queries on which a true mean difference is found with ``power``: for planning.

    Args:
        spread: as for ``detectable``.
        difference: the mean difference that should be found, in either direction.
        power, alpha: as for ``minimal_difference``.

    Raises:
        ValueError: a difference of 0, or one that ten million queries would not show.
    """
    wanted = abs(difference)
    if wanted == 0 or detectable(spread, MOST_QUERIES, power=power, alpha=alpha) > wanted:
        raise ValueError(f"no number of queries shows a difference of {difference:g}")
    few, many = 1, MOST_QUERIES
    while many - few > 1:
        middle = (few + many) // 2
        enough = detectable(spread, middle, power=power, alpha=alpha) <= wanted
        few, many = (few, middle) if enough else (middle, many)
    return many


def chance(difference: float, spread: float, queries: int, *, alpha: float = 0.05) -> float:
    """How often a true mean difference is found on so many queries: the power, 0 to 1.

    Raises:
        ValueError: fewer than 2 queries, or no spread.
    """
    if queries < 2 or spread <= 0:
        raise ValueError("needs 2 queries or more and a spread above 0")
    freedom = queries - 1
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    shift = abs(difference) * queries**0.5 / spread
    return float(1 - nctdtr(freedom, shift, critical) + nctdtr(freedom, shift, -critical))
