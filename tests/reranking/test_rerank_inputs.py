"""Queries with candidates out of a BEIR folder, a run, and files of one query a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rank_rl.data.tasks import write_tasks
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.reranking.inputs import cut, ordered, read_beir_tasks, read_listed_tasks


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {"a": "a river", "b": "the lake", "c": "the lake by the river", "d": "a town"}
    lines(tmp_path / "corpus.jsonl", *[{"_id": d, "text": t} for d, t in texts.items()])
    queries = {"q1": "lake", "q2": "town", "q3": "river"}
    lines(tmp_path / "queries.jsonl", *[{"_id": q, "text": t} for q, t in queries.items()])
    lines(tmp_path / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q2\td\t1", "q1\tb\t2")
    return tmp_path


def docids(tasks: Any) -> dict[str, tuple[str, ...]]:
    return {task.query.qid: task.docids for task in tasks}


def test_a_beir_folder_is_searched_by_bm25_to_a_depth(folder: Path) -> None:
    tasks = read_beir_tasks(folder, depth=2)
    assert docids(tasks)["q1"] == ("b", "c") and docids(tasks)["q2"][0] == "d"
    assert [len(t.candidates) for t in tasks] == [2, 2, 2]
    assert all(t.grades is None for t in tasks)
    first = tasks[0].candidates
    assert [c.rank for c in first] == [1, 2] and first[0].score > first[1].score > 0
    assert len(read_beir_tasks(folder)[0].candidates) == 4


def test_judged_queries_of_a_split_and_what_must_not_be_ranked(folder: Path) -> None:
    lines(folder / "excluded.tsv", "query-id\tcorpus-id", "q1\tb")
    found = docids(read_beir_tasks(folder, split="test", depth=1))
    assert found == {"q2": ("d",), "q1": ("c",)}
    with pytest.raises(DataError, match="no split 'dev'; expected one of test"):
        read_beir_tasks(folder, split="dev")
    with pytest.raises(DataError, match="no such folder"):
        read_beir_tasks(folder / "none")


def test_a_run_or_a_pool_gives_the_candidates_of_a_beir_folder(folder: Path) -> None:
    run = lines(folder / "given.trec", "q3 Q0 d 1 3 x", "q3 Q0 a 2 2 x", "q1 Q0 a 1 1 x")
    assert docids(read_beir_tasks(folder, run=run)) == {"q1": ("a",), "q3": ("d", "a")}
    assert docids(read_beir_tasks(folder, run=run, depth=1))["q3"] == ("d",)
    assert docids(read_beir_tasks(folder, run=run, split="test")) == {"q1": ("a",)}
    lines(folder / "candidates.tsv", "q1\ta", "q1\tc", "q2\td", "q3\ta", "q3\tb")
    assert docids(read_beir_tasks(folder))["q1"] == ("c", "a")
    assert docids(read_beir_tasks(folder, depth=1))["q3"] == ("a",)
    lines(run, "q9 Q0 a 1 1 x")
    with pytest.raises(DataError, match="no queries"):
        read_beir_tasks(folder, run=run)


def test_one_query_with_its_documents_a_line(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t.jsonl",
        {
            "qid": "q7",
            "query": "who?",
            "instruction": "a person",
            "documents": ["one", {"id": "x", "text": "two", "title": "T", "score": 1.5}],
            "grades": {"x": 1},
            "anything": 3,
        },
        {"query": "where?", "documents": [{"docid": 5, "contents": "three"}]},
    )
    read = read_listed_tasks(path)
    one, other = read.tasks
    assert one.query == Query(qid="q7", text="who?", instruction="a person")
    assert one.candidates == (
        Candidate(docid="1", text="one", rank=1),
        Candidate(docid="x", text="two", title="T", rank=2, score=1.5),
    )
    assert other.query.qid == "2" and other.candidates == (Candidate(docid="5", text="three"),)
    assert one.grades is None and read.listed == {"q7", "2"}


def test_ranking_tasks_as_the_data_layer_writes_them(tmp_path: Path) -> None:
    task = RankingTask(
        query=Query(qid="a", text="who?", metadata={"k": 1}),
        candidates=(Candidate(docid="x", text="one"), Candidate(docid="y", text="two", rank=2)),
        grades={"x": 1},
    )
    write_tasks(tmp_path / "t.jsonl", [task])
    read = read_listed_tasks(tmp_path / "t.jsonl")
    assert read.tasks[0].candidates == task.candidates and read.tasks[0].grades is None
    assert read.tasks[0].query == task.query and not read.listed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", ":2: invalid JSON"),
        ({"query": "q"}, ":2: no documents"),
        ({"query": "q", "documents": []}, ":2: no documents"),
        ({"documents": ["x"]}, ":2: no text; expected key query"),
        ({"query": "q", "documents": [3]}, ":2, document 1: is 3; expected a text"),
        ({"query": "q", "documents": ["x", {"id": "a"}]}, ":2, document 2: no text"),
        (
            {"query": "q", "documents": [{"text": "x", "score": "1"}]},
            ":2, document 1: score is '1'; expected a number",
        ),
        ({"query": "q", "documents": [{"id": 1, "text": "x"}] * 2}, "docid '1' appears twice"),
        ({"qid": "1", "query": "q", "documents": ["x"]}, ":2: query id '1' appears twice"),
        ({"qid": "a", "query": "q", "candidates": [{"docid": "1"}]}, ":2, candidate 1: no text"),
    ],
)
def test_broken_lines_name_where_they_are(tmp_path: Path, line: Any, expected: str) -> None:
    path = lines(tmp_path / "t.jsonl", {"query": "fine", "documents": ["x"]}, line)
    with pytest.raises(DataError) as caught:
        read_listed_tasks(path)
    assert expected in caught.value.line()


def test_listed_documents_are_ordered_where_their_order_would_mislead(tmp_path: Path) -> None:
    documents = ["a town", "the lake", "a river"]
    candidates = [{"docid": str(i), "text": text} for i, text in enumerate(documents)]
    path = lines(
        tmp_path / "t.jsonl",
        {"qid": "listed", "query": "lake", "documents": documents},
        {"qid": "given", "query": "lake", "candidates": candidates},
    )
    read = read_listed_tasks(path)

    def firsts(first_stage: str, misleads: bool) -> list[str]:
        tasks = ordered(read, first_stage, lambda _: misleads)
        return [task.candidates[0].text for task in tasks]

    assert firsts("auto", False) == ["a town", "a town"]
    assert firsts("auto", True) == ["the lake", "a town"]
    assert firsts("given", True) == ["a town", "a town"]
    assert firsts("bm25", False) == ["the lake", "the lake"]
    assert [len(t.candidates) for t in cut(read.tasks, 2)] == [2, 2]
    with pytest.raises(RecipeError, match="unknown first stage 'dense'"):
        ordered(read, "dense", lambda _: True)
