"""The soft overlong punishment in literal numbers."""

from __future__ import annotations

import pytest

from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Completion, Order, Outcome, Query, numbered
from rank_rl.rewards import one
from rank_rl.specs import RecipeSpec, RewardSpec

VIEW = numbered(Query(qid="q", text="?"), [Candidate(docid="d", text="t", rank=1)])
VALID = Outcome(status="ok", answer=Order(docids=("d",)))


def paid(tokens: int, outcome: Outcome = VALID, **params: float) -> float | None:
    reward = one(RewardSpec(name="overlong", params={"max_length": 1000, "buffer": 200, **params}))
    return reward(outcome, VIEW, {"d": 1}, Completion(text="", completion_tokens=tokens))


@pytest.mark.parametrize(
    ("tokens", "value"),
    [(0, 0.0), (800, 0.0), (801, -0.005), (900, -0.5), (1000, -1.0), (5000, -1.0)],
)
def test_it_falls_over_the_buffer(tokens: int, value: float):
    assert paid(tokens) == pytest.approx(value)


@pytest.mark.parametrize("status", ["repaired", "failed"])
def test_a_malformed_text_is_never_above_a_valid_one(status: str):
    outcome = Outcome(status=status, answer=VALID.answer)  # type: ignore[arg-type]
    assert paid(10, outcome) == -1.0
    assert paid(10, outcome, malformed=-2.0) == -2.0


@pytest.mark.parametrize(
    "params",
    [{"buffer": 0}, {"buffer": 1001}, {"max_length": 0}, {"buffer": 0.5}, {"malformed": 0.0}],
)
def test_wrong_parameters_are_one_line(params: dict[str, float]):
    with pytest.raises(RecipeError, match=r"reward 'overlong'.*1 <= buffer <= max_length"):
        paid(1, **params)


def test_where_nothing_is_written_it_is_refused():
    content = {
        "run": {"name": "t", "output_dir": "out"},
        "model": {"name": "m"},
        "data": {"source": "bundled"},
        "format": {"name": "slots"},
        "grpo": {"policy": "slots"},
        "rewards": [{"name": "overlong", "params": {"max_length": 9, "buffer": 3}}],
    }
    with pytest.raises(ValueError, match="'overlong' is constant with grpo.policy slots"):
        RecipeSpec.model_validate(content)
