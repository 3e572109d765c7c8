"""Each filter in both directions, what it cannot check, and how drops are counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from teach_runs import answered, listed, pointed, task

from rank_rl.data.lessons import Lesson
from rank_rl.errors import RecipeError
from rank_rl.records import Order, Outcome, Query, RankingTask, Scores, View, numbered
from rank_rl.specs import FilterSpec, LabelSpec, TeachSpec
from rank_rl.teachers import filters, gather
from rank_rl.teachers.filters import Filter, Item
from rank_rl.teachers.units import Answered, Trail

FOUR = task(4)


def made(name: str, **params: Any) -> Filter:
    return filters.make(FilterSpec(name=name, params=params))


def shown(about: RankingTask = FOUR) -> View:
    return numbered(about.query, about.candidates)


def item(
    said: str | Mapping[str, float] = "1 2 3 4",
    *,
    grades: Mapping[str, int] | None = None,
    view: View | None = None,
    answered: Answered | None = None,
    outcome: Mapping[str, Any] | None = None,
    **told: Any,
) -> Item:
    """What became of one answer: an order ``"2 1"`` or scores."""
    if isinstance(said, str):
        answer: Order | Scores = Order(docids=tuple(f"d{n}" for n in said.split()))
    else:
        answer = Scores(values=said)
    lesson = Lesson(
        view=view or shown(), answer=answer, grades=grades, unit="q1",
        **{"question": "list", "keys": ("k",), **told},
    )  # fmt: skip
    read = Outcome(**{"status": "ok", "answer": answer, **(outcome or {})})
    return Item(lesson=lesson, outcome=read, answered=answered)


def imported(said: str | Mapping[str, float] = "1 2 3 4", **more: Any) -> Item:
    (one,) = gather.imported([item(said, **more).lesson])
    return one


def test_readable() -> None:
    readable, strict = made("readable"), made("readable", repaired=False)
    repaired = item(outcome={"status": "repaired", "issues": ("text_after",)})
    partial = item(outcome={"status": "repaired", "issues": ("missing",)})
    failed = item(outcome={"status": "failed", "answer": None, "issues": ("no_list", "truncated")})
    cut = Item(lesson=item().lesson, outcome=item().outcome, finish="length")
    assert readable(item()) == strict(item()) == ""
    assert readable(repaired) == ""
    assert strict(repaired) == "repaired: text_after"
    assert readable(partial) == "incomplete: missing"
    assert made("readable", incomplete=True)(partial) == ""
    assert readable(failed) == "unreadable: no_list, truncated"
    assert readable(cut) == "cut off at max_tokens"
    assert readable(imported()) == ""


def test_quality() -> None:
    quality = made("quality", least=0.6)
    assert quality(item("1 2 3 4", grades={"d1": 1})) == ""
    assert quality(item("2 1 3 4", grades={"d1": 1})) == ""  # 1 / log2(3) = 0.631
    assert quality(item("2 3 1 4", grades={"d1": 1})) == "nDCG@10 0.500 below 0.6"
    # Scores are an order too; what an answer leaves out follows in first-stage order.
    assert quality(item({"d1": 0.0, "d2": 5.0, "d3": 4.0}, grades={"d1": 1})) != ""
    assert quality(item("4", grades={"d1": 1})) == ""


@pytest.mark.parametrize(
    "grades", [None, {}, {"d1": 0}, {"d9": 1}, {"d1": 0, "d2": 0, "d3": 0, "d4": 0}]
)
@pytest.mark.parametrize("name", ["quality", "first_relevant"])
def test_without_a_relevant_document_shown_quality_cannot_be_checked(
    name: str, grades: Mapping[str, int] | None
) -> None:
    assert made(name)(item("4 3 2 1", grades=grades)) == ""


def test_first_relevant() -> None:
    first = made("first_relevant")
    assert first(item("2 1 3 4", grades={"d2": 1})) == ""
    assert first(item("1 2 3 4", grades={"d2": 1})) == "first choice d1 is not relevant"
    assert first(item({"d1": 1, "d2": 2, "d3": 0, "d4": 0}, grades={"d2": 1})) == ""
    every = dict.fromkeys(FOUR.docids, 1)
    assert first(item("1 2 3 4", grades=every)) == ""


def unit(*trails: Trail) -> Item:
    return item(answered=answered(FOUR, *trails))


def test_agreement_by_ndcg_of_scores_as_grades() -> None:
    agree = made("agreement", questions=["point", "list"], least=0.9)
    scores = pointed(FOUR, {"d1": 3.0, "d2": 0.0, "d3": 0.0, "d4": 0.0})
    assert agree(unit(scores, listed(FOUR, "1 4 3 2"))) == ""
    assert agree(unit(scores, listed(FOUR, "4 1 3 2"))) == "point and list agree to 0.631 only"


def test_agreement_of_two_orders() -> None:
    tau = made("agreement", questions=["a", "b"], least=0.0, measure="tau")
    first = listed(FOUR, "1 2 3 4", name="a")
    assert tau(unit(first, listed(FOUR, "2 1 3 4", name="b"))) == ""
    assert tau(unit(first, listed(FOUR, "4 3 2 1", name="b"))) == "a and b agree to -1.000 only"
    ndcg = made("agreement", questions=["a", "b"], least=0.99)
    assert ndcg(unit(first, listed(FOUR, "1 2 3 4", name="b"))) == ""
    assert ndcg(unit(first, listed(FOUR, "4 3 2 1", name="b"))) != ""


def test_disagreement_by_failure_counts_and_a_question_not_asked_does_not() -> None:
    agree = made("agreement", questions=["point", "list"])
    assert agree(unit(listed(FOUR, "1 2 3 4"))) == ""
    lost = pointed(FOUR, {"d1": None, "d2": 1.0, "d3": 1.0, "d4": 1.0})
    assert agree(unit(lost, listed(FOUR, "1 2 3 4"))) == "one of the two answers cannot be read"
    assert agree(imported("4 3 2 1")) == ""


@pytest.mark.parametrize(
    "params", [{"questions": ["a"]}, {"questions": ["a", "b"], "measure": "x"}]
)
def test_agreement_is_checked_when_it_is_made(params: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="agreement needs two questions|'ndcg' or 'tau'"):
        made("agreement", **params)


def test_stable() -> None:
    stable = made("stable", of="list", least=0.5)
    same = [listed(FOUR, "1 2 3 4", sample=n) for n in (0, 1)]
    other = listed(FOUR, "4 3 2 1", sample=2)
    assert stable(unit(*same)) == ""
    assert stable(unit(*same, other)) == "samples agree to 0.000 only"
    assert stable(unit(same[0])) == ""  # one sample cannot be checked
    assert stable(unit(same[0], listed(FOUR, "", sample=1))) == ""
    assert stable(unit(listed(FOUR, "1 2 3 4", name="else"))) == ""
    assert stable(imported()) == ""


def test_length() -> None:
    length = made("length", least=3, most=5)
    assert length(item(reasoning="one two three")) == ""
    assert length(item(reasoning="one two")) == "reasoning of 2 words"
    assert length(item(reasoning="one two three four five six")) == "reasoning of 6 words"
    assert length(item()) == "reasoning of 0 words"
    notes = {"d1": "one two", "d2": "three"}
    assert length(item(notes=notes)) == ""
    assert length(item(notes=notes, comparisons={"d1": "four five six"})) == "reasoning of 6 words"
    # Where sections were read out of the reasoning they are not counted twice.
    assert length(item(reasoning="one two three", notes=notes)) == ""
    assert made("length")(item()) == ""
    assert length(imported(reasoning="one")) == "reasoning of 1 words"


def test_explained() -> None:
    explained = made("explained", explicit=0.5, comparison=0.25)
    two = {"d1": "a", "d2": "b"}
    assert explained(item(notes=two, comparisons={"d1": "x"})) == ""
    assert explained(item(notes=two)) == "comparison reasoning for 0 of 4 documents"
    assert explained(item(notes={"d1": "a"}, comparisons={"d1": "x"})) == (
        "explicit reasoning for 1 of 4 documents"
    )
    assert made("explained")(imported(notes=dict.fromkeys(FOUR.docids, "why"))) == ""
    assert made("explained")(imported()) != ""


def test_repeats() -> None:
    repeats = made("repeats")
    same = {"d1": "Nothing  about it.", "d2": "nothing about it.", "d3": "it names him"}
    assert repeats(item(notes=same)) == ""  # 2 of 3 are different, 0.6 are needed
    assert repeats(item(notes=same | {"d4": "nothing about it."})) == (
        "2 different reasons for 4 documents"
    )
    assert repeats(item(notes={"d1": "a"})) == ""
    assert repeats(item()) == ""


def test_copied() -> None:
    copied = made("copied")
    assert copied(item("1 2 3 4")) == "the order shown, repeated"
    assert copied(item("2 1 3 4")) == ""
    assert copied(item("1 2")) == "the order shown, repeated"  # completed by the order shown
    assert copied(item(dict.fromkeys(FOUR.docids, 1.0))) == ""
    two = task(2)
    assert copied(item("1 2", view=shown(two))) == ""
    # Shown in another order than the first stage's, the order shown counts.
    turned = numbered(FOUR.query, FOUR.candidates[::-1])
    assert copied(item("4 3 2 1", view=turned)) == "the order shown, repeated"
    assert copied(item("1 2 3 4", view=turned)) == ""


def test_spread() -> None:
    spread = made("spread")
    assert spread(item({"d1": 1.0, "d2": 1.0})) == "all scores are equal"
    assert spread(item({"d1": 1.0, "d2": 2.0})) == ""
    assert spread(item({"d1": 1.0})) == ""
    assert spread(item("1 2 3 4")) == ""
    assert spread(imported(dict.fromkeys(FOUR.docids, 0.0))) == "all scores are equal"


def test_every_filter_of_the_table_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [n for n in filters.TABLE if f"def test_{n}" not in source] == []


# Counting


def judge(items: list[Item], *specs: FilterSpec, held_out: list[RankingTask] | None = None) -> Any:
    return gather.judge(items, specs, held_out or [])


def test_the_first_filter_that_objects_is_counted_and_all_are_named() -> None:
    bad = item("1 2 3 4", grades={"d4": 1}, keys=("k1",))
    copies = [item("1 2 3 4", keys=(f"k{n}",)) for n in range(2, 7)]
    judged = judge(
        [bad, *copies, item("4 3 2 1", keys=("k9",))],
        FilterSpec(name="quality", params={"least": 0.9}),
        FilterSpec(name="copied"),
    )
    report = judged.as_dict()
    assert (report["answers"], report["kept"]) == (7, 1)
    counts = {n: (d["dropped"], d["alone"]) for n, d in report["dropped"].items()}
    assert counts == {
        "no answer": (0, 0),
        "in the test set": (0, 0),
        "readable": (0, 0),
        "quality": (1, 1),
        "copied": (5, 6),
    }
    assert len(report["dropped"]["copied"]["examples"]) == gather.EXAMPLES
    assert list(judged.reasons.values())[0] == "quality: nDCG@10 0.431 below 0.9"


def test_readable_is_always_there_and_may_be_strict() -> None:
    repaired = item(outcome={"status": "repaired", "issues": ("text_after",)})
    assert len(judge([repaired]).kept) == 1
    strict = FilterSpec(name="readable", params={"repaired": False})
    assert judge([repaired], strict).as_dict()["dropped"]["readable"]["dropped"] == 1


def test_a_filter_for_one_question_leaves_the_others_alone() -> None:
    spec = FilterSpec(name="copied", question="list")
    judged = judge([item(question="list"), item(question="other")], spec)
    assert [lesson.question for lesson in judged.kept] == ["other"]
    assert judged.drops["copied (list)"].dropped == 1


def test_two_filters_of_one_name_count_an_answer_once() -> None:
    loose = FilterSpec(name="length", params={"least": 1})
    judged = judge([item()], loose, FilterSpec(name="length", params={"least": 5}))
    assert (judged.drops["length"].dropped, judged.drops["length"].alone) == (1, 1)


def test_a_failed_request_is_no_answer_and_not_only_unreadable() -> None:
    failed = item(outcome={"status": "failed", "answer": None, "issues": ("no_answer",)})
    judged = judge([failed])
    assert (judged.drops["no answer"].dropped, judged.drops["readable"].dropped) == (1, 0)


def test_queries_of_the_test_part_are_removed_by_id_and_by_text() -> None:
    def about(qid: str, text: str) -> Item:
        query = Query(qid=qid, text=text)
        return item(view=numbered(query, FOUR.candidates), keys=(qid,))

    held = RankingTask(query=Query(qid="q7", text="Who wrote it?"), candidates=FOUR.candidates)
    items = [
        about("q7", "something else"),
        about("q8", "who WROTE it"),
        about("q9", "who read it?"),
    ]
    judged = judge(items, held_out=[held])
    assert [lesson.view.query.qid for lesson in judged.kept] == ["q9"]
    assert judged.drops["in the test set"].dropped == 2


AGREE = FilterSpec(name="agreement", params={"questions": ["point", "list"], "least": 0.9})


def test_a_filter_of_scope_unit_drops_the_labels_too() -> None:
    teach = TeachSpec(labels=LabelSpec(name="rank", params={"question": "list"}), filters=[AGREE])
    point = pointed(FOUR, {"d1": 3.0, "d2": 0.0, "d3": 0.0, "d4": 0.0})
    good, bad = listed(FOUR, "1 2 3 4"), listed(FOUR, "4 3 2 1")
    for order, kept in ((good, 1), (bad, 0)):
        one = answered(FOUR, point, order)
        judged = judge([item(answered=one)], AGREE)
        tasks, without = gather.labelled([one], teach, judged, [])
        assert (len(judged.kept), len(tasks), without) == (kept, kept, 1 - kept)


def test_a_filter_of_scope_unit_drops_labels_where_no_question_gives_lessons() -> None:
    teach = TeachSpec(labels=LabelSpec(name="rank", params={"question": "list"}), filters=[AGREE])
    point = pointed(FOUR, {"d1": 3.0, "d2": 0.0, "d3": 0.0, "d4": 0.0})
    one = answered(FOUR, point, listed(FOUR, "4 3 2 1"))
    tasks, without = gather.labelled([one], teach, judge([], AGREE), [])
    assert (tasks, without) == ([], 1)


def test_labelled_tasks_hold_grades_reasons_and_labels() -> None:
    teach = TeachSpec(labels=LabelSpec(name="rank"))
    about = task(3, {"d1": 1})
    one = answered(about, listed(about, "3 1 2"))
    tasks, without = gather.labelled([one], teach, judge([]), [])
    assert without == 0
    assert tasks[0].grades == {"d3": 2, "d1": 1, "d2": 0}
    assert tasks[0].query.metadata == {"teacher": {"labels": {"d3": 2.0, "d1": 1.0, "d2": 0.0}}}
    assert tasks[0].split == "train"
