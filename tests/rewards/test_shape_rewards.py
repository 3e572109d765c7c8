"""Format and length rewards on literal outcomes."""

from __future__ import annotations

import pytest

from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Completion, Order, Outcome, Query, numbered
from rank_rl.rewards.shape import FormatReward, Length

VIEW = numbered(Query(qid="q", text="?"), [Candidate(docid=d, text="") for d in "ab"])
GRADES = {"a": 1}
ANSWER = Order(docids=("a", "b"))
OK = Outcome(status="ok", answer=ANSWER)


def paid(reward, outcome: Outcome, tokens: int = 0) -> float | None:
    completion = Completion(text="", completion_tokens=tokens)
    return reward(outcome, VIEW, GRADES, completion)


def repaired(*issues: str) -> Outcome:
    return Outcome(status="repaired", answer=ANSWER, issues=issues)


def test_format_falls_with_each_issue():
    reward = FormatReward()
    assert paid(reward, OK) == 1.0
    assert paid(reward, repaired("trailing_text")) == pytest.approx(0.4)
    assert paid(reward, repaired("trailing_text", "repeated")) == pytest.approx(0.3)
    assert paid(reward, repaired(*"abcdefgh")) == pytest.approx(0.1)


def test_format_pays_right_tags_around_a_bad_list():
    reward = FormatReward()
    bad_list = Outcome(status="failed", reasoning="because", issues=("no_list",))
    bad_tags = Outcome(status="failed", reasoning="because", issues=("no_list", "truncated"))
    prose = Outcome(status="failed", issues=("no_list",))
    assert paid(reward, bad_list) == 0.3
    assert paid(reward, bad_tags) == 0.0
    assert paid(reward, prose) == 0.0


def test_format_can_be_a_penalty():
    reward = FormatReward(ok=0.0, repaired=-0.1, least=-0.1, tagged=-0.1, failed=-0.5)
    assert reward.bounds == (-0.5, 0.0)
    assert paid(reward, OK) == 0.0
    assert paid(reward, repaired("a", "b")) == -0.1
    assert paid(reward, Outcome(status="failed")) == -0.5


def test_an_ok_outcome_without_content_is_malformed():
    assert paid(FormatReward(), Outcome(status="ok", answer=None)) == 0.0
    assert paid(FormatReward(), Outcome(status="ok", answer=Order(docids=()))) == 0.0


@pytest.mark.parametrize(
    "params",
    [
        {"repaired": 1.0},
        {"least": 0.5},
        {"failed": 0.2},
        {"tagged": 1.0},
        {"tagged": -0.1},
        {"step": -0.1},
        {"ok": "1"},
        {"ok": float("nan")},
    ],
)
def test_format_levels_must_fall(params):
    with pytest.raises(RecipeError, match="ok > repaired >= least >= failed"):
        FormatReward(**params)


@pytest.mark.parametrize(
    ("tokens", "value"), [(0, 1.0), (1000, 1.0), (1500, 0.5), (2000, 0.0), (9999, 0.0)]
)
def test_length_falls_linearly_between_its_bounds(tokens, value):
    assert paid(Length(soft_max=1000, hard_max=2000), OK, tokens) == value
    assert paid(Length(soft_max=1000), OK, tokens) == value


def test_a_short_malformed_text_earns_nothing_for_being_short():
    assert paid(Length(soft_max=1000), repaired("repeated"), 3) == 0.0
    assert paid(Length(soft_max=1000), Outcome(status="failed"), 3) == 0.0


@pytest.mark.parametrize(
    "params",
    [
        {"soft_max": 10, "hard_max": 10},
        {"soft_max": 10, "hard_max": 5},
        {"soft_max": -1, "hard_max": 5},
        {"soft_max": 0},
        {"soft_max": "10"},
        {"soft_max": None},
    ],
)
def test_length_bounds_must_be_in_order(params):
    with pytest.raises(RecipeError, match="soft_max < hard_max"):
        Length(**params)
