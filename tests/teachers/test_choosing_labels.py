"""Which of several answers is kept, and the label of a document; numbers are worked out by hand."""

from __future__ import annotations

import math

import pytest
from teach_runs import answer, answered, listed, pointed, task

from rank_rl.errors import RecipeError
from rank_rl.metrics import kendall
from rank_rl.records import Order, Ranking, Scores, numbered
from rank_rl.specs import LabelSpec
from rank_rl.teachers import labels
from rank_rl.teachers.choosing import agreement, choose, quality
from rank_rl.teachers.labels import Auto, Fusion, Rank, ScoreLabels, Shortlist, to_grades
from rank_rl.teachers.units import Trail

THREE, FOUR = task(3), task(4)


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ("abcd", "abcd", 1.0),
        ("abcd", "dcba", -1.0),
        ("abcd", "abdc", 2 * 5 / 6 - 1),
        ("abc", "bca", 2 * 1 / 3 - 1),
        ("axb", "bay", -1.0),  # x and y are not shared
        ("ab", "cd", 1.0),
        ("a", "a", 1.0),
        ("", "", 1.0),
    ],
)
def test_kendall(first: str, second: str, tau: float) -> None:
    assert kendall(first, second) == pytest.approx(tau)
    assert kendall(second, first) == pytest.approx(tau)


def test_agreement_is_the_mean_with_the_other_readable_samples() -> None:
    trails = [
        listed(THREE, "1 2 3"),
        listed(THREE, "1 3 2"),
        listed(THREE, ""),
        listed(THREE, "3 2 1"),
    ]
    assert agreement(trails[0], trails) == pytest.approx((1 / 3 - 1) / 2)
    assert agreement(trails[0], trails[:1]) == 1.0
    assert agreement(trails[0], [trails[0], trails[2]]) == 1.0


def test_first_is_the_first_that_can_be_read() -> None:
    trails = [listed(THREE, "", sample=0), listed(THREE, "2 1 3", sample=1), listed(THREE, "1 2 3")]
    assert choose("first", trails, None) == (trails[1],)
    unreadable = [listed(THREE, "", sample=0), listed(THREE, "", sample=1)]
    assert choose("first", unreadable, None) == (unreadable[0],)
    assert choose("consensus", unreadable[:1], None) == (unreadable[0],)
    assert choose("first", [], None) == ()


def test_consensus_is_the_answer_nearest_to_all_others() -> None:
    trails = [
        listed(FOUR, "4 3 2 1", sample=0),
        listed(FOUR, "1 2 4 3", sample=1),
        listed(FOUR, "1 2 3 4", sample=2),
        listed(FOUR, "2 1 3 4", sample=3),
    ]
    assert choose("consensus", trails, None) == (trails[2],)
    # Grades change nothing: consensus does not look at them.
    assert choose("consensus", trails, {"d4": 1}) == (trails[2],)


def test_of_equally_near_answers_the_shorter_one_then_the_first_drawn() -> None:
    long, short = (
        listed(THREE, "1 2 3", sample=0, length=90),
        listed(THREE, "1 2 3", sample=1, length=20),
    )
    third = listed(THREE, "3 2 1", sample=2, length=5)
    assert choose("consensus", [long, short, third], None) == (short,)
    same = [listed(THREE, "1 2 3", sample=n, length=20) for n in (0, 1, 2)]
    assert choose("consensus", same, None) == (same[0],)


def test_unreadable_answers_do_not_vote() -> None:
    trails = [
        listed(THREE, "3 2 1", sample=0),
        listed(THREE, "", sample=1),
        listed(THREE, "", sample=2),
    ]
    assert choose("consensus", trails, None) == (trails[0],)


def test_best_is_by_the_grades_and_without_them_by_agreement() -> None:
    trails = [
        listed(THREE, "1 2 3", sample=0),
        listed(THREE, "1 2 3", sample=1),
        listed(THREE, "3 1 2", sample=2, length=50),
        listed(THREE, "3 2 1", sample=3, length=40),
    ]
    assert choose("best", trails, {"d3": 1}) == (trails[3],)
    assert choose("best", trails, {"d3": 1, "d1": 1}) == (trails[2],)
    assert choose("best", trails, None) == (trails[0],)
    assert choose("best", trails, {"d3": 0}) == (trails[0],)  # nothing is relevant: not checkable


def test_quality_is_ndcg() -> None:
    trail = listed(THREE, "1 3 2")
    assert quality(trail, [trail], {"d3": 1}) == pytest.approx(1 / math.log2(3))


