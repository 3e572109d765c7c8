"""Rewards for the order of an answer, on literal views: values, ties, cuts, what does not apply."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import pytest

from rank_rl import metrics
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Completion, Order, Outcome, Query, Scores, View, numbered
from rank_rl.rewards.ranking import Ndcg, NdcgGain, Rbo, Recall
from rank_rl.rewards.scores import ScoreDistribution

BLANK = Completion(text="")


def view_of(*docids: str) -> View:
    """A view that shows ``docids`` in first-stage order."""
    shown = [Candidate(docid=d, text="", rank=i + 1) for i, d in enumerate(docids)]
    return numbered(Query(qid="q", text="?"), shown)


def order(*docids: str) -> Outcome:
    return Outcome(status="ok", answer=Order(docids=docids))


def scores(**values: float) -> Outcome:
    return Outcome(status="ok", answer=Scores(values=values))


def test_ndcg_uses_linear_gains_and_the_cut():
    view, grades = view_of("a", "b", "c"), {"a": 0, "b": 1, "c": 2}
    ideal = 2 + 1 / math.log2(3)
    expected = (1 / math.log2(3) + 2 / 2) / ideal
    assert Ndcg()(order("a", "b", "c"), view, grades, BLANK) == pytest.approx(expected)
    assert Ndcg()(order("c", "b", "a"), view, grades, BLANK) == 1.0
    assert Ndcg(k=1)(order("a", "c", "b"), view, grades, BLANK) == 0.0


def test_ideal_is_taken_within_the_view():
    view, grades = view_of("a", "b"), {"b": 1, "not shown": 3}
    assert Ndcg()(order("b", "a"), view, grades, BLANK) == 1.0
    assert NdcgGain()(order("b", "a"), view, grades, BLANK) == 1.0
    assert Recall(k=1)(order("b", "a"), view, grades, BLANK) == 1.0


def test_repeated_and_foreign_docids_earn_nothing_more():
    view, grades = view_of("a", "b", "c"), {"b": 1}
    twice = order("b", "b", "b", "elsewhere")
    assert Ndcg()(twice, view, grades, BLANK) == 1.0
    assert Rbo()(twice, view, grades, BLANK) == 1.0


@pytest.mark.parametrize("reward", [Ndcg(), NdcgGain(), Recall(k=1), Rbo(), ScoreDistribution()])
def test_nothing_relevant_does_not_apply_to_good_nor_bad_texts(reward):
    view, grades = view_of("a", "b"), {"a": 0, "b": -1, "not shown": 1}
    assert reward(scores(a=1, b=0), view, grades, BLANK) is None
    assert reward(Outcome(status="failed"), view, grades, BLANK) is None


def test_tied_scores_earn_the_mean_over_their_orders():
    view, grades = view_of("a", "b", "c", "d"), {"b": 1, "c": 2}
    tied = scores(a=5, b=5, c=5, d=0)
    orders = [order(*p, "d") for p in itertools.permutations("abc")]
    for reward in (Ndcg(k=2), Recall(k=2)):
        expected = fmean(reward(o, view, grades, BLANK) for o in orders)
        assert reward(tied, view, grades, BLANK) == pytest.approx(expected)


def test_all_zero_scores_do_not_earn_what_copying_earns():
    view, grades = view_of("a", "b", "c"), {"a": 1}
    zero = scores(a=0, b=0, c=0)
    for reward in (Ndcg(), Rbo(), Recall(k=1)):
        copied = reward(order("a", "b", "c"), view, grades, BLANK)
        assert reward(zero, view, grades, BLANK) < copied == 1.0
    assert NdcgGain()(zero, view, grades, BLANK) < 0


def test_missing_and_nan_scores_come_last():
    view, grades = view_of("a", "b"), {"b": 1}
    assert Ndcg()(scores(b=-3.0), view, grades, BLANK) == 1.0
    assert Ndcg()(scores(a=math.nan, b=0.0), view, grades, BLANK) == 1.0


def test_gain_of_copy_better_best_and_worse():
    view, grades = view_of("a", "b", "c"), {"b": 1, "c": 2}
    gain = NdcgGain()
    assert gain(order("a", "b", "c"), view, grades, BLANK) == 0.0
    assert 0 < gain(order("b", "a", "c"), view, grades, BLANK) < 1
    assert gain(order("c", "b", "a"), view, grades, BLANK) == 1.0


def test_gain_is_cut_below_and_says_so():
    # N0 is near 1 and N far from it: the plain fraction is about -40.
    view, grades = view_of("a", "c", "b"), {"a": 50, "b": 2, "c": 1}
    bad = order("c", "b", "a")
    shown = metrics.ndcg(view.docids, grades)
    plain = (metrics.ndcg(("c", "b", "a"), grades) - shown) / (1 - shown)
    assert plain < -15
    assert NdcgGain()(bad, view, grades, BLANK) == -1.0
    assert NdcgGain().events(bad, view, grades) == ("clipped",)
    assert NdcgGain().events(order("a", "b", "c"), view, grades) == ()


def test_gain_over_a_perfect_input_is_defined_and_counted():
    view, grades = view_of("a", "b"), {"a": 1}
    assert NdcgGain()(order("a", "b"), view, grades, BLANK) == 0.0
    assert NdcgGain()(order("b", "a"), view, grades, BLANK) == pytest.approx(1 / math.log2(3) - 1)
    assert NdcgGain().events(order("b", "a"), view, grades) == ("undefined",)


def test_gain_is_measured_from_the_order_shown_not_the_first_stage():
    shown = [Candidate(docid="b", text="", rank=2), Candidate(docid="a", text="", rank=1)]
    view = numbered(Query(qid="q", text="?"), shown)
    assert NdcgGain()(order("a", "b"), view, {"a": 1}, BLANK) == 1.0


def test_recall_does_not_apply_where_it_is_always_one():
    view, grades = view_of("a", "b", "c"), {"c": 1}
    assert Recall(k=3)(order("a", "b", "c"), view, grades, BLANK) is None
    assert Recall(k=3)(Outcome(status="failed"), view, grades, BLANK) is None
    assert Recall(k=2)(order("a", "b", "c"), view, grades, BLANK) == 0.0
    assert Recall(k=2)(order("a", "c", "b"), view, grades, BLANK) == 1.0


def test_rbo_compares_with_the_grades_then_the_first_stage():
    view, grades = view_of("a", "b", "c", "d"), {"c": 2, "b": 1}
    assert Rbo()(order("c", "b", "a", "d"), view, grades, BLANK) == pytest.approx(1.0)
    swapped = Rbo()(order("c", "b", "d", "a"), view, grades, BLANK)
    assert swapped == pytest.approx(metrics.rbo("cbda", "cbad", 0.9))
    assert swapped < 1


def test_rbo_of_tied_scores_is_the_mean_over_orders_that_matter():
    view, grades = view_of("a", "b", "c", "d", "e"), {"b": 1, "d": 1}
    teacher = ["b", "d", "a", "c", "e"]
    tier = ["a", "b", "c", "d"]
    values = []
    for drawn in itertools.permutations(tier):
        # Documents of equal grade stand in the teacher's order, whichever of them was drawn.
        alike = {
            g: iter([d for d in teacher if d in tier and grades.get(d, 0) == g]) for g in (0, 1)
        }
        values.append(metrics.rbo([*(next(alike[grades.get(d, 0)]) for d in drawn), "e"], teacher))
    tied = scores(a=3, b=3, c=3, d=3, e=1)
    assert Rbo()(tied, view, grades, BLANK) == pytest.approx(fmean(values))


def test_rbo_pays_the_grades_themselves_in_full():
    view, grades = view_of("a", "b", "c", "d"), {"c": 2, "d": 2}
    assert Rbo(p=0.5)(scores(a=0, b=0, c=2, d=2), view, grades, BLANK) == pytest.approx(1.0)


def test_rbo_can_follow_a_teacher_instead_of_the_grades():
    view, grades = view_of("a", "b", "c", "d"), {"a": 1}
    known = {view.query.qid: {"c": 0.9, "d": 0.9, "b": -2.0}}
    reward = Rbo(of="teacher").taught(known)
    # Ties of the teacher stand in first-stage order, and what it left out comes last.
    assert reward(order("c", "d", "b", "a"), view, grades, BLANK) == pytest.approx(1.0)
    other = reward(order("a", "b", "c", "d"), view, grades, BLANK)
    assert other == pytest.approx(metrics.rbo("abcd", "cdba", 0.9))
    tied = [metrics.rbo(drawn, "cdba", 0.9) for drawn in ("cdba", "dcba")]
    assert tied[0] > tied[1]
    answer = scores(a=0, b=1, c=2, d=2)
    assert reward(answer, view, grades, BLANK) == pytest.approx(fmean(tied))
    # No document is relevant, yet the teacher ordered them; of other queries it said nothing.
    assert reward(order("c", "d", "b", "a"), view, {}, BLANK) == pytest.approx(1.0)
    assert Rbo(of="teacher").taught({"other": {"a": 1.0}})(answer, view, grades, BLANK) is None
    assert reward(Outcome(status="failed"), view, grades, BLANK) == 0.0


def test_rbo_of_a_teacher_takes_the_grades_until_one_is_known():
    view, grades = view_of("a", "b", "c"), {"c": 1}
    answer = order("c", "a", "b")
    assert Rbo(of="teacher")(answer, view, grades, BLANK) == Rbo()(answer, view, grades, BLANK)
    with pytest.raises(RecipeError, match="of: grades or teacher"):
        Rbo(of="student")


@pytest.mark.parametrize("p", [0, 1, 1.0, -0.5, 1.5, math.nan, "0.9", True])
def test_rbo_needs_p_between_0_and_1(p):
    with pytest.raises(RecipeError, match="0 < p < 1"):
        Rbo(p=p)


@pytest.mark.parametrize("kind", [Ndcg, NdcgGain, Recall])
@pytest.mark.parametrize("k", [0, -1, 2.5, "10", True])
def test_k_must_be_a_whole_number_from_1(kind, k):
    with pytest.raises(RecipeError, match="k >= 1"):
        kind(k=k)


def test_malformed_value_may_only_go_down():
    assert Ndcg(malformed=-1.0).bounds == (-1.0, 1.0)
    with pytest.raises(RecipeError, match="malformed <= 0"):
        Ndcg(malformed=0.5)


def test_only_ok_texts_are_paid_for_their_order():
    view, grades = view_of("a", "b"), {"b": 1}
    perfect = Order(docids=("b", "a"))
    repaired = Outcome(status="repaired", answer=perfect, issues=("repeated",))
    failed = Outcome(status="failed", answer=None)
    empty = Outcome(status="ok", answer=Order(docids=()))
    for outcome in (repaired, failed, empty):
        assert Ndcg()(outcome, view, grades, BLANK) == 0.0
        assert Ndcg(malformed=-0.5)(outcome, view, grades, BLANK) == -0.5
        assert NdcgGain()(outcome, view, grades, BLANK) == -1.0
        assert Rbo()(outcome, view, grades, BLANK) == 0.0
        assert NdcgGain().events(outcome, view, grades) == ()


def test_score_distribution_from_same_to_disjoint():
    view, grades = view_of("a", "b", "c"), {"a": 2, "b": 1}
    reward = ScoreDistribution()
    assert reward(scores(a=10, b=5, c=0), view, grades, BLANK) == pytest.approx(1.0)
    assert reward(scores(a=0, b=0, c=7), view, grades, BLANK) == pytest.approx(0.0)
    # P uniform over a and b, Q all on a: JS = (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2
    half = reward(scores(a=3, b=3, c=0), view, {"a": 1}, BLANK)
    js = 0.5 * (math.log2(4 / 3)) + 0.25 * (math.log2(2 / 3) + 1)
    assert half == pytest.approx(1 - js)


def test_score_distribution_of_all_zero_scores_is_defined():
    view, grades = view_of("a", "b"), {"a": 1}
    assert ScoreDistribution()(scores(a=0, b=0), view, grades, BLANK) == 0.0
    assert ScoreDistribution()(scores(a=-4, b=0), view, grades, BLANK) == 0.0


def test_score_distribution_survives_extreme_scores():
    view, grades = view_of("a", "b"), {"a": 1}
    for a, b in [(math.inf, 1.0), (1e308, 1e308), (5e-324, 1e300), (math.nan, 2.0)]:
        value = ScoreDistribution()(scores(a=a, b=b), view, grades, BLANK)
        assert value is not None and 0.0 <= value <= 1.0


def test_score_distribution_does_not_apply_to_orders():
    view = view_of("a", "b")
    assert ScoreDistribution()(order("a", "b"), view, {"a": 1}, BLANK) is None
