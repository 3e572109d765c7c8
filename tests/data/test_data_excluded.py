"""Documents that must not be ranked (trap 10): gone before the cut of every first stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rank_rl import data
from rank_rl.data.excluded import Without, joined, read_excluded
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

Folder = Callable[..., Path]
GRAINS = [(1, "rye"), (2, "wheat"), (3, "barley")]
RUN = "q3 Q0 d1 1 9.0 x\nq3 Q0 d4 2 8.0 x\nq3 Q0 d2 3 7.0 x\n"


def load(folder: Path, **changes: Any) -> data.Collection:
    spec = {"source": "beir", "path": str(folder), "validation": 0, "train_split": "", **changes}
    return data.load(DataSpec.model_validate(spec), seed=0)


@pytest.mark.parametrize("text", ["q3\td1\n", "query-id\tcorpus-id\nq3\td1\n", "q3 d1\n"])
def test_an_excluded_document_at_rank_one_takes_no_place(beir_folder: Folder, text: str) -> None:
    folder = beir_folder({"excluded.tsv": text})
    run = folder / "run.trec"
    run.write_text(RUN)
    found = load(folder, params={"run": str(run)}, first_stage={"depth": 2})
    (task,) = found.test
    assert task.docids == ("d4", "d2")
    assert [c.rank for c in task.candidates] == [1, 2]
    # d1 was judged: it is not any more, so that no ranking can be told it is unjudged or relevant.
    assert task.grades == {"d4": 1}
    facts = found.provenance
    assert facts["excluded"] == {"queries": 1, "documents": 1, "candidates": 1, "judgements": 1}
    assert "excluded.tsv" not in facts["first_stage"] and len(facts["files"]["excluded"]) == 64
    plain = load(beir_folder({"excluded.tsv": "q1\td4\n"}), params={"run": str(run)})
    assert plain.test[0].docids == ("d1", "d4", "d2")


@pytest.mark.parametrize("first_stage", [{"pool": True}, {"depth": 2}, {"depth": 4}])
def test_bm25_neither_orders_nor_finds_it(beir_folder: Folder, first_stage: dict[str, Any]) -> None:
    folder = beir_folder({"excluded.tsv": "q3\td4\n"})
    (task,) = load(folder, first_stage=first_stage).test
    expected = 2 if first_stage == {"pool": True} else min(3, first_stage["depth"])
    assert "d4" not in task.docids and len(task.docids) == expected
    assert task.grades == {"d1": 0}


def test_a_file_may_be_named_and_the_document_with_the_query_s_id_too(tmp_path: Path) -> None:
    corpus = [{"_id": f"q{n}", "text": f"bread of {grain}"} for n, grain in GRAINS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "bread of rye"}')
    (tmp_path / "qrels.test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tq2\t1\n")
    assert load(tmp_path).test[0].docids[0] == "q1"
    own = load(tmp_path, params={"exclude_same_id": True}).test[0]
    assert sorted(own.docids) == ["q2", "q3"]
    (tmp_path / "more.tsv").write_text("q1 q3\n")
    both = {"exclude_same_id": True, "excluded": str(tmp_path / "more.tsv")}
    assert load(tmp_path, params=both).test[0].docids == ("q2",)


def test_trec_files_have_it_as_a_parameter(tmp_path: Path) -> None:
    files = {
        "corpus": '{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "b"}\n',
        "queries": '{"_id": "q", "text": "a"}\n',
        "qrels": "q 0 d2 1\n",
        "run": "q Q0 d1 1 2.0 x\nq Q0 d2 2 1.0 x\n",
        "excluded": "q d1\n",
    }
    params = {}
    for key, text in files.items():
        params[key] = str(tmp_path / f"{key}.txt")
        Path(params[key]).write_text(text)
    params["queries"] = str(tmp_path / "queries.jsonl")
    Path(params["queries"]).write_text(files["queries"])
    spec = {"source": "trec", "params": params, "first_stage": {"depth": 1}}
    (task,) = data.load(DataSpec.model_validate(spec), seed=0).test
    assert task.docids == ("d2",)


def test_unknown_queries_and_malformed_lines_are_one_line(
    beir_folder: Folder, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="excluded for 1 queries that are not.*'q9'"):
        load(beir_folder({"excluded.tsv": "q9\td1\n"}))
    for text, message in (("q3\td1\t1\n", "3 columns"), ("q3\n", "1 columns"), ("q3\t\n", "2 col")):
        path = tmp_path / "excluded.tsv"
        path.write_text(text)
        with pytest.raises(DataError, match=f"excluded.tsv:1: {message}"):
            read_excluded(path)


def test_a_query_whose_candidates_are_all_excluded_is_an_error(beir_folder: Folder) -> None:
    folder = beir_folder({"excluded.tsv": "q3\td1\nq3\td4\nq3\td2\n"})
    run = folder / "run.trec"
    run.write_text(RUN)
    with pytest.raises(DataError, match="1 queries without candidates: 'q3'"):
        load(folder, params={"run": str(run)})


def test_tables_are_joined_and_what_is_taken_is_counted() -> None:
    out = joined({"a": frozenset("x")}, {"a": frozenset("y"), "b": frozenset("x")})
    assert out == {"a": frozenset("xy"), "b": frozenset("x")}
    without = Without(out)
    assert without.pools({"a": ("x", "z"), "c": ("x",)}) == {"a": ("z",), "c": ("x",)}
    assert without.qrels({"b": {"x": 1, "y": 0}}) == {"b": {"y": 0}}
    assert without.taken == 2
