"""From compared pairs to an order: paths against brute force, strengths against what they mean."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest
from strategy_tasks import docs, task_of

from rank_rl.records import Order, Outcome, Scores, View
from rank_rl.strategies.aggregate import bradley_terry, by_net_weight, hamiltonian, path_weight
from rank_rl.strategies.drive import run
from rank_rl.strategies.pairs import Pairs, places, shares, strengths


def drawn(count: int, seed: int) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.uniform(-1, 1) for _ in range(count)] for _ in range(count)]


@pytest.mark.parametrize("count", range(8))
def test_up_to_12_items_no_path_is_heavier(count):
    for seed in range(5):
        weights = drawn(count, seed)
        path = hamiltonian(weights)
        assert sorted(path) == list(range(count))
        heaviest = max(path_weight(p, weights) for p in permutations(range(count)))
        assert path_weight(path, weights) == pytest.approx(heaviest)


def test_a_path_of_three_by_hand():
    # 1-0-2 weighs 0.9 + 0.8; by net weight (0: 0.5, 1: 0.3, 2: -0.8) it would be 0-1-2, 0.1 + 0.2.
    weights = [[0, 0.1, 0.8], [0.9, 0, 0.2], [-0.5, 0.7, 0]]
    assert hamiltonian(weights) == [1, 0, 2]
    assert path_weight([1, 0, 2], weights) == pytest.approx(1.7)


@pytest.mark.parametrize("count", [13, 20, 40])
def test_above_12_items_never_lighter_than_by_net_weight_and_always_the_same(count):
    for seed in range(4):
        weights = drawn(count, seed)
        path = hamiltonian(weights)
        assert sorted(path) == list(range(count))
        assert path == hamiltonian(weights)
        assert path_weight(path, weights) > path_weight(by_net_weight(weights), weights)


def test_above_12_items_a_path_hidden_in_noise_is_found():
    draw = random.Random(1)
    hidden = draw.sample(range(30), 30)
    weights = [[draw.uniform(0, 0.3) for _ in range(30)] for _ in range(30)]
    for a, b in zip(hidden, hidden[1:], strict=False):
        weights[a][b] = 1.0
    assert hamiltonian(weights) == hidden


@pytest.mark.parametrize("count", [5, 20])
def test_ties_follow_the_numbers_and_a_clear_order_is_found(count):
    items = range(count)
    assert hamiltonian([[0.5] * count for _ in items]) == list(items)
    backwards = [[float(i > j) for j in items] for i in items]
    assert hamiltonian(backwards) == list(items)[::-1]


def test_of_equal_paths_the_one_of_more_wins():
    # 0 beats 1, 1 beats 2 and 3, 2 beats 0 and 3, 3 beats 0: several paths win three times.
    wins = [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [1, 0, 0, 0]]
    assert hamiltonian(wins) == [1, 2, 3, 0]


def test_weights_must_be_square():
    with pytest.raises(ValueError, match="2 x 2"):
        hamiltonian([[0.0, 1.0], [0.0]])


@pytest.mark.parametrize("seed", range(3))
def test_strengths_expect_as_many_wins_as_there_were(seed):
    draw, prior, items = random.Random(seed), 0.1, range(6)
    wins = [[0.0 if i == j else float(draw.randrange(3)) for j in items] for i in items]
    found = bradley_terry(wins, prior=prior)

    def chance(a: float, b: float) -> float:
        return 1 / (1 + math.exp(b - a))

    for i in items:
        games = [(j, wins[i][j] + wins[j][i]) for j in items if j != i]
        expected = sum(n * chance(found[i], found[j]) for j, n in games)
        expected += 2 * prior * chance(found[i], 0.0)
        assert expected == pytest.approx(sum(wins[i]) + prior, abs=1e-4)


def test_strengths_by_hand():
    first, second = bradley_terry([[0, 3], [1, 0]], prior=1e-7)
    assert first - second == pytest.approx(math.log(3), abs=1e-4)
    never_beaten, beaten = bradley_terry([[0, 5], [0, 0]])
    assert (
        math.isfinite(never_beaten) and never_beaten == pytest.approx(-beaten) and never_beaten > 1
    )
    assert bradley_terry([[0, 1, 0], [0, 0, 1], [1, 0, 0]]) == [0, 0, 0]
    assert bradley_terry([[0.0]]) == [0.0]
    assert bradley_terry([]) == []


def test_who_was_beaten_matters_to_strengths_not_to_shares():
    # A chain 4 > 3 > 2 > 1: documents 2 and 3 win one and lose one.
    chain = [{"d4": 1.0, "d3": 0.0}, {"d3": 1.0, "d2": 0.0}, {"d2": 1.0, "d1": 0.0}]
    assert shares(docs(1, 2, 3, 4), chain) == {"d1": 0.0, "d2": 0.5, "d3": 0.5, "d4": 1.0}
    found = strengths(docs(1, 2, 3, 4), chain)
    assert found["d4"] > found["d3"] > found["d2"] > found["d1"]
    assert places(docs(1, 2, 3, 4), chain) == {"d4": 4.0, "d3": 3.0, "d2": 2.0, "d1": 1.0}


def compared(aggregate: str, soft: bool, said: dict) -> object:
    """Pairs of d1, d2, d3 answered once each with the scores or orders given."""

    def answer(views: list[View]) -> list[Outcome]:
        found = [said[tuple(sorted(v.docids))] for v in views]
        kinds = [Scores(values=a) if isinstance(a, dict) else Order(docids=a) for a in found]
        return [Outcome(status="ok", answer=a) for a in kinds]

    strategy = Pairs(both=False, aggregate=aggregate, soft=soft)
    return run([task_of(0, 0, 0)], strategy, answer)[0].ranking


PROBABILITIES = {
    docs(1, 2): {"d1": 0.45, "d2": 0.55},
    docs(1, 3): {"d1": 0.4, "d3": 0.6},
    docs(2, 3): {"d2": 0.9, "d3": 0.1},
}


def test_probabilities_count_as_shares_only_where_asked_for():
    hard = compared("wins", False, PROBABILITIES)
    assert (hard.docids, hard.scores) == (docs(2, 3, 1), (1.0, 0.5, 0.0))
    soft = compared("wins", True, PROBABILITIES)
    assert soft.docids == docs(2, 1, 3)
    assert soft.scores == pytest.approx((0.725, 0.425, 0.35))
    assert compared("bradley_terry", True, PROBABILITIES).docids == docs(2, 1, 3)
    assert compared("bradley_terry", False, PROBABILITIES).docids == docs(2, 3, 1)


def test_the_heaviest_path_of_probabilities():
    # 2-3-1 weighs 0.9 + 0.6, 1-2-3 0.45 + 0.9, 2-1-3 0.55 + 0.4.
    assert compared("tsp", True, PROBABILITIES).docids == docs(2, 3, 1)
    assert compared("tsp", True, PROBABILITIES).scores == (3.0, 2.0, 1.0)


def test_scores_that_are_no_probabilities_and_orders_count_hard():
    said = {
        docs(1, 2): {"d1": 3.0, "d2": 7.0},
        docs(1, 3): docs(3, 1),
        docs(2, 3): {"d2": -0.5, "d3": 1.5},
    }
    assert compared("wins", True, said).scores == (1.0, 0.5, 0.0)
    assert compared("wins", True, said).docids == docs(3, 2, 1)