def test_pareto_front_of_quality_and_length() -> None:
    trails = [
        listed(FOUR, "1 2 3 4", sample=0, length=100),  # best, longest
        listed(FOUR, "2 1 3 4", sample=1, length=50),
        listed(FOUR, "2 1 4 3", sample=2, length=60),  # as good as the one before, but longer
        listed(FOUR, "2 3 1 4", sample=3, length=80),  # worse and longer
        listed(FOUR, "2 3 4 1", sample=4, length=10),  # worst, shortest
        listed(FOUR, "2 1 3 4", sample=5, length=50),  # equal in both: the first drawn stays
        listed(FOUR, "", sample=6, length=0),
    ]
    front = choose("pareto", trails, {"d1": 1})
    assert [t.sample for t in front] == [0, 1, 4]


# Labels


def test_rank_counts_from_the_end() -> None:
    one = answered(THREE, listed(THREE, "2 3 1"))
    assert Rank()(one) == {"d2": 2.0, "d3": 1.0, "d1": 0.0}
    assert Rank(question="list", top=2)(one) == {"d2": 2.0, "d3": 1.0, "d1": 0.0}
    assert Rank(question="other")(one) is None
    assert Rank()(answered(THREE, listed(THREE, ""))) is None
    assert Rank()(answered(THREE)) is None


def test_scores_are_means_over_the_views_that_show_a_document() -> None:
    views = [
        numbered(THREE.query, THREE.candidates[:2]),
        numbered(THREE.query, THREE.candidates[1:]),
    ]
    said = [Scores(values={"d1": 1.0, "d2": 4.0}), Scores(values={"d2": 7.0, "d3": 2.0})]
    ranking = Ranking(qid="q1", docids=("d2", "d3", "d1"))
    answers = tuple(answer(v, s) for v, s in zip(views, said, strict=True))
    trail = Trail(question="group", sample=0, ranking=ranking, answers=answers, kind="scores")
    assert ScoreLabels()(answered(THREE, trail)) == {"d2": 5.5, "d3": 2.0, "d1": 1.0}


def test_scores_are_none_where_a_document_got_none() -> None:
    view = numbered(THREE.query, THREE.candidates)
    partly = answer(view, Scores(values={"d1": 1.0, "d2": 0.0}))
    ranking = Ranking(qid="q1", docids=("d1", "d2", "d3"))
    trail = Trail(question="group", sample=0, ranking=ranking, answers=(partly,), kind="scores")
    assert ScoreLabels()(answered(THREE, trail)) is None
    assert ScoreLabels()(answered(THREE, listed(THREE, "1 2 3"))) is None
    assert (
        ScoreLabels()(answered(THREE, pointed(THREE, {"d1": 1.0, "d2": None, "d3": 2.0}))) is None
    )


def test_auto_is_scores_where_there_are_scores() -> None:
    pointwise = pointed(THREE, {"d1": 0.0, "d2": 3.0, "d3": 1.0})
    assert Auto()(answered(THREE, pointwise)) == {"d1": 0.0, "d2": 3.0, "d3": 1.0}
    assert Auto()(answered(THREE, listed(THREE, "2 1 3"), pointwise)) == {
        "d2": 2.0,
        "d1": 1.0,
        "d3": 0.0,
    }


def test_fusion_is_minus_half_the_sum_of_the_logarithms_of_both_ranks() -> None:
    # point: d2, d1, d3; list: d3, d2, d1
    one = answered(THREE, pointed(THREE, {"d1": 1.0, "d2": 3.0, "d3": 0.0}), listed(THREE, "3 2 1"))
    gold = Fusion(questions=("point", "list"))(one)
    assert gold == pytest.approx(
        {
            "d1": -0.5 * math.log(2) - 0.5 * math.log(3),  # -0.8959
            "d2": -0.5 * math.log(1) - 0.5 * math.log(2),  # -0.3466
            "d3": -0.5 * math.log(3) - 0.5 * math.log(1),  # -0.5493
        }
    )
    assert to_grades(gold or {}, None) == {"d2": 2, "d3": 1, "d1": 0}


def test_fusion_with_weights() -> None:
    one = answered(THREE, pointed(THREE, {"d1": 1.0, "d2": 3.0, "d3": 0.0}), listed(THREE, "3 2 1"))
    gold = Fusion(questions=("point", "list"), weights=(2.0, 1.0))(one)
    assert gold == pytest.approx({"d1": -math.log(12), "d2": -math.log(2), "d3": -math.log(9)})
    with pytest.raises(ValueError, match="1 weights for 2 questions"):
        Fusion(questions=("point", "list"), weights=(1.0,))


