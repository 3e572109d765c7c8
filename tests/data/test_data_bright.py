"""Source ``bright``: its schema, its excluded documents, its pages, and tables that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import hub_folders
import pytest

from rank_rl import data
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return hub_folders.bright_folder(tmp_path / "BRIGHT")


def load(folder: Path, task: str, depth: int = 20, **params: Any) -> data.Collection:
    spec = DataSpec.model_validate(
        {
            "source": "bright",
            "path": str(folder),
            "params": {"task": task, **params},
            "first_stage": {"depth": depth},
        }
    )
    return data.load(spec, seed=0)


def written(path: Path, run: dict[str, dict[str, float]]) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(run))
    else:
        rows = [
            f"{q} Q0 {d} {rank} {score} bm25"
            for q, by in run.items()
            for rank, (d, score) in enumerate(by.items(), 1)
        ]
        path.write_text("\n".join(rows))
    return str(path)


@pytest.mark.parametrize("name", ["bm25.trec", "score.json"])
def test_an_excluded_document_takes_no_place_of_the_cut(folder: Path, name: str) -> None:
    # sum/0 is excluded for query 0, and not for query 1; a run may list it first.
    run = {
        "0": {"sum/0": 9.0, "sum/2": 8.0, "sum/1": 7.0, "sum/4": 6.0, "sum/3": 5.0},
        "1": {"sum/0": 9.0, "sum/3": 8.0, "sum/1": 7.0},
    }
    path = written(folder.parent / name, run)
    found = load(folder, "leetcode", depth=2, run=path)
    first, second = found.test
    assert first.docids == ("sum/2", "sum/4")
    assert [(c.rank, c.score) for c in first.candidates] == [(1, 8.0), (2, 6.0)]
    assert first.grades == {"sum/4": 1}
    assert second.docids == ("sum/0", "sum/3")
    facts = found.provenance
    assert facts["excluded"] == {"queries": 1, "documents": 2, "candidates": 2, "judgements": 0}
    assert facts["first_stage"] == "run, first 2, after the excluded documents were taken out"
    assert facts["documents"] == 5
    assert found.train == () and found.validation == ()


def test_without_a_run_bm25_searches_the_corpus_without_them(folder: Path) -> None:
    first, second = load(folder, "leetcode", depth=3).test
    assert sorted(first.docids) == ["sum/2", "sum/3", "sum/4"]
    assert second.docids[0] == "sum/3" and len(second.docids) == 3
    deep = load(folder, "leetcode", depth=9).test
    assert [len(t.docids) for t in deep] == [3, 5]


def test_ids_are_written_as_in_trec_runs(folder: Path) -> None:
    run = {"0": {"moths/Lamp_0.txt": 2.0, "moths/Photo taxis_0.txt": 1.0}}
    json_run = written(folder.parent / "score.json", run)
    (task,) = load(folder, "biology", run=json_run).test
    assert task.docids == ("moths/Lamp_0.txt", "moths/Photo_taxis_0.txt")
    assert task.grades == {"moths/Photo_taxis_0.txt": 1, "moths/Photo_taxis_1.txt": 1}
    plain = {q: {d.replace(" ", "_"): s for d, s in by.items()} for q, by in run.items()}
    trec_run = written(folder.parent / "run.trec", plain)
    assert load(folder, "biology", run=trec_run).test == (task,)


def test_whole_pages_have_their_own_documents_and_judgements(folder: Path) -> None:
    found = load(folder, "biology", long=True)
    (task,) = found.test
    assert found.name == "bright-biology-long"
    assert sorted(task.docids) == ["moths/Lamp.txt", "moths/Photo_taxis.txt"]
    assert task.grades == {"moths/Photo_taxis.txt": 1}
    with pytest.raises(DataError, match="long_documents: no split 'leetcode'.*one of biology"):
        load(folder, "leetcode", long=True)


def test_queries_are_what_is_asked_and_nothing_that_people_wrote_about_them(folder: Path) -> None:
    (task,) = load(folder, "biology", instruction="Find what explains it.").test
    assert task.query.text == "why do moths fly to lamps"
    assert task.query.instruction == "Find what explains it."
    assert task.query.metadata == {}
    assert "secret" not in repr(task)
    (rewritten,) = load(folder, "biology", examples="gpt4_reason").test
    assert rewritten.query.text == "Phototaxis of insects"


def test_provenance_names_the_tables_and_hashes_the_files(folder: Path) -> None:
    facts = load(folder, "biology").provenance
    assert facts["source"] == "bright"
    assert facts["dataset"] == {
        "path": "BRIGHT",
        "tables": ["documents/biology", "examples/biology"],
    }
    assert set(facts["files"]) == {
        "documents/biology-00000-of-00001.parquet",
        "examples/biology-00000-of-00001.parquet",
    }
    assert all(len(value) == 64 for value in facts["files"].values())
    json.dumps(facts)


def test_a_second_document_of_one_id_is_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": "a b", "content": "first"}, {"id": "a_b", "content": "second"}]
    tables = {
        ("examples", "pony"): [hub_folders.example("0", "first", gold_ids=["a_b"])],
        ("documents", "pony"): rows,
    }
    path = hub_folders.parquet_folder(folder.parent / "twice", tables, hub_folders.BRIGHT)
    (task,) = load(path, "pony").test
    assert [c.text for c in task.candidates] == ["first"]
    assert "1 documents share their id" in caplog.text


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"task": None}, r"data.params.task: no task; expected one of biology, leetcode"),
        ({"task": "chess"}, r"examples: no split 'chess'; expected one of biology, leetcode"),
        ({"task": "biology", "examples": "o1_reason"}, "o1_reason: cannot be read: .*not found"),
        ({"task": "biology", "long": 1}, "data.params.long: 1; expected true or false"),
        ({"task": "biology", "revison": "x"}, "unknown key 'revison'"),
        ({"task": "biology", "run": "none.trec"}, "none.trec: no such file"),
    ],
)
def test_wrong_parameters_are_one_line(folder: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(folder, **params)
    assert "\n" not in str(caught.value)


def test_tables_of_another_form_are_one_line(folder: Path) -> None:
    other = {"id": hub_folders.TEXT, "question": hub_folders.TEXT}
    tables = {("examples", "pony"): [{"id": "0", "question": "?"}]}
    path = hub_folders.parquet_folder(folder.parent / "other", tables, {"examples": other})
    with pytest.raises(DataError, match="examples/pony: no column 'query'.*there are id, question"):
        load(path, "pony")
    (folder / "documents" / "biology-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="documents: cannot be read: .*README.md") as caught:
        load(folder, "biology")
    assert "\n" not in str(caught.value)


def test_a_run_of_another_corpus_is_refused_or_counted(folder: Path) -> None:
    run = {"0": {"sum/9": 3.0, "sum/0": 2.0, "sum/2": 1.0}, "1": {"sum/3": 1.0}}
    path = written(folder.parent / "run.trec", run)
    with pytest.raises(DataError, match="candidates name 1 documents that are not in the corpus"):
        load(folder, "leetcode", run=path)
    found = load(folder, "leetcode", run=path, allow_missing=True)
    assert found.test[0].docids == ("sum/2",)
    assert found.provenance["missing_candidates"] == 1
