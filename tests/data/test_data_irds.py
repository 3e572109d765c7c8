"""Sources ir_datasets, msmarco and trec_dl: the library itself, on small files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rank_rl import data
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

ir_datasets = pytest.importorskip("ir_datasets")

DOCS = {
    "d1": "The Rhine flows through Basel.",
    "d2": "Basel is a city on the Rhine.",
    "d3": "Rye bread is baked.",
    "d4": "Wheat bread is baked, too.",
    "d5": "Nobody lists this one.",
}
QUERIES = {"1": "which city is on the Rhine", "2": "how is bread baked", "3": "nobody judged this"}
QRELS = "1 0 d2 3\n1 0 d1 1\n1 0 d3 0\n2 0 d4 2\n"
TOP = {"1": ["d3", "d1", "d2"], "2": ["d4", "d3"], "3": ["d1"]}
Register = Callable[..., str]


@pytest.fixture
def registered(tmp_path: Path) -> Register:
    """Register a collection made of files, as ir_datasets' own are made."""
    made: list[str] = []

    def register(scored: str | None = None, kind: Any = None) -> str:
        from ir_datasets.datasets.base import Dataset
        from ir_datasets.formats import (
            GenericDoc,
            TrecQrels,
            TrecScoredDocs,
            TsvDocs,
            TsvQueries,
        )
        from ir_datasets.util.download import LocalDownload

        def file(name: str, text: str) -> Any:
            (tmp_path / name).write_text(text, encoding="utf-8")
            return LocalDownload(tmp_path / name)

        texts = tsv(DOCS) if kind is None else "".join(f"{d}\tBasel\tOn the Rhine.\n" for d in DOCS)
        parts = [
            TsvDocs(file("docs.tsv", texts), doc_cls=kind or GenericDoc),
            TsvQueries(file("queries.tsv", tsv(QUERIES))),
            TrecQrels(file("qrels", QRELS), {}),
        ]
        if scored is not None:
            parts.append(TrecScoredDocs(file("top.run", scored)))
        name = f"rank-rl-{tmp_path.name}/{len(made)}"
        ir_datasets.registry.register(name, Dataset(*parts))
        made.append(name)
        return name

    yield register
    for name in made:
        del ir_datasets.registry._registered[name]


def tsv(rows: dict[str, str]) -> str:
    return "".join(f"{key}\t{text}\n" for key, text in rows.items())


def trec(run: dict[str, list[str]]) -> str:
    return "".join(
        f"{q} Q0 {d} {i} {10 - i} x\n" for q, by in run.items() for i, d in enumerate(by, 1)
    )


def load(path: str | None, source: str = "ir_datasets", **changes: Any) -> data.Collection:
    spec = DataSpec.model_validate({"source": source, "path": path, **changes})
    return data.load(spec, seed=0)


def test_scored_documents_are_the_recorded_first_stage(registered: Register) -> None:
    found = load(name := registered(trec(TOP)), first_stage={"depth": 2})
    first, second = found.test
    assert (first.query.qid, first.query.text) == ("1", "which city is on the Rhine")
    assert (first.docids, first.grades) == (("d3", "d1"), {"d2": 3, "d1": 1, "d3": 0})
    assert [c.score for c in first.candidates] == [9.0, 8.0]
    assert (second.query.qid, second.docids) == ("2", ("d4", "d3"))
    facts = found.provenance
    assert facts["dataset"]["ir_datasets"] == name and facts["dataset"]["version"]
    assert facts["first_stage"] == "run, first 2" and len(facts["files"]["qrels"]) == 64
    json.dumps(facts)


def test_only_documents_that_are_listed_or_judged_are_looked_up(registered: Register) -> None:
    name = registered(trec({"1": ["d1"], "2": ["d4"]}))
    assert load(name, first_stage={"depth": 1}).provenance["documents"] == 4 < len(DOCS)


def test_a_run_goes_first_and_queries_that_nobody_judged_are_left_out(
    registered: Register, tmp_path: Path
) -> None:
    run = tmp_path / "own.trec"
    run.write_text(trec({"1": ["d2"], "2": ["d3", "d4"], "3": ["d1"]}))
    found = load(registered(trec(TOP)), params={"run": str(run)})
    assert [t.docids for t in found.test] == [("d2",), ("d3", "d4")]
    assert found.provenance["unjudged"] == 1
    assert len(found.provenance["files"]["run"]) == 64


def test_without_any_list_bm25_searches_the_corpus(registered: Register) -> None:
    found = load(registered(), first_stage={"depth": 2})
    assert {t.query.qid: t.docids[0] for t in found.test}["1"] == "d2"
    assert sorted(found.test[1].docids) == ["d3", "d4"]
    assert found.provenance["first_stage"].startswith("BM25")


def test_lists_without_scores_have_no_order(registered: Register) -> None:
    # MS MARCO's own top 1000: query and passage, in no order of any ranking.
    pairs = "".join(f"{q}\t{d}\n" for q, by in TOP.items() for d in by)
    name = registered(pairs)
    with pytest.raises(DataError, match="no scores, so that their order means nothing.*pool: true"):
        load(name)
    found = load(name, first_stage={"pool": True})
    assert found.test[0].docids[0] == "d2"
    assert found.provenance["first_stage"].endswith("over the given candidates of each query")


