"""``rank-rl leaks``: the tables, the pairs, JSON, the exit status, and the files it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.data.tasks import read_tasks, write_tasks
from rank_rl.records import Candidate, Query, RankingTask

TIDES = "Why do the tides of the sea follow the course of the moon?"
CORAL = "Which corals of the Great Barrier Reef survive warmer water?"


def task(qid: str, text: str, split: str) -> RankingTask:
    documents = (Candidate(docid="d0", text="a b c"), Candidate(docid=f"{qid}1", text="d", rank=2))
    grades = {"d0": 1}
    return RankingTask(
        query=Query(qid=qid, text=text), candidates=documents, grades=grades, split=split
    )


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["leaks", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Training tasks, of which two overlap with the test queries, and those as TSV."""
    train = tmp_path / "train.jsonl"
    tasks = [
        task("a", "How are bells cast in bronze today?", "train"),
        task("b", TIDES.upper(), "train"),
        task("t2", CORAL + " Name three of them.", "train"),
    ]
    write_tasks(train, tasks)
    test = tmp_path / "test.tsv"
    test.write_text(f"t1\t{TIDES}\nt2\t{CORAL}\nt3\tWhere do eels spawn?\n", encoding="utf-8")
    return train, test


def test_both_texts_of_a_pair_are_shown(files: tuple[Path, Path]) -> None:
    train, test = files
    status, said, _ = invoke(train, "--test", test)
    assert status == 0
    assert "2 of 3 test queries overlap with training data (66.7 %)" in said
    assert "the same text: 1" in said and "most of the query in a training query: 1" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["1.00", "test", "t2:", *CORAL.split()] in lines
    assert ["train", f"{train}:3:", *f"{CORAL} Name three of them.".split()] in lines
    _, brief, _ = invoke(train, "--test", test, "--show", "0")
    assert CORAL not in brief and "2 of 3 test queries" in brief


def test_json_and_the_strict_exit_status(files: tuple[Path, Path]) -> None:
    train, test = files
    status, said, _ = invoke(train, "--test", test, "--json", "--strict")
    found = json.loads(said)
    assert status == 1
    assert found["kinds"] == {"text": 1, "near": 1, "inside": 0}
    assert found["overlapping"]["t1"]["other"] == TIDES.upper()
    assert found["shared_ids"] == 1
    assert invoke(train, "--test", test, "--strict", "--share", "1", "--ngram", "9")[0] == 1
    other = test.with_name("other.tsv")
    other.write_text("t1\tWhere do eels spawn?\n", encoding="utf-8")
    status, said, _ = invoke(train, "--test", other, "--strict")
    assert (status, "0 of 1 test queries" in said) == (0, True)


def test_a_copy_without_what_overlaps(files: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = files
    copy = tmp_path / "clean" / "train.jsonl"
    status, said, _ = invoke(train, "--test", test, "--write", copy)
    assert (status, "1 lines without 2 that overlap" in said) == (0, True)
    assert [t.query.qid for t in read_tasks(copy)] == ["a"]
    assert len(read_tasks(train)) == 3
    status, said, _ = invoke(copy, "--test", test, "--strict")
    assert status == 0


def test_a_list_of_what_overlaps(files: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = files
    target = tmp_path / "out.txt"
    assert invoke(train, "bundled:musique200", "--test", test, "--write", target)[0] == 0
    listed = [f"{train}\t{train}:{number}" for number in (2, 3)]
    assert target.read_text(encoding="utf-8").splitlines() == listed


@pytest.mark.parametrize("name", ["copy.jsonl", "train.jsonl"])
def test_a_copy_needs_one_file_and_another_name(files: tuple[Path, Path], name: str) -> None:
    train, test = files
    given = [train, "bundled:musique200"] if name == "copy.jsonl" else [train]
    status, _, said = invoke(*given, "--test", test, "--write", train.with_name(name))
    assert status == 2
    assert "only one file of training data can be copied, to another file" in said
    assert said.count("\n") == 1


def test_what_is_not_there_is_one_line(files: tuple[Path, Path]) -> None:
    status, _, said = invoke("none.jsonl", "--test", files[1])
    assert (status, said.count("\n")) == (2, 1)
    assert "none.jsonl: no such file or folder; expected tasks, lessons" in said


def recipe(folder: Path, **data: Any) -> Path:
    path = folder / "recipe.yaml"
    content = {
        "run": {"name": "demo", "output_dir": str(folder / "out")},
        "model": {"name": "m"},
        "data": {"source": "jsonl", "validation": 0.0, **data},
        "format": {"name": "permutation"},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_recipes_stand_for_their_training_and_test_parts(tmp_path: Path) -> None:
    tasks = [task("a", TIDES, "train"), task("b", CORAL, "test")]
    write_tasks(tmp_path / "rivers.jsonl", tasks)
    path = recipe(tmp_path, path=str(tmp_path / "rivers.jsonl"))
    other = tmp_path / "other.tsv"
    other.write_text(f"x\t{TIDES}\ny\t{CORAL}\n", encoding="utf-8")
    found = json.loads(invoke(path, "--test", other, "--json")[1])
    assert list(found["overlapping"]) == ["x"]
    assert found["compared"] == {"rivers": 1}
    found = json.loads(invoke(other, "--test", path, "--json")[1])
    assert list(found["overlapping"]) == ["b"]
    found = json.loads(invoke(path, "--test", path, "--json")[1])
    assert found["overlapping"] == {}
    assert found["documents"] == {"relevant": 1, "shared": 1, "by_id": 1, "by_text": 0}


def test_check_says_what_the_leak_check_of_a_recipe_finds(tmp_path: Path) -> None:
    tasks = [task("a", f"{TIDES} Why?", "train"), task("c", "Where do eels spawn?", "train")]
    write_tasks(tmp_path / "t.jsonl", [*tasks, task("b", TIDES, "test")])
    leaks = {"action": "filter"}
    path = recipe(tmp_path, path=str(tmp_path / "t.jsonl"), leaks=leaks)
    result = CliRunner().invoke(app, ["check", str(path), "--no-measure", "--stand-in"])
    assert "3-grams: 1 of 1 test queries overlap with 1 of 2 training examples (1 near)" in (
        result.stdout
    )
    assert "removed are 1 of train, 0 of validation, 0 of lessons" in result.stdout
    assert f"  near: b: {TIDES}\n    ~ a: {TIDES} Why?" in result.stdout
