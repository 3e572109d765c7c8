"""What each part of a reward contributes, in literal numbers."""

from __future__ import annotations

import math

import pytest

from rank_rl.records import Outcome
from rank_rl.rewards import make
from rank_rl.rewards.baselines import Baselines
from rank_rl.rewards.compose import Scored
from rank_rl.rewards.monitor import Judged, part_statistics
from rank_rl.specs import RewardSpec

NDCG = RewardSpec(name="ndcg")
GAIN = RewardSpec(name="ndcg_gain", weight=0.5)


def judged(group: str, total: float, **parts: float | None) -> Judged:
    return Judged(
        group=group,
        outcome=Outcome(status="ok"),
        scored=Scored(total=total, parts=parts),
        baselines=Baselines(copy=0.0, ceiling=1.0),
    )


def test_shares_divide_the_spread_of_the_totals():
    answers = [
        judged("a", 1.0, ndcg=1.0, ndcg_gain=0.0),
        judged("a", 0.5, ndcg=0.0, ndcg_gain=1.0),
        judged("a", 0.0, ndcg=0.0, ndcg_gain=0.0),
    ]
    found = part_statistics(answers, make([NDCG, GAIN]))
    # Variance of 1, 0.5, 0 is 1/6; the covariances with it are 1/6 and 0.
    assert found["rewards/ndcg/share"] == pytest.approx(1.0)
    assert found["rewards/ndcg_gain/share"] == pytest.approx(0.0)
    assert found["rewards/ndcg/group_std"] == pytest.approx(math.sqrt(2) / 3)
    assert (found["rewards/ndcg/low"], found["rewards/ndcg/high"]) == (2 / 3, 1 / 3)
    # The least of a gain is -1, so that 0 is neither of its bounds.
    assert (found["rewards/ndcg_gain/low"], found["rewards/ndcg_gain/high"]) == (0.0, 1 / 3)


def test_spread_is_within_groups_not_between_them():
    answers = [judged(g, v, ndcg=v) for g, v in [("a", 1.0), ("a", 1.0), ("b", 0.2), ("b", 0.4)]]
    found = part_statistics(answers, make([NDCG]))
    assert found["rewards/ndcg/group_std"] == pytest.approx((0.0 + 0.1) / 2)
    assert found["rewards/ndcg/share"] == pytest.approx(1.0)  # of the group that differs


def test_what_does_not_apply_is_absent_and_in_no_mean():
    answers = [
        judged("a", 0.0, ndcg=None, ndcg_gain=None),
        judged("a", 0.0, ndcg=None, ndcg_gain=None),
        judged("b", 1.0, ndcg=1.0, ndcg_gain=None),
        judged("b", 0.0, ndcg=0.0, ndcg_gain=None),
    ]
    found = part_statistics(answers, make([NDCG, GAIN]))
    assert found["rewards/ndcg/absent"] == 0.5
    assert (found["rewards/ndcg/high"], found["rewards/ndcg/group_std"]) == (0.5, 0.5)
    assert {k: v for k, v in found.items() if "ndcg_gain" in k} == {
        "rewards/ndcg_gain/absent": 1.0,
        "rewards/ndcg_gain/share": 0.0,
    }


def test_flat_groups_have_no_shares_and_no_answers_no_statistics():
    found = part_statistics([judged("a", 0.5, ndcg=0.5)] * 2, make([NDCG]))
    assert "rewards/ndcg/share" not in found
    assert found["rewards/ndcg/group_std"] == 0.0
    assert part_statistics([], make([NDCG])) == {}


def test_shares_of_any_parts_sum_to_one():
    values = [(0.3, -0.2), (0.9, 0.5), (0.1, 1.0), (0.0, -1.0), (0.7, None)]
    answers = [judged("a", a + 0.5 * (b or 0), ndcg=a, ndcg_gain=b) for a, b in values]
    found = part_statistics(answers, make([NDCG, GAIN]))
    assert found["rewards/ndcg/share"] + found["rewards/ndcg_gain/share"] == pytest.approx(1.0)
