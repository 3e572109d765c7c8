"""Files compressed by gzip are read as what they hold; damaged ones are one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rank_rl import data
from rank_rl.data.files import json_lines, lines
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.reranking.inputs import read_run_tasks
from rank_rl.specs import DataSpec

FILES = {
    "corpus.jsonl": '{"_id": "a", "text": "The river é."}\n\n{"_id": "b", "text": "A lake."}\n',
    "queries.tsv": "q1\twhat is deep?\n",
    "qrels.txt": "q1 0 b 1\n",
    "run.trec": "q1 Q0 b 1 2.0 t\nq1 Q0 a 2 1.0 t\n",
    "run.json": '{"q1": {"b": 2.0, "a": 1.0}}',
}


def packed(folder: Path, name: str) -> Path:
    path = folder / f"{name}.gz"
    path.write_bytes(gzip.compress(FILES[name].encode("utf-8-sig")))
    return path


def plain(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(FILES[name], encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["run.trec", "run.json"])
def test_runs(name, tmp_path):
    assert read_run(packed(tmp_path, name)) == read_run(plain(tmp_path, name))


def test_what_is_reranked(tmp_path):
    def read(make):
        files = [make(tmp_path, name) for name in ("run.trec", "corpus.jsonl", "queries.tsv")]
        (task,) = read_run_tasks(*files, depth=None)
        return task.query, task.candidates

    assert read(packed) == read(plain)
    assert read(packed)[1][1].text == "The river é."


def test_a_recipe(tmp_path):
    def loaded(make):
        named = ("corpus.jsonl", "queries.tsv", "qrels.txt", "run.trec")
        params = {name.split(".")[0]: str(make(tmp_path, name)) for name in named}
        params["qrels"] = {"test": params["qrels"]}
        return data.load(DataSpec(source="trec", params=params, train_split=""), seed=1)

    assert loaded(packed).test == loaded(plain).test != ()


def test_the_name_does_not_matter_and_lines_are_counted(tmp_path):
    path = packed(tmp_path, "corpus.jsonl").rename(tmp_path / "corpus")
    assert [where for where, _ in json_lines(path)] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize("harm", ["cut", "byte", "not text"])
def test_a_damaged_file_is_one_line(harm, tmp_path):
    path = tmp_path / "run.gz"
    content = bytearray(gzip.compress(b"q1 Q0 b 1 2.0 t\n" * 500, mtime=0))
    if harm == "cut":
        content = content[:-12]
    elif harm == "byte":
        content[20] ^= 0xFF
    else:
        content = bytearray(gzip.compress(b"\xff\xfe\xff"))
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged|UTF-8") as caught:
        list(lines(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
