"""Which rows are kept, and in which order, from literal rewards."""

from __future__ import annotations

import pytest

from rank_rl.data import curriculum
from rank_rl.data.curriculum import Rated, choose, matched, view_key
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, Query, View, numbered
from rank_rl.specs import PassRateSpec


def view(docids: str = "abcd", qid: str = "q") -> View:
    return numbered(Query(qid=qid, text="?"), [Candidate(docid=d, text=d) for d in docids])


def rated(*totals: float, copy: float = 0.5, ceiling: float = 1.5) -> Rated:
    return Rated(key="k", qid="q", totals=totals, copy=copy, ceiling=ceiling)


def test_an_answer_passes_part_of_the_way_from_copy_to_ceiling():
    answers = rated(0.0, 0.5, 1.0, 1.5)
    assert answers.rate(0.0) == 0.75 and answers.rate(0.5) == 0.5 and answers.rate(1.0) == 0.25
    assert answers.mean == 0.75
    # Where copying is perfect, only an answer as good passes.
    assert rated(1.5, 1.49, copy=1.5).rate(0.2) == 0.5


def test_a_reward_that_every_valid_answer_earns_is_no_success():
    """The same answers with a format reward of 1 and without have the same rate."""
    plain = rated(0.6, 0.9, copy=0.6, ceiling=1.0)
    shifted = rated(1.6, 1.9, copy=1.6, ceiling=2.0)
    assert plain.rate(0.5) == shifted.rate(0.5) == 0.5


def test_a_record_comes_back():
    one = rated(0.25, 1.0)
    assert Rated.from_record(one.record()) == one


def test_signals_need_no_answers():
    assert curriculum.shown_ndcg(view(), {"a": 1}) == 1.0
    assert curriculum.shown_ndcg(view(), {"c": 1}) == pytest.approx(0.5)
    assert curriculum.relevant_share(view(), {"c": 1, "d": 2, "z": 1}) == 0.5
    assert curriculum.best_rank(view(), {"b": 1, "d": 3}) == 0.5
    assert curriculum.best_rank(view(), {}) == 0.0


def test_a_view_is_named_by_its_query_and_its_order():
    assert view_key(view()) == view_key(view())
    keys = {view_key(view()), view_key(view("abdc")), view_key(view(qid="r"))}
    assert len(keys) == 3


ROWS = [(view("abcd"), {g: 1}) for g in "cabdc"]
RATED = [rated(*totals) for totals in ([1.5, 0], [0, 0], [1.5, 1.5], [1.5, 0.4], [0.6, 1.0])]


def kept(**keys: object) -> tuple[int, ...]:
    return choose(PassRateSpec(**keys), ROWS, RATED).kept


def test_rows_never_or_always_solved_are_left_out():
    found = choose(PassRateSpec(), ROWS, RATED)
    assert (found.kept, found.never, found.always) == ((0, 3, 4), 1, 1)
    assert found.rates == {0.5: 3, 0.0: 1, 1.0: 1}
    assert found.line() == (
        "3 rows kept, 1 too hard and 1 too easy left out; "
        "rows by pass rate {0.00: 1, 0.50: 3, 1.00: 1}"
    )
    assert kept(low=None) == (0, 1, 3, 4) and kept(high=None) == (0, 2, 3, 4)
    assert kept(low=None, high=None) == (0, 1, 2, 3, 4)
    assert kept(low=None, high=0.5) == (1,)


def test_order_is_by_rate_then_mean_then_as_before():
    free = {"low": None, "high": None}
    # Means: 0.75, 0, 1.5, 0.95, 0.8.
    assert kept(order="easy_first", **free) == (2, 3, 4, 0, 1)
    assert kept(order="hard_first", **free) == (1, 0, 4, 3, 2)
    # The relevant document stands at place 3, 1, 2, 4, 3.
    assert kept(order="easy_first", order_by="shown_ndcg", **free) == (1, 2, 0, 4, 3)
    assert kept(order="hard_first", order_by="best_rank", **free) == (3, 0, 4, 2, 1)
    assert kept(order="hard_first", order_by="relevant_share", **free) == (0, 1, 2, 3, 4)


def test_order_without_answers_leaves_nothing_out():
    spec = PassRateSpec(samples=0, order="easy_first", order_by="shown_ndcg")
    found = choose(spec, ROWS, None)
    assert found.kept == (1, 2, 0, 4, 3) and found.rates == {}


def test_nothing_left_is_one_line_with_the_distribution():
    with pytest.raises(DataError) as caught:
        choose(PassRateSpec(), ROWS[1:3], RATED[1:3])
    line = str(caught.value)
    assert "no training row is left: rows by pass rate {0.00: 1, 1.00: 1}" in line
    assert "grpo.pass_rate" in line and "\n" not in line


def test_rates_of_other_views_are_refused():
    known = {view_key(view()): rated(1.0)}
    assert matched([view(), view()], known, where="file") == [rated(1.0)] * 2
    with pytest.raises(DataError, match="1 of 2 training rows have no pass rate"):
        matched([view(), view("dcba")], known, where="file")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"samples": 0, "order": "easy_first"}, "no pass rates to order by"),
        ({"samples": 0}, "neither pass rates nor an order"),
        ({"low": 1.5}, "less than or equal to 1"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        PassRateSpec(**keys)


def test_an_order_needs_a_trainer_that_keeps_it():
    spec = PassRateSpec(order="easy_first")
    curriculum.check_order(spec, {"shuffle_dataset": False})
    curriculum.check_order(PassRateSpec(), {"shuffle_dataset": True})
    with pytest.raises(RecipeError, match=r"training.shuffle_dataset: value true; expected false"):
        curriculum.check_order(spec, {"shuffle_dataset": True})
