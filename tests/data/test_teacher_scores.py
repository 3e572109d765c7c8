"""A teacher's run: whose scores are kept, and what it may grade."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rank_rl import data
from rank_rl.data import lessons
from rank_rl.data.lessons import Lesson
from rank_rl.data.sampling import sample_tasks
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Order, Query, Scores, View
from rank_rl.specs import DataSpec, SamplerSpec


def collection(tmp_path: Path, run: str, **changes: object) -> data.Collection:
    candidates = [{"docid": f"d{i}", "text": f"text {i}"} for i in range(1, 5)]
    tasks = [
        {"qid": "graded", "query": "a?", "grades": {"d2": 2}, "split": "train"},
        {"qid": "bare", "query": "b?", "split": "train"},
        {"qid": "empty", "query": "d?", "grades": {}, "split": "train"},
        {"qid": "held", "query": "c?", "grades": {"d1": 1}, "split": "test"},
    ]
    file, teacher = tmp_path / "tasks.jsonl", tmp_path / "teacher.trec"
    file.write_text("".join(json.dumps({**t, "candidates": candidates}) + "\n" for t in tasks))
    teacher.write_text(run)
    spec = DataSpec.model_validate(
        {
            "source": "jsonl",
            "path": str(file),
            "validation": 0,
            "teacher_run": str(teacher),
            **changes,
        }
    )
    return data.load(spec, seed=0)


RUN = (
    "graded Q0 d4 1 8.5 t\ngraded Q0 elsewhere 2 7 t\nbare Q0 d3 1 3 t\nbare Q0 d2 2 1 t\n"
    "bare Q0 d1 3 1 t\nheld Q0 d1 1 9 t\nunknown Q0 d1 1 9 t\n"
)


BOTH = {"teacher_grades": 3, "teacher_relevant": 3}


def test_scores_of_training_candidates_are_kept(tmp_path: Path) -> None:
    found = collection(tmp_path, RUN)
    assert found.teacher == {"graded": {"d4": 8.5}, "bare": {"d3": 3.0, "d2": 1.0, "d1": 1.0}}
    facts = dict(found.provenance["teacher"])
    assert len(facts.pop("file")) == 64
    assert facts == {"queries": 2, "scores": 4, "graded": 0}
    assert [t.grades for t in found.train] == [{"d2": 2}, None, {}]
    changed = collection(tmp_path, RUN.replace("8.5", "8.6"))
    assert changed.provenance["teacher"]["file"] != found.provenance["teacher"]["file"]


def lesson(qid: str, answer: Order | Scores) -> Lesson:
    shown = tuple(Candidate(docid=f"d{i}", text="t", rank=i) for i in range(1, 5))
    view = View(query=Query(qid=qid, text=qid), candidates=shown, labels=("1", "2", "3", "4"))
    return Lesson(view=view, answer=answer)


def taught(tmp_path: Path, *made: Lesson) -> data.Collection:
    folder = tmp_path / "teach"
    folder.mkdir(exist_ok=True)
    lessons.write(folder / "lessons.jsonl", (lessons.as_record(one) for one in made))
    return collection(tmp_path, "", teacher_run=str(folder))


def test_lessons_serve_as_a_teachers_scores(tmp_path: Path) -> None:
    first, second = Order(docids=("d3", "d1", "d2", "d4")), Order(docids=("d3", "d4"))
    found = taught(tmp_path, lesson("graded", first), lesson("graded", second))
    # Places count from the top, and a document that a list left out has nothing.
    assert found.teacher == {"graded": {"d1": 0.375, "d2": 0.25, "d3": 1.0, "d4": 0.5}}
    values = Scores(values={"d2": 7.0, "d4": 1.0})
    found = taught(tmp_path, lesson("bare", values), lesson("held", values))
    assert found.teacher == {"bare": {"d2": 7.0, "d4": 1.0}}


def test_lessons_of_two_kinds_do_not_compare(tmp_path: Path) -> None:
    made = lesson("graded", Order(docids=("d1",))), lesson("bare", Scores(values={"d1": 1.0}))
    with pytest.raises(DataError, match="orders and scores, which do not compare"):
        taught(tmp_path, *made)


def test_the_best_documents_are_relevant_where_nobody_graded(tmp_path: Path) -> None:
    found = collection(tmp_path, RUN, teacher_relevant=2)
    # d1 and d2 score the same: the first stage's d1.
    assert [t.grades for t in found.train] == [{"d2": 2}, {"d3": 1, "d1": 1}, {}]
    assert found.provenance["teacher"]["graded"] == 1
    assert found.test[0].grades == {"d1": 1}


def test_a_teachers_scores_can_be_the_grades_of_all_queries(tmp_path: Path) -> None:
    """From 0 for the least score of the run to the top; nobody's grades are mixed with them."""
    found = collection(tmp_path, RUN, teacher_grades=10)
    assert [(t.query.qid, t.grades) for t in found.train] == [
        ("graded", {"d4": 10}),
        ("bare", {"d3": round(20 / 7.5), "d2": 0, "d1": 0}),
    ]
    assert found.provenance["teacher"]["graded"] == 2
    assert found.test[0].grades == {"d1": 1}
    same = collection(tmp_path, "bare Q0 d1 1 2 t\nbare Q0 d2 2 2 t\n", teacher_grades=3)
    assert [t.grades for t in same.train] == [{"d1": 0, "d2": 0}]
    for wrong in ({"teacher_grades": 3}, {"teacher_run": "x", **BOTH}):
        with pytest.raises(ValidationError, match=r"set teacher_run|both make grades: set one"):
            DataSpec(source="jsonl", **wrong)


def test_a_run_of_other_queries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="scores no candidate of a training query"):
        collection(tmp_path, "held Q0 d1 1 9 t\n")
    with pytest.raises(DataError, match=r"teacher.trec:1: 2 columns"):
        collection(tmp_path, "graded d1\n")
    with pytest.raises(DataError, match=f"{tmp_path}: is a folder; expected a file"):
        collection(tmp_path, RUN, teacher_run=str(tmp_path))
    with pytest.raises(DataError, match=r"data.teacher_run .*none.trec: no such file .stage rank"):
        collection(tmp_path, RUN, teacher_run=str(tmp_path / "none.trec"))
    with pytest.raises(ValidationError, match="set teacher_run"):
        DataSpec(source="jsonl", teacher_relevant=2)
    assert "teacher" not in collection(tmp_path, RUN, teacher_run=None).provenance


def test_empty_grades_of_a_query_that_the_teacher_scored_are_no_grades(tmp_path: Path) -> None:
    run = RUN + "empty Q0 d2 1 4 t\n"
    found = collection(tmp_path, run)
    assert [t.grades for t in found.train] == [{"d2": 2}, None, None]
    pairs, report = sample_tasks(found.train, SamplerSpec(size=2), seed=0)
    assert [task.query.qid for task, _ in pairs] == ["graded", "bare", "empty"]
    assert report.dropped == 0
    graded = collection(tmp_path, run, teacher_relevant=1)
    assert [t.grades for t in graded.train] == [{"d2": 2}, {"d3": 1}, {"d2": 1}]
