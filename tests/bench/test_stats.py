"""Intervals and tests on numbers small enough to check by hand."""

from __future__ import annotations

import pytest

from rank_rl.bench import stats


def test_holm_by_hand():
    adjusted = stats.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert stats.holm({"x": 0.7, "y": 0.6}) == {"x": 1.0, "y": 1.0}
    assert stats.holm({}) == {}


def test_randomisation_test_against_the_exact_distribution():
    # 5 differences of +1: of the 32 sign assignments 2 reach |sum| = 5.
    p = stats.randomisation_test([0.0] * 5, [1.0] * 5, samples=20000)
    assert p == pytest.approx(2 / 32, abs=0.01)
    # 0.1 + 0.2 - 0.3 in any order is the same sum, whatever the last bits say.
    assert stats.randomisation_test([0.3, 0.0, 0.0], [0.0, 0.1, 0.2], samples=500) == 1.0


def test_no_difference_is_no_evidence_and_p_is_never_zero():
    assert stats.randomisation_test([0.2, 0.4], [0.2, 0.4], samples=100) == 1.0
    assert stats.randomisation_test([0.0] * 60, [1.0] * 60, samples=100) == pytest.approx(1 / 101)


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
