"""Stage sft on what a teacher said, and every stage on the labelled tasks it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rank_rl.data import lessons
from rank_rl.data.lessons import Lesson, as_record
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Order, Query, Scores, View, numbered
from rank_rl.specs import RecipeSpec
from rank_rl.teachers.run import run as teach
from rank_rl.training import common, score, sft

Recipe = Callable[..., RecipeSpec]
REASON = {"name": "permutation", "mode": "reason", "doc_tokens": 16, "prompt_tokens": 900}
SLOTS = {"name": "slots", "mode": "reason"}
# Tasks of stage teach are all of split train.
LABELLED = {"validation_split": None, "validation": 0.25, "test_split": ""}


def view(qid: str, text: str, count: int = 3) -> View:
    documents = [Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in range(1, count + 1)]
    return numbered(Query(qid=qid, text=text), documents)


LISTED = Lesson(
    view=view("t1", "who wrote it?"),
    answer=Order(docids=("d3", "d1", "d2")),
    reasoning="the third one says it",
    notes={"d1": "a year", "d3": "a name"},
)
SECOND = replace(
    LISTED, view=view("t2", "who paid for it?"), answer=Order(docids=("d2", "d3", "d1"))
)
POINTED = Lesson(
    view=view("t1", "who wrote it?", 1),
    answer=Scores(values={"d1": 2.0}),
    reasoning="it names him",
    notes={"d1": "it names him"},
)
SCORED = Lesson(
    view=view("t4", "which one?"),
    answer=Scores(values={"d1": 0.0, "d2": 2.0, "d3": 1.0}),
    notes={"d2": "says it all"},
)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """``file(lesson, …)``: the path of a file of lessons."""

    def write(*given: Lesson) -> str:
        lessons.write(tmp_path / "lessons.jsonl", map(as_record, given))
        return str(tmp_path / "lessons.jsonl")

    return write


def learned(stage: common.Stage) -> list[str]:
    """The answers of all rows, as the loss sees them."""
    encoded, _ = sft.training_rows(stage)
    decode = stage.loaded.tokenizer.decode
    kept = [[token for token in row["labels"] if token != -100] for row in encoded]
    assert all(ids[-1] == stage.loaded.tokenizer.eos_token_id for ids in kept)
    return sorted(decode(ids[:-1], skip_special_tokens=False) for ids in kept)


def test_the_answers_learned_are_the_teachers(recipe: Recipe, file: Callable[..., str]) -> None:
    spec = recipe(format=REASON, data={"lessons": file(LISTED, SECOND)})
    think = "<think>\nthe third one says it\n</think>\n"
    assert learned(common.begin("sft", spec, {})) == [
        f"{think}<answer>[2] > [3] > [1]</answer>",
        f"{think}<answer>[3] > [1] > [2]</answer>",
    ]


def test_without_reasoning_only_the_answer_is_learned(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    data = {"lessons": file(LISTED), "reasoning": "none"}
    told = learned(common.begin("sft", recipe(format=REASON, data=data), {}))
    assert told == ["<think>\n\n</think>\n<answer>[3] > [1] > [2]</answer>"]
    answer = {**REASON, "mode": "answer"}
    assert learned(common.begin("sft", recipe(format=answer, data=data), {})) == ["[3] > [1] > [2]"]


def test_a_share_of_a_teachers_answers_keeps_its_reasoning(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    told = [replace(LISTED, view=view(f"x{n}", f"who wrote number {n}?")) for n in range(40)]
    data = {"lessons": file(*told), "reasoning_share": 0.5}
    answers = learned(common.begin("sft", recipe(format=REASON, data=data), {}))
    thinking = [text for text in answers if "the third one says it" in text]
    assert 8 <= len(thinking) <= 32 and len(answers) == 40
    empty = "<think>\n\n</think>\n<answer>[3] > [1] > [2]</answer>"
    assert set(answers) - set(thinking) == {empty}
    assert answers == learned(common.begin("sft", recipe(format=REASON, data=data), {}))
    none = {**data, "reasoning_share": 0.0}
    assert set(learned(common.begin("sft", recipe(format=REASON, data=none), {}))) == {empty}


def test_notes_make_the_reasoning_of_explain_and_of_slots(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    path = {"lessons": file(LISTED, SCORED)}
    explain = {**REASON, "name": "explain"}
    texts = learned(common.begin("sft", recipe(format=explain, data=path), {}))
    assert any("[3] a name" in text and "[3] > [1] > [2]" in text for text in texts)
    stage = common.begin("sft", recipe(format=SLOTS, data=path), {})
    assert learned(stage) == [" no.", " yes.", " yes. says it all"]
    _, report = sft.lesson_rows(stage)
    assert report["lessons"] == {"read": 2, "held_out": 0, "not_in_format": 1}


def test_pointwise_lessons_are_for_pointwise_students(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    path = {"lessons": file(LISTED, POINTED)}
    pointwise = {"name": "pointwise", "mode": "answer", "prompt_tokens": 900}
    alone = {"strategy": {"name": "by_score", "params": {"size": 1}}}
    stage = common.begin("sft", recipe(format=pointwise, data=path, eval=alone), {})
    assert learned(stage) == ["2"]
    stage = common.begin("sft", recipe(format=REASON, data=path), {})
    rows, report = sft.lesson_rows(stage)
    assert len(rows) == 1
    assert report["lessons"] == {"read": 2, "held_out": 0, "not_in_format": 1}


def test_lessons_about_held_out_queries_are_left_out(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    stage = common.begin("sft", recipe(), {})
    held = (*stage.collection.validation, *stage.collection.test)
    by_id = replace(LISTED, view=view(held[0].query.qid, "another text"))
    by_text = replace(LISTED, view=view("x", held[-1].query.text.upper()))
    path = {"lessons": file(LISTED, by_id, by_text)}
    _, report = sft.training_rows(common.begin("sft", recipe(format=REASON, data=path), {}))
    assert report["lessons"] == {"read": 3, "held_out": 2, "not_in_format": 0}
    assert report["rows"] == 1
    path = {"lessons": file(by_id, by_text)}
    with pytest.raises(DataError, match=r"no lesson is left \(read 2, held_out 2, .*permutation"):
        sft.training_rows(common.begin("sft", recipe(format=REASON, data=path), {}))


def test_long_documents_are_cut_and_a_query_that_is_too_long_is_one_line(
    recipe: Recipe, file: Callable[..., str]
) -> None:
    documents = [replace(c, text="word " * 300) for c in LISTED.view.candidates]
    long = replace(LISTED, view=replace(LISTED.view, candidates=tuple(documents)))
    stage = common.begin("sft", recipe(format=REASON, data={"lessons": file(long)}), {})
    _, report = sft.training_rows(stage)
    assert report["cut"]["cut_documents"] == 3
    endless = replace(LISTED, view=view("t9", "who? " * 2000))
    data = {"lessons": file(LISTED, endless)}
    with pytest.raises(DataError, match=r"query 't9': the prompt has \d+ tokens"):
        sft.training_rows(common.begin("sft", recipe(format=REASON, data=data), {}))


def test_no_file_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    stage = common.begin("sft", recipe(data={"lessons": str(tmp_path / "no.jsonl")}), {})
    with pytest.raises(DataError, match=r"no.jsonl: no such file"):
        sft.training_rows(stage)


def test_training_on_lessons_runs(recipe: Recipe, file: Callable[..., str]) -> None:
    spec = recipe(format=REASON, data={"lessons": file(LISTED, SECOND)})
    summary = sft.run(spec, {"hash": "abc"})
    assert summary["steps"] == 2
    out = Path(spec.run.output_dir)
    logged = [json.loads(x) for x in (out / "training_log.jsonl").read_text().splitlines()]
    assert any("loss" in record for record in logged)
    assert (out / "final" / "model.safetensors").is_file()


# What stage teach leaves


def taught(recipe: Recipe, tmp_path: Path, question: dict[str, Any]) -> Path:
    """The output folder of stage teach about the collection, with an oracle."""
    out = tmp_path / "taught"
    section = {
        "teachers": {"main": {"name": "oracle"}},
        "questions": [{"name": "list", **question}],
        "labels": {"name": "rank", "params": {"top": 1}},
    }
    run = {"name": "taught", "output_dir": str(out), "seed": 3}
    teach(recipe(teach=section, run=run, format=REASON), {})
    return out


def test_lessons_of_stage_teach_are_learned(recipe: Recipe, tmp_path: Path) -> None:
    out = taught(recipe, tmp_path, {"format": REASON})
    spec = recipe(format=REASON, data={"lessons": str(out)})
    stage = common.begin("sft", spec, {})
    written = [json.loads(x) for x in (out / "lessons.jsonl").read_text().split("\n") if x]
    assert learned(stage) == sorted(r["completion"][0]["content"] for r in written)
    (prompt, *_) = written[0]["prompt"]
    assert prompt["role"] == "system"
    rows, _ = sft.lesson_rows(stage)
    assert [r["prompt"] for r in rows] == [r["prompt"] for r in written]


def test_tasks_of_stage_teach_serve_sft_with_the_teachers_notes(
    recipe: Recipe, tmp_path: Path
) -> None:
    explain = {**REASON, "name": "explain", "prompt_tokens": 1200}
    out = taught(recipe, tmp_path, {"format": explain})
    tasks = [json.loads(x) for x in (out / "tasks.jsonl").read_text().splitlines()]
    assert all(
        set(t["metadata"]["teacher"]["explicit"]) == {f"d{i}" for i in range(4)} for t in tasks
    )
    for style in ("explicit", "annotations"):
        data = {**LABELLED, "path": str(out / "tasks.jsonl"), "reasoning": style}
        stage = common.begin("sft", recipe(format=REASON, data=data), {})
        for task, shown in common.training_views(stage)[0]:
            (row,) = sft.answer_rows(stage, task, shown)
            text = row["completion"][0]["content"]
            (best,) = [d for d, grade in (task.grades or {}).items() if grade]
            assert f"<answer>[{shown.label(best)}] > " in text
            notes = task.query.metadata["teacher"]["explicit"]
            for label, docid in zip(shown.labels, shown.docids, strict=True):
                (line,) = [x for x in text.split("\n") if x.startswith(f"[{label}] ")]
                # A judgement of each document gives the reason of the relevant ones.
                assert notes[docid] in line or (style == "explicit" and docid != best)


def test_tasks_of_stage_teach_serve_slots_and_stage_score(recipe: Recipe, tmp_path: Path) -> None:
    explain = {**REASON, "name": "explain", "prompt_tokens": 1200}
    out = taught(recipe, tmp_path, {"format": explain})
    data = {**LABELLED, "path": str(out / "tasks.jsonl"), "reasoning": "explicit"}
    stage = common.begin("sft", recipe(format=SLOTS, data=data), {})
    task, shown = common.training_views(stage)[0][0]
    notes = task.query.metadata["teacher"]["explicit"]
    texts = [r["completion"][0]["content"] for r in sft.answer_rows(stage, task, shown)]
    assert texts == [
        f"Relevant: {'yes' if (task.grades or {})[d] else 'no'}. {notes[d]}" for d in shown.docids
    ]
    labels = {"name": "slots", "mode": "answer"}
    summary = score.run(recipe(format=labels, data=data, losses=[{"name": "ranknet"}]), {})
    assert summary["steps"] == 2