def test_fusion_needs_all_rankings() -> None:
    point = pointed(THREE, {"d1": 1.0, "d2": 3.0, "d3": 0.0})
    fusion = Fusion(questions=("point", "list"))
    assert fusion(answered(THREE, point)) is None
    assert fusion(answered(THREE, point, listed(THREE, ""))) is None


def test_fusion_labels_only_documents_that_every_ranking_holds() -> None:
    """A document that the list never saw must not be better off than one it put last."""
    point = pointed(FOUR, {"d1": 1.0, "d2": 3.0, "d3": 0.0, "d4": 2.0})  # d2 d4 d1 d3
    gold = Fusion(questions=("point", "list"))(answered(FOUR, point, listed(FOUR, "1 2")))
    assert gold == pytest.approx({"d1": -0.5 * math.log(3), "d2": -0.5 * math.log(2)})
    nothing = pointed(FOUR, {"d3": 1.0, "d4": 3.0})
    assert Fusion(questions=("point", "list"))(answered(FOUR, nothing, listed(FOUR, "1 2"))) is None


FIVE = task(5)
SHORTLIST = Shortlist(listed="list", judged="point", size=2, relevant=2.0)


def test_shortlist_then_hard_negatives_and_the_rest() -> None:
    point = pointed(FIVE, {"d1": 0.0, "d4": 2.0, "d5": 1.9})
    gold = SHORTLIST(answered(FIVE, listed(FIVE, "3 2 1 4 5"), point))
    assert gold == {"d3": 3.0, "d2": 2.0, "d1": 0.0, "d4": 1.0, "d5": 0.0}


def test_shortlist_is_none_where_a_document_left_out_has_no_judgement() -> None:
    first = listed(FIVE, "3 2 1 4 5")
    assert SHORTLIST(answered(FIVE, first)) is None
    assert SHORTLIST(answered(FIVE, first, pointed(FIVE, {"d1": 0.0, "d4": 2.0}))) is None
    assert SHORTLIST(answered(FIVE, first, pointed(FIVE, {"d1": 0, "d4": 2, "d5": None}))) is None
    assert SHORTLIST(answered(FIVE, listed(FIVE, ""), pointed(FIVE, {"d1": 0.0}))) is None


def test_shortlist_of_everything_needs_no_judgement() -> None:
    two = task(2)
    assert SHORTLIST(answered(two, listed(two, "2 1"))) == {"d2": 3.0, "d1": 2.0}


def test_labels_are_made_by_name() -> None:
    made = labels.make(LabelSpec(name="fusion", params={"questions": ["a", "b"]}))
    assert made == Fusion(questions=["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="unknown labels 'fussion'.*fusion"):
        labels.make(LabelSpec(name="fussion"))
    with pytest.raises(RecipeError, match="unknown parameter 'tops'"):
        labels.make(LabelSpec(name="rank", params={"tops": 3}))


@pytest.mark.parametrize(
    ("gold", "levels", "grades"),
    [
        ({"a": 3.0, "b": 0.0, "c": 2.0}, None, {"a": 3, "b": 0, "c": 2}),
        ({"a": 2.5, "b": 0.0, "c": 2.0, "d": 2.0}, None, {"a": 3, "b": 0, "c": 1, "d": 1}),
        ({"a": -0.5, "b": 0.0, "c": -2.0}, None, {"a": 1, "b": 2, "c": 0}),
        ({"a": -1.0, "b": -1.0}, None, {"a": 0, "b": 0}),
        ({"a": 4.0, "b": 2.0, "c": 1.0, "d": 0.0}, 2, {"a": 2, "b": 1, "c": 1, "d": 0}),
        ({"a": -0.3, "b": -0.9, "c": -1.5}, 4, {"a": 4, "b": 2, "c": 0}),
        ({"a": 5.0, "b": 5.0}, 3, {"a": 0, "b": 0}),
    ],
)
def test_grades(gold: dict[str, float], levels: int | None, grades: dict[str, int]) -> None:
    assert to_grades(gold, levels) == grades


def test_an_answer_of_no_scores_and_no_order_gives_no_label() -> None:
    view = numbered(THREE.query, THREE.candidates)
    trail = Trail(
        question="list",
        sample=0,
        ranking=Ranking(qid="q1", docids=THREE.docids),
        answers=(answer(view, Order(docids=("d1",))), answer(view, None)),
        kind="permutation",
    )
    for label in (Rank(), ScoreLabels(), Auto(), Fusion(questions=("list", "list"))):
        assert label(answered(THREE, trail)) is None