def test_excluded_documents_make_room_before_the_cut(registered: Register, tmp_path: Path) -> None:
    path = tmp_path / "excluded.tsv"
    path.write_text("1\td3\n3\td1\n")
    params = {"excluded": str(path), "instruction": "Find it."}
    found = load(registered(trec(TOP)), params=params, first_stage={"depth": 2})
    assert found.test[0].docids == ("d1", "d2")
    assert found.test[0].grades == {"d2": 3, "d1": 1}
    assert found.test[0].query.instruction == "Find it."
    # A document with the id of a query, where a recipe says so.
    run = tmp_path / "own.json"
    run.write_text(json.dumps({"1": {"1": 9, "d1": 8}, "2": {"d4": 1}}))
    params = {"run": str(run), "exclude_same_id": True}
    assert load(registered(), params=params).test[0].docids == ("d1",)


class Paper(NamedTuple):
    doc_id: str
    title: str
    text: str

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class Page(NamedTuple):
    doc_id: str
    url: str
    body: str

    def default_text(self) -> str:
        return f"{self.url} {self.body}"


@pytest.mark.parametrize(
    ("kind", "content"), [(Paper, "Basel. On the Rhine."), (Page, "Basel On the Rhine.")]
)
def test_titles_stand_apart_where_there_are_texts(
    registered: Register, kind: Any, content: str
) -> None:
    (task, _) = load(registered(kind=kind)).test
    assert {c.content for c in task.candidates} == {content}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "data.path: no id"),
        ("msmarco-pasage/dev/small", "no collection .*nearest: msmarco-passage/dev/small"),
        ("msmarco-passage", "msmarco-passage: has no queries; expected 'msmarco-passage/dev'"),
        ("msmarco-passage/eval/small", "has no qrels; expected one with qrels"),
    ],
)
def test_ids_that_are_none_or_not_enough_are_one_line(path: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(path)


def test_missing_documents_and_broken_files_are_one_line(
    registered: Register, tmp_path: Path
) -> None:
    run = tmp_path / "own.trec"
    run.write_text(trec({"1": ["d9", "d2"], "2": ["d3"]}))
    params: dict[str, Any] = {"run": str(run)}
    with pytest.raises(DataError, match="candidates name 1 documents that are not in the corpus"):
        load(registered(), params=params)
    found = load(registered(), params={**params, "allow_missing": True})
    assert found.test[0].docids == ("d2",)
    name = registered()
    (tmp_path / "qrels").write_text("1 0 d2 good\n")
    with pytest.raises(DataError, match=f"ir_datasets {name}: cannot be had: ValueError"):
        load(name)


@pytest.mark.parametrize("year", [None, 2018, "2019", True])
def test_years_without_a_track_are_refused(year: Any) -> None:
    with pytest.raises(DataError, match="params.year: .*one of 2019, 2020, 2021, 2022, 2023"):
        load(None, "trec_dl", params={"year": year})


def msmarco_files(home: Path) -> None:
    """What ir_datasets leaves in its folder when it has loaded these collections once."""
    base = home / "msmarco-passage"
    files = {
        "irds_version.txt": "v2",
        "collection.tsv": tsv({str(n): text for n, text in enumerate(DOCS.values())}),
        "trec-dl-2019/queries.tsv": tsv(QUERIES),
        "trec-dl-2019/qrels": "1 Q0 1 3\n1 Q0 0 1\n2 Q0 3 2\n",
        "trec-dl-2019/ms.run": "1\t0\n1\t1\n2\t3\n3\t2\n",
        "dev/small/queries.tsv": tsv(QUERIES),
        "dev/small/qrels": "1\t0\t1\t1\n2\t0\t3\t1\n",
        "dev/ms.run": "1\t0\n1\t1\n2\t3\n3\t2\n",
    }
    for name, text in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CODE = """
import json, sys
from rank_rl import data
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec
for spec in json.loads(sys.argv[1]):
    try:
        found = data.load(DataSpec.model_validate(spec), seed=0)
    except DataError as error:
        print(json.dumps(str(error)))
    else:
        tasks = [[t.query.qid, t.docids, t.grades] for t in found.test]
        print(json.dumps([found.provenance["dataset"]["ir_datasets"], tasks]))
"""


def test_named_collections_are_read_from_the_folder_of_ir_datasets(tmp_path: Path) -> None:
    msmarco_files(tmp_path / "home")
    run = tmp_path / "bm25.trec"
    run.write_text(trec({"1": ["2", "1"], "2": ["3"], "3": ["0"]}))
    params = {"run": str(run)}
    specs = [
        {"source": "trec_dl", "params": {"year": 2019, **params}},
        {"source": "msmarco", "params": params, "first_stage": {"depth": 1}},
        {"source": "msmarco", "first_stage": {"pool": True}},
        {"source": "trec_dl", "params": {"year": 2020, **params}},
    ]
    environment = {
        **os.environ,
        "IR_DATASETS_HOME": str(tmp_path / "home"),
        "IR_DATASETS_SKIP_DISK_FREE": "true",
        "IR_DATASETS_DL_TRIES": "1",
        "https_proxy": "http://127.0.0.1:9",  # nothing listens there: no network
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(specs)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    track, small, pool, absent = map(json.loads, done.stdout.splitlines())
    assert track == [
        "msmarco-passage/trec-dl-2019/judged",
        [["1", ["2", "1"], {"1": 3, "0": 1}], ["2", ["3"], {"3": 2}]],
    ]
    assert small == ["msmarco-passage/dev/small", [["1", ["2"], {"1": 1}], ["2", ["3"], {"3": 1}]]]
    assert pool[1][0][1] == ["1", "0"]
    assert absent.startswith("ir_datasets msmarco-passage/trec-dl-2020/judged: cannot be had")
    assert "bring the folder of ir_datasets along: IR_DATASETS_HOME" in absent
