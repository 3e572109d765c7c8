"""Costs before a run: what the driver counts, whatever the number of queries and candidates."""

from __future__ import annotations

import pytest

from rank_rl import formats, strategies
from rank_rl.errors import RecipeError
from rank_rl.generation.cost import foresee, spent_line
from rank_rl.models.counting import Words
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, StrategySpec
from rank_rl.strategies import drive

CHOICE, LIST = (formats.make(FormatSpec(name=name)) for name in ("choice", "permutation"))


def tasks(*sizes: int) -> list[RankingTask]:
    return [
        RankingTask(
            query=Query(qid=f"q{i}", text="who is the father?"),
            candidates=tuple(
                Candidate(docid=f"d{j}", text="the river", rank=j + 1) for j in range(size)
            ),
        )
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("name", ["sliding", "single", "groups"])
def test_fixed_costs_are_those_of_the_driver(name: str) -> None:
    given, strategy = tasks(25, 7, 25, 1, 40), strategies.make(StrategySpec(name=name))
    cost, count = foresee(given, strategy, LIST, Words()), drive.count(given, strategy)
    assert cost.exact and cost.queries == 5
    assert (cost.calls, cost.depth, cost.documents) == (count.calls, count.depth, count.documents)
    assert cost.line().startswith(f"5 queries: {count.calls} calls showing {count.documents} ")
    assert cost.prompt_tokens > count.documents


def test_other_costs_are_estimated_and_said_to_be() -> None:
    strategy = strategies.make(StrategySpec(name="setwise", params={"children": 3}))
    few, many = tasks(*[20] * 10), tasks(*[20] * 200)
    cost, count = foresee(few, strategy, CHOICE, Words()), drive.count(few, strategy)
    assert not cost.exact and cost.calls == count.calls and cost.depth == count.depth
    assert f"10 queries: about {count.calls} calls" in cost.line() and "depth about" in cost.line()
    more = foresee(many, strategy, CHOICE, Words())
    assert more.calls == pytest.approx(20 * cost.calls, rel=0.1)
    assert more.prompt_tokens == pytest.approx(20 * cost.prompt_tokens, rel=0.2)


def test_a_format_that_does_not_fit_is_found_before_the_run() -> None:
    strategy = strategies.make(StrategySpec(name="sliding"))
    with pytest.raises(RecipeError, match="format pair compares two documents"):
        foresee(tasks(5), strategy, formats.make(FormatSpec(name="pair")), Words())


def test_nothing_costs_nothing() -> None:
    strategy = strategies.make(StrategySpec(name="single"))
    cost = foresee([], strategy, LIST, Words())
    assert (cost.calls, cost.depth, cost.prompt_tokens) == (0, 0, 0)
    assert spent_line([]).startswith("0 queries took 0 calls, depth 0, 0 prompt tokens")
