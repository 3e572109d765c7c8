"""Names and parameters from recipes: what is built, and the line that each mistake gives."""

from __future__ import annotations

import pytest

from rank_rl import rewards, strategies
from rank_rl.errors import RecipeError
from rank_rl.registry import build
from rank_rl.specs import RewardSpec, StrategySpec

TABLE = {"fraction": "fractions:Fraction", "counter": "collections:Counter"}


def test_builds_with_parameters_from_the_table_or_by_module() -> None:
    assert build("number", "fraction", {"numerator": 3, "denominator": 4}, TABLE) == 0.75
    assert build("number", "fractions:Fraction", {"numerator": 2}, {}) == 2


def test_any_parameter_goes_where_the_class_takes_any() -> None:
    assert build("count", "counter", {"red": 2}, TABLE) == {"red": 2}


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        (
            "sliding",
            {"x": 1},
            "strategy 'sliding': unknown parameter 'x'; expected window, step, passes",
        ),
        (
            "sliding",
            {"windows": 4},
            "strategy 'sliding': unknown parameter 'windows'; expected window, step, passes "
            "(nearest: window)",
        ),
        (
            "single",
            {"depth": 0},
            "strategy 'single': depth is 0; expected an integer of at least 1 or null",
        ),
    ],
)
def test_wrong_parameters_of_a_strategy(name: str, params: dict[str, object], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        strategies.make(StrategySpec(name=name, params=params))
    assert caught.value.line() == line


def test_only_names_that_are_near_are_called_so() -> None:
    with pytest.raises(RecipeError) as caught:
        build("number", "zzz", {}, TABLE)
    line = "unknown number 'zzz'; expected one of counter, fraction or package.module:Name"
    assert caught.value.line() == line
    with pytest.raises(RecipeError, match=r"\(nearest: fraction, counter\)$"):
        build("number", "fractoin", {}, TABLE)


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        ("ndcg", {"depth": 5}, "reward 'ndcg': unknown parameter 'depth'; expected k, malformed"),
        ("length", {}, "reward 'length': missing a required argument: 'soft_max'"),
        ("fractions:Fraction", {"numerator": "a"}, "reward 'fractions:Fraction': Invalid literal"),
    ],
)
def test_wrong_parameters_of_a_reward(name: str, params: dict[str, object], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rewards.one(RewardSpec(name=name, params=params))
    assert caught.value.line().startswith(line)
    assert "__init__" not in caught.value.line()
