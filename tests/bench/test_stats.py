"""Intervals and tests on numbers small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rank_rl.bench import stats


def test_holm_by_hand():
    adjusted = stats.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert stats.holm({"x": 0.7, "y": 0.6}) == {"x": 1.0, "y": 1.0}
    assert stats.holm({}) == {}


def test_randomisation_test_against_the_exact_distribution():
    # 5 differences of +1: of the 32 sign assignments 2 reach |sum| = 5.
    assert stats.randomisation_test([0.0] * 5, [1.0] * 5) == 2 / 32
    assert stats.randomisation_test([0.0] * 5, [1.0] * 5, samples=31) == pytest.approx(
        1 / 16, abs=0.1
    )
    # 0.1 + 0.2 - 0.3 in any order is the same sum, whatever the last bits say.
    assert stats.randomisation_test([0.3, 0.0, 0.0], [0.0, 0.1, 0.2], samples=500) == 1.0


def test_no_difference_is_no_evidence_and_p_is_never_zero():
    assert stats.randomisation_test([0.2, 0.4], [0.2, 0.4], samples=100) == 1.0
    assert stats.randomisation_test([0.0] * 60, [1.0] * 60, samples=100) == pytest.approx(1 / 101)


def test_few_queries_with_a_difference_are_counted_out():
    """Exact up to 2 ** n = samples, as scipy's exact permutation test; drawn from there on."""
    rng = np.random.default_rng(2)
    a, b = rng.random(9), rng.random(9) + 0.1
    exact = scipy_stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert stats.randomisation_test(a, b, samples=512) == pytest.approx(exact, abs=1e-12)
    assert stats.randomisation_test(a, b, samples=512, seed=1) == stats.randomisation_test(a, b)
    drawn = stats.randomisation_test(a, b, samples=511)
    assert drawn == pytest.approx(exact, abs=0.08) and (drawn * 512) % 1 == pytest.approx(0)
    # Queries without a difference change nothing: 9 of 100 that differ are still counted out.
    tied = np.zeros(91)
    assert stats.randomisation_test(np.r_[a, tied], np.r_[b, tied]) == pytest.approx(exact)
    assert stats.randomisation_test([0.5], [0.9]) == 1.0


def test_paired_t_test():
    a, b = [0.1, 0.5, 0.3, 0.9, 0.2], [0.4, 0.6, 0.2, 1.0, 0.7]
    expected = scipy_stats.ttest_rel(a, b).pvalue
    assert stats.t_test(a, b) == pytest.approx(expected) == pytest.approx(stats.t_test(b, a))
    assert stats.t_test(a, a) == 1.0
    assert stats.t_test([0.2], [0.9]) == 1.0
    # Constant differences have no spread; the signs of 6 queries agree by chance so often.
    constant = [0.1 + 0.7 * i for i in range(6)]
    assert stats.t_test(constant, [v + 0.3 for v in constant]) == 2 / 64
    assert stats.randomisation_test(constant, [v + 0.3 for v in constant]) == 2 / 64
    with pytest.raises(ValueError, match="needs pairs"):
        stats.t_test([0.1], [0.1, 0.2])


def test_what_the_last_bits_say_is_no_difference():
    values = np.random.default_rng(0).random(30)
    again = values + 1e-16 * np.arange(30)
    assert (values != again).any()
    assert stats.t_test(values, again) == stats.randomisation_test(values, again) == 1.0
    assert stats.difference(values, again) == stats.Interval(mean=0.0, low=0.0, high=0.0)


def test_p_is_two_sided():
    a, b = [0.1, 0.5, 0.3, 0.9, 0.2], [0.4, 0.6, 0.2, 1.0, 0.7]
    assert stats.randomisation_test(a, b, seed=3) == stats.randomisation_test(b, a, seed=3)


def test_bootstrap_brackets_the_mean_and_narrows():
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 1000
    wide, narrow = stats.bootstrap(few), stats.bootstrap(many)
    assert wide.mean == narrow.mean == 0.5
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, rel=0.15)
    same = stats.bootstrap([0.7] * 9)
    assert (same.low, same.high) == pytest.approx((0.7, 0.7))


def test_bounds_of_an_interval_are_the_farther_of_two():
    # 3 of 12 fail: the t interval is symmetric, the resampled means reach farther down.
    values = [0.0] * 3 + [1.0] * 9
    found, plain = stats.bootstrap(values), stats.percentile(values)
    half = 2.201 * np.std(values, ddof=1) / math.sqrt(12)
    assert found.high == pytest.approx(0.75 + half, abs=1e-3)
    assert found.low < min(plain.low, 0.75 - half)
    assert stats.bootstrap(values, bounds=stats.METRIC).high == 1.0
    mirrored = stats.bootstrap([-v for v in values])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=0.02)


