"""Sources ``rankify`` and ``t2ranking``: files as they are published, and what is wrong in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rank_rl import data
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec


def context(docid: int | str, **changes: Any) -> dict[str, Any]:
    made = {"id": docid, "title": f"title {docid}", "text": f"text {docid}", "score": 1.5}
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


LIST = [
    {
        "question": "who wrote Faust?",
        "answers": ["Goethe"],
        "ctxs": [
            context(7, has_answer=False, score="81.5"),
            context(3, has_answer=True),
            context(9, score=None),
        ],
    },
    {"query_id": 12, "question": "where is Basel?", "ctxs": [context("d1", has_answer=True)]},
]


def rankify(path: Path | None = None, **changes: Any) -> data.Collection:
    spec: dict[str, Any] = {"source": "rankify", "path": str(path) if path else None, **changes}
    return data.load(DataSpec.model_validate(spec), seed=0)


def written(tmp_path: Path, content: Any, name: str = "nq-test.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def test_a_list_of_rankify_keeps_the_retrievers_order_and_its_answers(tmp_path: Path) -> None:
    found = rankify(written(tmp_path, LIST))
    faust, basel = found.test
    assert faust.docids == ("7", "3", "9")
    assert [c.rank for c in faust.candidates] == [1, 2, 3]
    assert [c.score for c in faust.candidates] == [81.5, 1.5, None]
    assert faust.candidates[0].content == "title 7. text 7"
    assert faust.grades == {"7": 0, "3": 1}
    assert faust.query.metadata == {"answers": ["Goethe"]}
    assert (basel.query.qid, basel.grades) == ("12", {"d1": 1})
    assert faust.query.qid.isalnum()  # a run file can hold it
    assert len(found.provenance["files"]["tasks"]) == 64
    assert found.name == "nq-test"


def test_lists_are_cut_to_the_depth_and_divided_by_file(tmp_path: Path) -> None:
    train = written(tmp_path, LIST, "train.json")
    lines = "\n".join(json.dumps({**r, "question": r["question"] + " now"}) for r in LIST[:1])
    test = written(tmp_path, lines, "test.jsonl")
    params = {"train": str(train), "test": str(test)}
    found = rankify(params=params, validation=0, first_stage={"depth": 2})
    assert [t.docids for t in found.train] == [("7", "3"), ("d1",)]
    assert [t.query.text for t in found.test] == ["who wrote Faust? now"]
    assert found.name == tmp_path.name  # not that of the training file
    deep = rankify(params=params, validation=0, first_stage={"depth": 1, "pool": True})
    assert sorted(deep.test[0].docids) == ["3", "7", "9"]
    # The same question in two files is a leak, whatever the files are called.
    params["test"] = str(written(tmp_path, LIST[:1], "again.json"))
    assert [t.query.qid for t in rankify(params=params, validation=0).train] == ["12"]


def test_a_question_without_judgements_has_no_grades(tmp_path: Path) -> None:
    bare = {"question": "who?", "ctxs": [context(1), context(2)]}
    none = {"question": "what?", "ctxs": [context(1, has_answer=False)]}
    found = rankify(written(tmp_path, [bare, none]))
    assert [task.grades for task in found.test] == [None, {"1": 0}]


def test_texts_of_lists_without_them_come_from_the_table_of_passages(tmp_path: Path) -> None:
    bare = [{**LIST[0], "ctxs": [{"id": 7, "has_answer": True}, {"id": 3, "score": 2}]}]
    path = written(tmp_path, bare)
    with pytest.raises(DataError, match="passage '7' has no text.*psgs_w100.tsv"):
        rankify(path)
    table = written(
        tmp_path,
        'id\ttext\ttitle\n3\tplain\tBasel\n7\t"a ""quoted"" text"\tFaust\n8\tx\ty\n',
        "p.tsv",
    )
    (task,) = rankify(path, params={"passages": str(table)}).test
    assert [c.content for c in task.candidates] == ['Faust. a "quoted" text', "Basel. plain"]
    table.write_text("id\ttext\ttitle\n3\tplain\n")
    with pytest.raises(DataError, match="p.tsv:2: 2 columns"):
        rankify(path, params={"passages": str(table)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ({"question": "?"}, "no list of questions"),
        ([3], "question 1: not an object"),
        ([{"question": "?"}], "question 1: no ctxs"),
        ([{"question": "?", "ctxs": []}], "question 1: no ctxs"),
        ([{"ctxs": [context(1)]}], "question 1: no text"),
        (
            [LIST[0], {"question": "?", "ctxs": [context(1), context(1)]}],
            "question 2: listed twice",
        ),
        ([{"question": "?", "ctxs": [context(1, has_answer=1)]}], "ctxs 1: has_answer 1"),
        ([{"question": "?", "ctxs": [context(1, score="high")]}], "ctxs 1: score 'high'"),
        ([{"question": "?", "ctxs": [{"text": "t"}]}], "ctxs 1: no identifier"),
        ([LIST[1], LIST[1]], "query id '12' appears twice"),
    ],
)
def test_malformed_lists_are_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rankify(written(tmp_path, content))


T2 = {
    "collection.tsv": "pid\ttext\n0\t莱茵河\n1\t巴塞尔在\t莱茵河\n2\t面包\n3\t湖\n4\tunused\n",
    "queries.train.tsv": "qid\ttext\n0\t哪条河\n1\t哪座城市\n2\tnot judged\n",
    "queries.dev.tsv": "0\t哪个湖\n",
    "qrels.train.tsv": "qid\t-\tpid\trel\n0\t0\t0\t3\n0\t0\t2\t0\n1\t0\t1\t2\n",
    "qrels.dev.tsv": "0\t0\t3\t1\n",
    "qrels.retrieval.train.tsv": "qid\tpid\n0\t0\n1\t1\n",
    "qrels.retrieval.dev.tsv": "0\t3\n",
    "train.bm25.tsv": "qid\tpid\tindex\n0\t9\t1\n",
    "train.mined.tsv": "qid\tpid\tindex\tscore\n0\t2\t1\t8.5\n0\t0\t0\t9.5\n0\t3\t2\t7\n"
    "1\t1\t0\t4\n2\t4\t0\t4\n",
    "dev.bm25.tsv": "0\t1\t1\n0\t3\t2\n",
}  # fmt: skip


def t2ranking(
    tmp_path: Path, files: dict[str, str | None] | None = None, **changes: Any
) -> data.Collection:
    folder = tmp_path / "t2"
    folder.mkdir(exist_ok=True)
    for name, text in {**T2, **(files or {})}.items():
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    spec = {"source": "t2ranking", "path": str(folder), "test_split": "dev", "validation": 0}
    return data.load(DataSpec.model_validate({**spec, **changes}), seed=0)


def test_t2ranking_is_read_as_published(tmp_path: Path) -> None:
    found = t2ranking(tmp_path)
    # Query 0 is another one in each split.
    river, city = found.train
    assert (river.query.qid, river.query.text, river.grades) == (
        "train:0",
        "哪条河",
        {"0": 3, "2": 0},
    )
    assert [(c.docid, c.rank, c.score) for c in river.candidates] == [
        ("0", 1, 9.5), ("2", 2, 8.5), ("3", 3, 7.0)
    ]  # fmt: skip
    assert city.candidates[0].text == "巴塞尔在 莱茵河"
    (lake,) = found.test
    assert (lake.query.qid, lake.docids, lake.grades) == ("dev:0", ("1", "3"), {"3": 1})
    assert [c.score for c in lake.candidates] == [-1.0, -2.0]
    assert found.provenance["documents"] == 4
    assert set(found.provenance["files"]) == {
        "collection", "queries.train", "qrels.train", "run.train", "queries.dev", "qrels.dev",
        "run.dev",
    }  # fmt: skip
    shallow = t2ranking(tmp_path, first_stage={"depth": 2})
    assert shallow.train[0].docids == ("0", "2")


def test_t2ranking_keeps_ids_that_mean_one_query(tmp_path: Path) -> None:
    other = {
        "queries.dev.tsv": "7\t哪个湖\n",
        "qrels.dev.tsv": "7\t0\t3\t1\n",
        "dev.bm25.tsv": "7\t3\t1\n",
    }
    found = t2ranking(tmp_path, other)
    assert [t.query.qid for t in (*found.train, *found.test)] == ["0", "1", "7"]


def test_t2ranking_has_judgements_for_retrieval_and_other_lists(tmp_path: Path) -> None:
    found = t2ranking(tmp_path, params={"retrieval": True})
    assert [t.grades for t in found.train] == [{"0": 1}, {"1": 1}]
    own = tmp_path / "own.tsv"
    own.write_text("0\t3\t1\t2.0\n1\t2\t1\t2.0\n")
    found = t2ranking(tmp_path, params={"run": {"train": str(own)}})
    assert [t.docids for t in found.train] == [("3",), ("2",)]
    pooled = t2ranking(tmp_path, {"train.mined.tsv": None, "train.bm25.tsv": None},
                       first_stage={"pool": True})  # fmt: skip
    assert sorted(pooled.train[0].docids) == ["0", "2"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.mined.tsv": None, "train.bm25.tsv": None},
            "no first-stage list for split 'train'",
        ),
        ({"train.mined.tsv": "0\t0\n"}, r"train.mined.tsv:1: 2 columns"),
        ({"train.mined.tsv": "0\t0\tfirst\n"}, r"train.mined.tsv:1: \['first'\]"),
        (
            {"train.mined.tsv": "0\t0\t1\n0\t0\t2\n"},
            "train.mined.tsv:2: passage '0' is listed twice",
        ),
        ({"qrels.train.tsv": "0\t0\t1\n"}, "qrels.train.tsv:1: 3 columns"),
        ({"qrels.train.tsv": "0\t0\t0\tgood\n"}, "qrels.train.tsv:1: grade 'good'"),
        ({"qrels.train.tsv": "5\t0\t0\t1\n"}, "judges query '5', which has no text"),
        ({"queries.train.tsv": "0\n"}, "queries.train.tsv:1: 1 columns"),
        ({"collection.tsv": "0\tx\n0\ty\n"}, "collection.tsv:2: passage '0' appears twice"),
        ({"collection.tsv": "0\tx\n"}, "documents that are not in the corpus"),
        ({"qrels.dev.tsv": None}, "no split 'dev'; expected one of train"),
        ({"qrels.dev.tsv": None, "qrels.train.tsv": None}, "no qrels.SPLIT.tsv"),
    ],
)
def test_wrong_files_of_t2ranking_are_one_line(
    tmp_path: Path, files: dict[str, str | None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        t2ranking(tmp_path, files)
