"""What a comparison can find, against the definition of power and tables of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rank_rl.bench import power


def test_the_smallest_difference_has_the_power_that_defines_it():
    for n in (5, 15, 80, 1000):
        found = power.detectable(0.3, n)
        shift, critical = found * math.sqrt(n) / 0.3, scipy_stats.t.ppf(0.975, n - 1)
        assert scipy_stats.nct.sf(critical, n - 1, shift) == pytest.approx(0.8, abs=1e-4)
        assert power.chance(found, 0.3, n) == pytest.approx(0.8, abs=1e-4)
    # With many queries it is the normal formula: (1.96 + 0.84) standard errors.
    assert power.detectable(1.0, 10**6) == pytest.approx(2.8016e-3, rel=1e-3)
    assert power.detectable(0.3, 80, power=0.9) > power.detectable(0.3, 80)
    assert power.detectable(0.3, 80, alpha=0.01) > power.detectable(0.3, 80)


def test_of_differences():
    gaps = [0.0, 0.3, -0.1, 0.2, 0.0, 0.4, -0.2, 0.1]
    assert power.minimal_difference(gaps) == pytest.approx(
        power.detectable(float(np.std(gaps, ddof=1)), 8)
    )
    # Only the spread counts, not how large the difference is.
    assert power.minimal_difference([g + 0.5 for g in gaps]) == pytest.approx(
        power.minimal_difference(gaps)
    )
    assert power.minimal_difference([0.2] * 9) is None
    assert power.minimal_difference([0.2]) is None
    assert power.minimal_difference([]) is None


def test_planning():
    # Cohen's tables: an effect of 0.5 standard deviations needs 34 pairs for 80 %, one of 0.2 199.
    assert power.queries_needed(1.0, 0.5) == 34
    assert power.queries_needed(0.3, -0.06) == 199
    n = power.queries_needed(0.25, 0.02)
    assert power.detectable(0.25, n) <= 0.02 < power.detectable(0.25, n - 1)
    assert power.chance(0.02, 0.25, n) == pytest.approx(0.8, abs=1e-3)
    assert power.chance(0.0, 0.25, 100) == pytest.approx(0.05)
    assert power.queries_needed(0.1, 5.0) == 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda: power.queries_needed(0.3, 0.0),
        lambda: power.queries_needed(0.3, 1e-9),
        lambda: power.detectable(0.3, 1),
        lambda: power.detectable(0.3, 10, power=1.0),
        lambda: power.detectable(0.3, 10, power=0.01),
        lambda: power.chance(0.1, 0.0, 10),
    ],
)
def test_what_cannot_be_answered(ask):
    with pytest.raises(ValueError):
        ask()
