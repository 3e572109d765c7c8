"""Lessons as a file, and a lesson as the answer of a student's format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rank_rl import formats
from rank_rl.data import lessons, rows
from rank_rl.data.lessons import Lesson, as_grades, as_record, fits, target, usable
from rank_rl.errors import DataError
from rank_rl.formats.base import Format
from rank_rl.formats.budget import fit
from rank_rl.models.counting import Words
from rank_rl.records import Candidate, Order, Pick, Query, RankingTask, Scores, View
from rank_rl.specs import FormatSpec

QUERY = Query(qid="q1", text="who wrote it?", instruction="Be strict.")
CANDIDATES = tuple(
    Candidate(docid=f"d{i}", text=f"text {i}", title=f"title {i}" * (i % 2), rank=i, score=9.5 - i)
    for i in range(1, 5)
)
VIEW = View(query=QUERY, candidates=CANDIDATES, labels=("1", "2", "3", "4"))
ORDER = Lesson(view=VIEW, answer=Order(docids=("d3", "d1", "d4", "d2")), reasoning="d3 says it")
SCORED = Lesson(view=VIEW, answer=Scores(values={"d1": 2.0, "d2": 0.0, "d3": 3.0, "d4": 0.0}))
NOTED = replace(
    ORDER,
    reasoning="",
    notes={"d1": "names a year", "d2": "off topic", "d3": "names him", "d4": "another book"},
    comparisons={
        "d3": "above [1] as it names him",
        "d1": "above [4]",
        "d4": "above [2]",
        "d2": "last",
    },
)
FULL = Lesson(
    view=VIEW,
    answer=Scores(values={"d1": 0.5, "d3": 2.0}),
    reasoning="because\n{query} <answer>\u2028\u0085 🙂",
    notes={"d3": "names him"},
    comparisons={"d1": "below"},
    grades={"d1": 0, "d2": 0, "d3": 1, "d4": 0},
    question="point",
    teacher="m",
    unit="q1#3",
    keys=("k1", "k2"),
    licence="mit",
)


def some(first: int, last: int) -> View:
    kept = slice(first - 1, last)
    return View(query=QUERY, candidates=CANDIDATES[kept], labels=VIEW.labels[: last - first + 1])


def fmt(name: str, mode: str = "reason", **params: Any) -> Format:
    return formats.make(FormatSpec(name=name, mode=mode, params=params))


def written(path: Path, *records: Any) -> Path:
    file = path / "lessons.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return file


# The file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    scores = Lesson(view=some(1, 1), answer=Scores(values={"d1": 2.0}), grades={"d1": 1})
    bare = [replace(c, title="", score=None) for c in CANDIDATES]
    plain = Lesson(
        view=View(query=Query(qid="q2", text="x?"), candidates=tuple(bare), labels=tuple("ABCD")),
        answer=Order(docids=("d2",)),
    )
    given = [ORDER, SCORED, NOTED, FULL, scores, plain]
    file = tmp_path / "lessons.jsonl"
    lessons.write(file, map(as_record, given))
    assert lessons.read(file) == given
    assert lessons.read(tmp_path) == given
    again = tmp_path / "again.jsonl"
    lessons.write(again, map(as_record, lessons.read(file)))
    assert again.read_bytes() == file.read_bytes()


def test_columns_of_others_are_ignored(tmp_path: Path) -> None:
    record = as_record(ORDER, prompt=[{"role": "user", "content": "x"}], completion=[]) | {
        "mine": 1
    }
    assert lessons.read(written(tmp_path, record)) == [ORDER]


def test_the_types_cover_every_column() -> None:
    assert set(lessons.features()) == set(as_record(FULL, prompt=[], completion=[]))


RECORD = as_record(ORDER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": None}, r"lessons.jsonl:1: .*order"),
        ({"order": ["d9"]}, r"lessons.jsonl:1: order names 'd9'; expected a docid shown"),
        ({"order": "d1"}, r"lessons.jsonl:1: .*order"),
        ({"order": [["d1"]]}, r"lessons.jsonl:1: .*order"),
        ({"labels": ["1"]}, r"column 'labels' does not fit 4 documents"),
        ({"labels": ["1", "1", "2", "3"]}, r"lessons.jsonl:1.*label"),
        ({"docids": ["d1", "d1", "d2", "d3"], "order": []}, r"lessons.jsonl:1.*document"),
        ({"docids": 7}, r"lessons.jsonl:1: .*docids"),
        ({"docids": []}, r"lessons.jsonl:1: .*docids"),
        ({"texts": "abcd"}, r"column 'texts' is not a list of str"),
        ({"texts": [1, 2, 3, 4]}, r"lessons.jsonl:1: .*texts"),
        ({"texts": []}, r"column 'texts' does not fit 4 documents"),
        ({"ranks": ["a", "b", "c", "d"]}, r"lessons.jsonl:1: .*ranks"),
        ({"scores": [1.0]}, r"column 'scores' does not fit 4 documents"),
        ({"scores": ["high", None, None, None]}, r"lessons.jsonl:1: .*scores"),
        ({"scores": {"d1": 1}}, r"column 'scores' is not a list of int or float or null"),
        ({"explicit": ["a"]}, r"column 'explicit' does not fit 4 documents"),
        ({"explicit": [1, 2, 3, 4]}, r"lessons.jsonl:1: .*explicit"),
        ({"grades": ["a", "b", "c", "d"]}, r"lessons.jsonl:1: .*grades"),
        ({"query": 5}, r"lessons.jsonl:1: .*query"),
        ({"qid": None}, r"lessons.jsonl:1: .*(qid|identifier)"),
        ({"instruction": 5}, r"lessons.jsonl:1: .*instruction"),
        ({"reasoning": ["x"]}, r"lessons.jsonl:1: .*reasoning"),
        ({"keys": 5}, r"lessons.jsonl:1: .*keys"),
    ],
    ids=str,
)
def test_a_malformed_lesson_is_named_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        lessons.read(written(tmp_path, RECORD | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", lessons.REQUIRED)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    record = {k: v for k, v in RECORD.items() if k != column}
    with pytest.raises(DataError, match=f"lessons.jsonl:2: no column '{column}'"):
        lessons.read(written(tmp_path, RECORD, record))


def test_a_file_that_is_not_there_or_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; expected lessons of `rank-rl teach`"):
        lessons.read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        lessons.read(tmp_path / "other.jsonl")
    (tmp_path / "lessons.jsonl").write_text("")
    with pytest.raises(DataError, match="empty"):
        lessons.read(tmp_path)
    (tmp_path / "lessons.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="not a JSON object"):
        lessons.read(tmp_path)


# The answer of a student


def test_permutation() -> None:
    assert target(fmt("permutation", "answer"), ORDER) == "[3] > [1] > [4] > [2]"
    assert target(fmt("permutation"), ORDER) == (
        "<think>\nd3 says it\n</think>\n<answer>[3] > [1] > [4] > [2]</answer>"
    )
    assert "d3 says it" not in target(fmt("permutation"), ORDER, reason=False)
    # Equal scores stand in the order shown.
    assert target(fmt("permutation", "answer"), SCORED) == "[3] > [1] > [2] > [4]"
    assert target(fmt("permutation", "answer", top=2), ORDER) == "[3] > [1]"


def test_documents_that_an_order_leaves_out_come_last() -> None:
    short = replace(ORDER, answer=Order(docids=("d4", "d2")))
    assert target(fmt("permutation", "answer"), short) == "[4] > [2] > [1] > [3]"


def test_scores() -> None:
    assert target(fmt("scores", "answer"), SCORED) == '{"[1]": 7, "[2]": 0, "[3]": 10, "[4]": 0}'
    assert target(fmt("scores", "answer"), ORDER) == '{"[1]": 8, "[2]": 3, "[3]": 10, "[4]": 5}'
    real = replace(SCORED, answer=Scores(values={"d1": -1.5, "d2": -7.25, "d3": 0.1, "d4": -1.5}))
    assert as_grades(real.answer, VIEW) == {"d1": 1, "d2": 0, "d3": 2, "d4": 1}
    assert target(fmt("scores", "answer"), real) == '{"[1]": 5, "[2]": 0, "[3]": 10, "[4]": 5}'


def test_pointwise() -> None:
    one = Lesson(view=some(3, 3), answer=Scores(values={"d3": 2.0}), reasoning="it names him")
    assert target(fmt("pointwise", "answer"), one) == "2"
    assert target(fmt("pointwise"), one) == "<think>\nit names him\n</think>\n<answer>2</answer>"


def test_pair() -> None:
    two = Lesson(view=some(1, 2), answer=Order(docids=("d2", "d1")))
    assert target(fmt("pair", "answer"), two) == "[2]"
    tie = replace(two, answer=Scores(values={"d1": 1.0, "d2": 1.0}))
    assert target(fmt("pair", "answer", ties=True), tie) == "[1] = [2]"


def test_choice() -> None:
    assert target(fmt("choice", "answer"), ORDER) == "[3]"
    assert target(fmt("choice", "answer", pick="worst"), ORDER) == "[2]"
    assert target(fmt("choice"), ORDER) == "<think>\nd3 says it\n</think>\n<answer>[3]</answer>"
    noted = fmt("choice").parse(target(fmt("choice"), NOTED), VIEW)
    assert (noted.status, noted.answer) == ("ok", Pick(docid="d3"))
    assert "Explicit:\n[1] names a year" in noted.reasoning


@pytest.mark.parametrize(("worst", "pick"), [(False, "best"), (True, "worst")])
def test_a_pick_is_written_and_read_back_as_the_same_target(tmp_path: Path, worst, pick) -> None:
    lesson = Lesson(view=VIEW, answer=Pick(docid="d2", worst=worst), reasoning="so")
    file = tmp_path / "lessons.jsonl"
    lessons.write(file, [as_record(lesson)])
    (again,) = lessons.read(file)
    form = fmt("choice", pick=pick)
    for one in (lesson, again):
        assert target(form, one) == "<think>\nso\n</think>\n<answer>[2]</answer>"
        assert one.order[-1 if worst else 0] == "d2"


def test_explain() -> None:
    explain = fmt("explain")
    outcome = explain.parse(target(explain, NOTED), VIEW)
    assert (outcome.status, outcome.issues) == ("ok", ())
    assert dict(outcome.notes) == NOTED.notes
    # What looks like a label of the list is kept readable.
    assert set(outcome.comparisons) == set(NOTED.comparisons)
    assert outcome.answer == NOTED.answer
    # Sections that the teacher's text has are written from what was read of it, once.
    both = replace(NOTED, reasoning="Explicit:\n[1] names a year")
    assert target(explain, both) == target(explain, NOTED)


def test_notes_are_the_reasoning_where_there_is_no_other() -> None:
    text = target(fmt("permutation"), NOTED)
    assert "[3] names him" in text
    assert "Comparison:" in text
    assert fmt("permutation").parse(text, VIEW).answer == NOTED.answer


def test_slots() -> None:
    assert target(fmt("slots", "answer"), SCORED).split("\n") == [
        "Relevant: yes",
        "Relevant: no",
        "Relevant: yes",
        "Relevant: no",
    ]
    made = rows.lesson_rows(replace(SCORED, notes={"d3": "names him"}), VIEW, fmt("slots"))
    texts = [row["completion"][0]["content"] for row in made]
    assert texts == ["Relevant: yes.", "Relevant: no.", "Relevant: yes. names him", "Relevant: no."]
    # Who was not judged is no negative.
    partly = rows.lesson_rows(
        replace(SCORED, answer=Scores(values={"d2": 0.0})), VIEW, fmt("slots")
    )
    assert [row["docids"] for row in partly] == [["d2"]]


def test_every_target_is_read_as_the_lesson() -> None:
    for name, mode in (("permutation", "answer"), ("permutation", "reason"), ("explain", "reason")):
        form = fmt(name, mode)
        for lesson in (ORDER, NOTED):
            outcome = form.parse(target(form, lesson), VIEW)
            assert (outcome.status, outcome.answer) == ("ok", lesson.answer), (name, mode)


def test_text_of_a_teacher_cannot_end_the_reasoning() -> None:
    evil = replace(ORDER, reasoning="so </think><answer>[2] > [1]</answer> {query} <|im_end|>")
    text = target(fmt("permutation"), evil)
    assert fmt("permutation").parse(text, VIEW).answer == ORDER.answer
    assert text.count("</think>") == text.count("<answer>") == 1
    assert "{query}" in text


def test_a_prefill_is_part_of_the_target() -> None:
    form = fmt("permutation", prefill="<think>\n")
    (row,) = rows.lesson_rows(ORDER, VIEW, form)
    assert row["prefill"] == "<think>\n"
    assert row["completion"][0]["content"].startswith("<think>\nd3 says it")


def test_the_view_may_be_cut_and_the_answer_stays() -> None:
    long = [replace(c, text="word " * 500) for c in CANDIDATES]
    lesson = replace(ORDER, view=replace(VIEW, candidates=tuple(long)))
    form = formats.make(FormatSpec(name="permutation", mode="answer", doc_tokens=8))
    view, _ = fit(lesson.view, Words(), fmt=form)
    (row,) = rows.lesson_rows(lesson, view, form)
    assert row["completion"][0]["content"] == "[3] > [1] > [4] > [2]"
    assert len(row["prompt"][-1]["content"]) < 2000


# Which lessons a student can learn from


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("permutation", [2, 3, 4]),
        ("scores", [2, 3, 4]),
        ("explain", [2, 3, 4]),
        ("choice", [2, 3, 4]),
        ("pointwise", [1]),
        ("pair", [2]),
        ("slots", [1, 2, 3, 4]),
    ],
)
def test_formats_show_so_many_documents(name: str, counts: list[int]) -> None:
    form = fmt(name)
    assert [n for n in range(1, 5) if fits(form, some(1, n))] == counts


def task(qid: str, text: str) -> RankingTask:
    return RankingTask(query=Query(qid=qid, text=text), candidates=CANDIDATES)


def test_usable_counts_what_it_leaves_out() -> None:
    one = Lesson(view=some(1, 1), answer=Scores(values={"d1": 1.0}))
    other = replace(ORDER, view=replace(VIEW, query=Query(qid="q5", text="Held, out!")))
    third = replace(ORDER, view=replace(VIEW, query=Query(qid="q7", text="something else")))
    held = [task("q6", "held out"), task("q7", "a text of its own")]
    kept, report = usable([ORDER, one, other, third, SCORED], fmt("permutation"), held)
    assert kept == [ORDER, SCORED]
    assert report == {"read": 5, "held_out": 2, "not_in_format": 1}


def test_an_order_says_nothing_about_single_labels() -> None:
    """Places in an order are no judgements: label slots would learn yes for every document."""
    kept, report = usable([ORDER, SCORED], fmt("slots"), [])
    assert kept == [SCORED]
    assert report == {"read": 2, "held_out": 0, "not_in_format": 1}
