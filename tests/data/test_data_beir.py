"""BEIR folders: what is read, and one readable line for everything that can be wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rank_rl import data
from rank_rl.errors import DataError, RecipeError
from rank_rl.specs import DataSpec, FirstStageSpec

Folder = Callable[..., Path]
POOL = FirstStageSpec(pool=True)


def beir(folder: Path, **keys: object) -> DataSpec:
    return DataSpec(**{"source": "beir", "path": str(folder), "validation": 0.0, **keys})


def test_a_folder_becomes_tasks_with_their_parts(beir_folder: Folder) -> None:
    collection = data.load(beir(beir_folder(), first_stage=POOL), seed=0)
    q1, q2 = collection.train
    assert collection.name == "rivers"
    assert [t.query.qid for t in collection.test] == ["q3"]
    assert (q1.query.text, q1.query.metadata) == (
        "Which city is on the Rhine?",
        {"answer": "Basel"},
    )
    assert q2.query.instruction == "Find facts." and q1.query.instruction is None
    assert set(q1.docids) == {"d1", "d2", "d4"} and q1.grades == {"d2": 2, "d1": 1}
    assert [c.rank for c in q1.candidates] == [1, 2, 3]
    assert q1.candidates[0].content.startswith("Basel is a city")
    assert (q1.source, q1.split) == ("rivers", "train")


def test_qrels_folder_and_qrels_files_read_the_same(beir_folder: Folder, tmp_path: Path) -> None:
    flat = data.load(beir(beir_folder()), seed=0)
    folder = beir_folder()
    (folder / "qrels").mkdir()
    for split in ("train", "test"):
        (folder / f"qrels.{split}.tsv").rename(folder / "qrels" / f"{split}.tsv")
    nested = data.load(beir(folder), seed=0)
    assert (flat.train, flat.test) == (nested.train, nested.test)


def test_order_in_the_candidates_file_changes_nothing(beir_folder: Folder) -> None:
    first = data.load(beir(beir_folder(), first_stage=POOL), seed=0)
    header, *rows = beir_folder().joinpath("candidates.tsv").read_text().splitlines()
    turned = "\n".join([header, *reversed(rows)])
    second = data.load(beir(beir_folder({"candidates.tsv": turned}), first_stage=POOL), seed=0)
    assert first.train == second.train


def test_a_first_line_with_a_grade_is_not_taken_for_a_header(beir_folder: Folder) -> None:
    folder = beir_folder({"qrels.test.tsv": "q3\td4\t1\nq3\td1\t0\n"})
    assert data.load(beir(folder), seed=0).test[0].grades == {"d4": 1, "d1": 0}


def test_provenance_counts_and_hashes(beir_folder: Folder) -> None:
    folder = beir_folder()
    provenance = data.load(beir(folder, first_stage=POOL), seed=3).provenance
    expected = hashlib.sha256((folder / "corpus.jsonl").read_bytes()).hexdigest()
    assert provenance["files"]["corpus.jsonl"] == expected
    assert set(provenance["files"]) == {
        "corpus.jsonl",
        "queries.jsonl",
        "candidates.tsv",
        "qrels.train.tsv",
        "qrels.test.tsv",
    }
    assert (provenance["documents"], provenance["seed"]) == (4, 3)
    assert "BM25" in provenance["first_stage"]
    train = provenance["splits"]["train"]
    assert (train["queries"], train["judged"], train["relevant_per_query"]) == (2, 3, 1.5)
    assert train["ndcg@10"]["perfect"] == 1.0
    assert 0 < train["ndcg@10"]["first_stage"] <= 1
    assert json.loads(json.dumps(provenance)) == provenance


def test_halves_of_surrogate_pairs_do_not_survive(beir_folder: Folder) -> None:
    corpus = beir_folder().joinpath("corpus.jsonl").read_text()
    odd = beir_folder({"corpus.jsonl": corpus.replace("Rye bread", "Rye \\ud83d bread")})
    (task,) = data.load(beir(odd, first_stage=POOL), seed=0).test
    text = next(c.text for c in task.candidates if c.docid == "d4")
    assert text.encode("utf-8").decode() == "Rye \ufffd bread is baked with sourdough."


WRONG: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "no corpus": ({"corpus.jsonl": None}, ["corpus.jsonl", "no such file"]),
    "no queries": ({"queries.jsonl": None}, ["queries.jsonl", "no such file"]),
    "empty corpus": ({"corpus.jsonl": " \n\n"}, ["corpus.jsonl", "empty"]),
    "broken json": (
        {"corpus.jsonl": '{"_id": "d1", "text": "a"}\n\n{"_id": "d2", \n'},
        ["corpus.jsonl:3", "invalid JSON"],
    ),
    "json list": ({"queries.jsonl": "[1, 2]\n"}, ["queries.jsonl:1", "not a JSON object"]),
    "no id": ({"corpus.jsonl": '{"text": "a"}\n'}, ["corpus.jsonl:1", "_id"]),
    "no text": ({"corpus.jsonl": '{"_id": "d1"}\n'}, ["corpus.jsonl:1", "text"]),
    "text is a number": ({"corpus.jsonl": '{"_id": "d1", "text": 3}\n'}, ["corpus.jsonl:1", "3"]),
    "docid twice": (
        {"corpus.jsonl": '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n'},
        ["corpus.jsonl:2", "'d1'", "twice"],
    ),
    "qid twice": (
        {"queries.jsonl": '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n'},
        ["queries.jsonl:2", "'q1'", "twice"],
    ),
    "grade is a word": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\tgood\n"},
        ["qrels.test.tsv:2", "'good'", "integer"],
    ),
    "grade is a fraction": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\t0.5\n"},
        ["qrels.test.tsv:2", "'0.5'", "integer"],
    ),
    "two columns": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\n"},
        ["qrels.test.tsv:2", "2 columns"],
    ),
    "header only": ({"qrels.test.tsv": "query-id\tcorpus-id\tscore\n"}, ["no judgements"]),
    "judged twice": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\t1\nq3\td4\t2\n"},
        ["qrels.test.tsv:3", "judged twice"],
    ),
    "absent document": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\t1\nq3\tx8\t1\nq3\tx9\t1\n"},
        ["2 documents", "'x8', 'x9'", "allow_missing"],
    ),
    "absent candidate": (
        {"candidates.tsv": "query-id\tcorpus-id\nq1\tx7\nq2\td1\nq3\td1\n"},
        ["candidates", "1 documents", "'x7'"],
    ),
    "unknown query": (
        {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq9\td4\t1\n"},
        ["1 queries", "queries file", "'q9'"],
    ),
    "no candidates": (
        {"candidates.tsv": "query-id\tcorpus-id\nq1\td1\nq1\td2\n"},
        ["2 queries without candidates", "'q2', 'q3'"],
    ),
    "candidate twice": (
        {"candidates.tsv": "query-id\tcorpus-id\nq1\td1\nq1\td1\n"},
        ["candidates.tsv:3", "'d1'", "twice"],
    ),
    "no qrels": ({"qrels.train.tsv": None, "qrels.test.tsv": None}, ["no judgements", "qrels.tsv"]),
    "no such split": ({"qrels.train.tsv": None}, ["data.train_split", "no split 'train'", "test"]),
    "no pool": ({"candidates.tsv": None}, ["first_stage.pool", "candidates.tsv"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_readable_line(name: str, beir_folder: Folder) -> None:
    changes, fragments = WRONG[name]
    with pytest.raises(DataError) as raised:
        data.load(beir(beir_folder(changes), first_stage=POOL), seed=0)
    line = str(raised.value)
    assert "\n" not in line and len(line) < 500
    for fragment in fragments:
        assert fragment in line


def test_a_file_that_is_not_utf8_is_named(beir_folder: Folder) -> None:
    folder = beir_folder()
    (folder / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl: not UTF-8"):
        data.load(beir(folder), seed=0)


def test_missing_folder_path_and_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        data.load(beir(tmp_path / "nowhere"), seed=0)
    with pytest.raises(DataError, match=r"data\.path"):
        data.load(DataSpec(source="beir"), seed=0)
    with pytest.raises(RecipeError, match=r"unknown data source 'bier'.*nearest: beir"):
        data.load(DataSpec(source="bier"), seed=0)


def test_parameters_are_checked(beir_folder: Folder) -> None:
    folder = beir_folder()
    with pytest.raises(DataError, match=r"unknown key 'runs'.*run"):
        data.load(beir(folder, params={"runs": "x"}), seed=0)
    with pytest.raises(DataError, match=r"allow_missing: 'yes'; expected true or false"):
        data.load(beir(folder, params={"allow_missing": "yes"}), seed=0)
    with pytest.raises(DataError, match="different splits"):
        data.load(beir(folder, test_split="train"), seed=0)


def test_absent_documents_can_be_allowed_and_are_counted(beir_folder: Folder) -> None:
    changes = {
        "qrels.test.tsv": "query-id\tcorpus-id\tscore\nq3\td4\t1\nq3\tx8\t1\n",
        "candidates.tsv": "query-id\tcorpus-id\nq1\td1\nq2\td1\nq3\tx7\nq3\td4\n",
    }
    spec = beir(beir_folder(changes), params={"allow_missing": True}, first_stage=POOL)
    collection = data.load(spec, seed=0)
    assert collection.provenance["missing_judged_documents"] == 1
    assert collection.provenance["missing_candidates"] == 1
    # The judgement stays: the benchmark's ideal counts documents that cannot be found.
    assert collection.test[0].grades == {"d4": 1, "x8": 1}
    assert collection.test[0].docids == ("d4",)


def test_qrels_without_splits_are_test_or_divided_by_share(beir_folder: Folder) -> None:
    both = "query-id\tcorpus-id\tscore\nq1\td2\t2\nq2\td3\t1\nq3\td4\t1\n"
    changes = {"qrels.train.tsv": None, "qrels.test.tsv": None, "qrels.tsv": both}
    folder = beir_folder(changes)
    whole = data.load(beir(folder), seed=0)
    assert (len(whole.train), len(whole.test)) == (0, 3)
    part = data.load(beir(folder, params={"test_share": 0.34}), seed=0)
    assert (len(part.train), len(part.test)) == (2, 1)
    assert {t.query.qid for t in (*part.train, *part.test)} == {"q1", "q2", "q3"}
    with pytest.raises(DataError, match="test_share is 2"):
        data.load(beir(folder, params={"test_share": 2}), seed=0)


def test_a_collection_without_training_queries_says_so_in_the_recipe(beir_folder: Folder) -> None:
    folder = beir_folder({"qrels.train.tsv": None})
    collection = data.load(beir(folder, train_split=""), seed=0)
    assert (collection.train, len(collection.test)) == ((), 1)


def test_a_run_gives_the_order(beir_folder: Folder, tmp_path: Path) -> None:
    run = tmp_path / "first.run"
    run.write_text(
        "q1 Q0 d4 1 9.5 x\nq1 Q0 d1 2 8.5 x\nq2 Q0 d3 1 7 x\nq3 Q0 d1 1 3 x\nq3 Q0 d4 2 2 x\n"
    )
    spec = beir(beir_folder(), params={"run": str(run)}, first_stage=FirstStageSpec(name="given"))
    (q1, _), (q3,) = (lambda c: (c.train, c.test))(data.load(spec, seed=0))
    assert (q1.docids, q3.docids) == (("d4", "d1"), ("d1", "d4"))
    assert [c.score for c in q1.candidates] == [9.5, 8.5]
    # Without "given", a run still comes before retrieving; its depth is the first stage's.
    short = beir(beir_folder(), params={"run": str(run)}, first_stage=FirstStageSpec(depth=1))
    assert data.load(short, seed=0).test[0].docids == ("d1",)
    with pytest.raises(DataError, match=r"first_stage\.name: there is no run"):
        data.load(beir(beir_folder(), first_stage=FirstStageSpec(name="given")), seed=0)