def test_many_queries_leave_nothing_to_correct():
    values = np.random.default_rng(1).random(1500)
    found, plain = stats.bootstrap(values), stats.percentile(values)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=5e-4)


@pytest.mark.parametrize("values", [[0.4], [0.1] * 30, [0.0, 0.0]])
def test_values_without_spread_have_no_width(values: list[float]):
    found = stats.bootstrap(values, bounds=stats.METRIC)
    assert found.low == found.mean == found.high == pytest.approx(values[0])
    gap = stats.difference(values, [v + 0.2 for v in values])
    assert gap.high - gap.low == pytest.approx(0, abs=1e-12) and gap.mean == pytest.approx(0.2)


def test_differences_of_metrics_stay_within_one():
    metric = stats.difference([0.0, 1.0, 0.0], [1.0, 0.9, 1.0])
    assert (metric.low, metric.high) == (pytest.approx(-0.944, abs=0.01), 1.0)
    seconds = stats.difference([0.0, 9.0, 0.0], [9.0, 8.0, 9.0])
    assert seconds.low < -1 and seconds.high > 9.0


def test_levels():
    values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.37, 0.61]
    half, most = stats.bootstrap(values, level=0.5), stats.bootstrap(values, level=0.99)
    assert most.low < half.low < half.mean < half.high < most.high


def test_seeds_decide():
    values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.37, 0.61]
    one, again, other = (stats.bootstrap(values, samples=99, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_difference_is_paired():
    found = stats.difference([0.1, 0.5, 0.9], [0.2, 0.6, 1.0])
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="needs pairs"):
        stats.difference([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no values"):
        stats.bootstrap([])


def test_spread_between_seeds():
    assert stats.seed_spread([[0.2, 0.4], [0.4, 0.6], [0.3, 0.5]]) == pytest.approx(0.1)
    assert stats.seed_spread([[0.2, 0.4]]) is None
    assert stats.seed_spread([[0.2, 0.4], [0.4, 0.2]]) == pytest.approx(0.0)


def test_one_seed_is_the_interval_over_queries():
    values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.37, 0.61]
    assert stats.seeds_interval([values]) == stats.bootstrap(values)
    other = [v * 0.5 for v in values]
    found = stats.seeds_difference([other], [values])
    assert found == stats.difference(other, values)


def test_seeds_that_agree_add_nothing():
    rng = np.random.default_rng(4)
    base = rng.random(40)
    # The same mean in all: seeds differ less than chance in queries explains.
    seeds = [base, base[::-1], np.roll(base, 7)]
    assert stats.seeds_interval(seeds) == stats.bootstrap(np.mean(seeds, 0))


def test_seeds_that_differ_widen_the_interval_on_both_sides_alike():
    base = np.linspace(0.2, 0.8, 60)
    seeds = [base - 0.1, base, base + 0.1]
    alone, both = stats.bootstrap(np.mean(seeds, 0)), stats.seeds_interval(seeds)
    # No interaction: seeds add t(2) ** 2 * 0.1 ** 2 / 3 to t(59) ** 2 * var / 60 of the queries.
    own = 2.001**2 * base.var(ddof=1) / 60
    factor = math.sqrt(1 + 4.3027**2 * 0.01 / 3 / own)
    assert both.mean == pytest.approx(0.5)
    assert both.high - both.mean == pytest.approx(factor * (alone.high - alone.mean), rel=1e-3)
    assert both.mean - both.low == pytest.approx(factor * (alone.mean - alone.low), rel=1e-3)
    capped = stats.seeds_interval(seeds, bounds=(0.4, 0.6))
    assert (capped.low, capped.high) == (0.4, 0.6)
    # Of two systems with seeds both parts count.
    gap = stats.seeds_difference(seeds, [base + 0.2, base + 0.3])
    part = 4.3027**2 * 0.01 / 3 + 12.706**2 * 0.005 / 2
    assert gap.mean == pytest.approx(0.25)
    assert gap.high - gap.low == pytest.approx(2 * math.sqrt(part), rel=1e-3)


def test_seeds_without_spread_over_queries():
    found = stats.seeds_interval([[0.4] * 5, [0.6] * 5])
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.mean == pytest.approx(12.706 * 0.1, rel=1e-3)
    one = stats.seeds_interval([[0.4], [0.6]])
    assert one.low < 0 < 1 < one.high
    with pytest.raises(ValueError, match="different numbers of queries"):
        stats.seeds_interval([[0.1], [0.1, 0.2]])
    with pytest.raises(ValueError, match="no values"):
        stats.seeds_interval([])
