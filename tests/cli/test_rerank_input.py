"""What ``rank-rl rerank`` reads: documents in several spellings, runs, and broken input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.cli.rerank_one import read_documents
from rank_rl.errors import DataError
from rank_rl.reranking.inputs import read_run_tasks


def documents(tmp_path: Path, text: str) -> list[dict[str, object]]:
    path = tmp_path / "docs.jsonl"
    path.write_text(text, encoding="utf-8")
    return read_documents(str(path))


def test_spellings_of_ids_titles_and_plain_lines(tmp_path: Path) -> None:
    text = (
        '{"id": "a", "text": "one"}\n'
        '{"_id": 7, "text": "two", "title": "T"}\n'
        "\n"
        '{"docid": "c", "contents": "three", "score": 1.5}\n'
        '{"text": "four"}\n'
        "plain text [1] > [2]\n"
    )
    assert documents(tmp_path, text) == [
        {"id": "a", "text": "one", "title": ""},
        {"id": "7", "text": "two", "title": "T"},
        {"id": "c", "text": "three", "title": "", "score": 1.5},
        {"id": "5", "text": "four", "title": ""},
        {"id": "6", "text": "plain text [1] > [2]", "title": ""},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ('{"id": "a", "text": "x"\n', "docs.jsonl:1: invalid JSON"),
        ('{"id": "a"}\n', "docs.jsonl:1: no text"),
        ('{"id": "a", "text": 3}\n', "docs.jsonl:1: text is 3"),
        (
            '{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n',
            "docs.jsonl:2: document 'a' appears",
        ),
        ('{"id": "2", "text": "x"}\nplain\n', "document '2' appears twice"),
    ],
)
def test_broken_documents(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        documents(tmp_path, text)
    assert expected in caught.value.line()


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "one"}\ntwo\n'))
    assert [d["text"] for d in read_documents("-")] == ["one", "two"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n \n"))
    with pytest.raises(DataError, match="stdin: no documents"):
        read_documents("-")


def test_tasks_of_a_run(tmp_path: Path) -> None:
    corpus, queries, run = tmp_path / "c.jsonl", tmp_path / "q.tsv", tmp_path / "r.trec"
    corpus.write_text('{"_id": "a", "text": "A"}\n{"_id": "b", "text": "B"}\n')
    queries.write_text("q1\twho?\n")
    run.write_text("q1 Q0 a 1 1.5 x\nq1 Q0 b 2 3.5 x\n")
    (task,) = read_run_tasks(run, corpus, queries, depth=None)
    assert task.docids == ("b", "a")
    assert [(c.rank, c.score) for c in task.candidates] == [(1, 3.5), (2, 1.5)]
    (short,) = read_run_tasks(run, corpus, queries, depth=1)
    assert short.docids == ("b",)
    run.write_text("q1 Q0 z 1 1.5 x\n")
    with pytest.raises(DataError, match="document 'z' is not in"):
        read_run_tasks(run, corpus, queries, depth=None)
    run.write_text("q9 Q0 a 1 1.5 x\n")
    with pytest.raises(DataError, match="query 'q9' is not in"):
        read_run_tasks(run, corpus, queries, depth=None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "rerank: nothing to rerank"),
        (["--query", "q"], "rerank: nothing to rerank"),
        (["--run", "r.trec"], "--corpus: missing"),
        (["--query", "q", "--documents", "none.jsonl"], "none.jsonl: no such file"),
        (["--query", "q", "--documents", "d", "--exchanges", "e"], "--exchanges: only with --run"),
        (["--run", "r.trec", "--json"], "--json: not with --run"),
        (["--run", "r.trec", "--no-explain"], "--no-explain: not with --run"),
        (["--run", "r.trec", "--first-stage", "bm25"], "--first-stage: not with --run"),
        (["--query", "q", "--no-reasoning", "--explain"], "--explain: not with --no-reasoning"),
        (["--run", "r.trec", "--query", "q"], "--query: not with --run"),
    ],
)
def test_missing_options_and_files(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(app, ["rerank", "--model", "m", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {expected}")
    assert result.stderr.count("\n") == 1
