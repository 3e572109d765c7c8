"""TREC files: order by score, strictly decreasing scores out, errors with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rank_rl import data
from rank_rl.data.trec import read_qrels, read_queries_tsv, read_run, write_run
from rank_rl.errors import DataError
from rank_rl.records import Ranking
from rank_rl.specs import DataSpec, FirstStageSpec


def written(tmp_path: Path, text: str, name: str = "file.txt") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_run_is_read_as_trec_eval_reads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = "q1 Q0 a 1 1.0 t\nq1 Q0 b 2 3.5 t\nq1 Q0 d 4 1.0 t\nq1 Q0 c 3 1.0 t\n"
    run += "q2\tQ0\tx\t1\t-2e-1\tt\n"
    assert read_run(written(tmp_path, run)) == {
        "q1": (("b", 3.5), ("d", 1.0), ("c", 1.0), ("a", 1.0)),
        "q2": (("x", -0.2),),
    }
    assert "equal scores of 1 of 2 queries" in caplog.text
    caplog.clear()
    read_run(written(tmp_path, "q1 Q0 b 1 1.0 t\nq1 Q0 a 2 1.0 t\nq1 Q0 c 3 0.5 t\n"))
    assert not caplog.text  # ties whose ranks agree with trec_eval's order


def test_written_scores_fall_strictly_even_where_they_were_tied(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.run"
    docids = tuple(f"d{i}" for i in range(1500))
    write_run(path, [Ranking(qid="q", docids=docids, scores=(0.5,) * 1500)], tag="me")
    scores = [float(line.split()[4]) for line in path.read_text().splitlines()]
    assert all(high > low for high, low in zip(scores, scores[1:], strict=False))
    assert path.read_text().startswith("q Q0 d0 1 1500 me\n")
    assert tuple(d for d, _ in read_run(path)["q"]) == docids


@pytest.mark.parametrize(
    ("qid", "docid", "tag"), [("q 1", "d", "t"), ("q", "d\t", "t"), ("q", "d", "")]
)
def test_ids_that_a_run_cannot_hold_are_refused(
    qid: str, docid: str, tag: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="white space"):
        write_run(tmp_path / "a.run", [Ranking(qid=qid, docids=(docid,))], tag=tag)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 b 2 3.5", "5 columns; expected qid Q0 docid rank score tag"),
        ("q1 Q0 b 2 high t", "score 'high'; expected numbers"),
        ("q1 Q0 b first 1 t", "rank 'first'"),
        ("q1 Q0 b 2 nan t", "score 'nan'; expected a finite number"),
        ("q1 Q0 a 2 0.5 t", "document 'a' of 'q1' appears twice"),
    ],
)
def test_wrong_run_lines(line: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"q1 Q0 a 1 1.0 t\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_run(path)
    assert "file.txt:2: " in str(raised.value) and message in str(raised.value)


def test_qrels_and_queries(tmp_path: Path) -> None:
    assert read_qrels(written(tmp_path, "q1 0 a 2\nq1 0 b -1\n")) == {"q1": {"a": 2, "b": -1}}
    with pytest.raises(DataError, match=r"file\.txt:1: 3 columns; expected qid 0 docid grade"):
        read_qrels(written(tmp_path, "q1 a 2\n"))
    with pytest.raises(DataError, match=r"file\.txt:1: grade '1\.0'"):
        read_qrels(written(tmp_path, "q1 0 a 1.0\n"))
    queries = read_queries_tsv(written(tmp_path, "q1\twho is it?\n"))
    assert queries["q1"].text == "who is it?"
    with pytest.raises(DataError, match=r"file\.txt:1: no query; expected qid, tab, text"):
        read_queries_tsv(written(tmp_path, "q1 who\n"))


@pytest.fixture
def params(beir_folder: Callable[..., Path], tmp_path: Path) -> dict[str, object]:
    folder = beir_folder()
    run = "q1 Q0 d4 1 2 t\nq1 Q0 d2 2 1 t\nq2 Q0 d3 1 1 t\nq3 Q0 d1 1 9 t\nq3 Q0 d4 2 8 t\n"
    return {
        "corpus": str(folder / "corpus.jsonl"),
        "queries": str(written(tmp_path, "q1\tcity\nq2\tlake\nq3\tbread\n", "queries.tsv")),
        "qrels": {
            "train": str(written(tmp_path, "q1 0 d2 2\nq2 0 d3 1\n", "train.qrels")),
            "test": str(written(tmp_path, "q3 0 d4 1\n", "test.qrels")),
        },
        "run": str(written(tmp_path, run, "first.run")),
    }


def load(params: dict[str, object], **keys: object) -> data.Collection:
    return data.load(
        DataSpec(**{"source": "trec", "params": params, "validation": 0.0, **keys}), seed=0
    )


def test_a_run_with_qrels_and_corpus_is_a_collection(params: dict[str, object]) -> None:
    collection = load(params)
    assert [t.docids for t in collection.train] == [("d4", "d2"), ("d3",)]
    assert [c.score for c in collection.test[0].candidates] == [9.0, 8.0]
    assert collection.provenance["first_stage"] == "run, first 20"
    assert set(collection.provenance["files"]) == {
        "corpus",
        "queries",
        "run",
        "qrels.train",
        "qrels.test",
    }


def test_without_a_run_bm25_retrieves_and_with_pool_it_ranks_the_run(
    params: dict[str, object],
) -> None:
    bm25 = load(
        {k: v for k, v in params.items() if k != "run"}, first_stage=FirstStageSpec(depth=2)
    )
    assert bm25.test[0].docids[0] == "d4" and len(bm25.test[0].docids) == 2
    assert load(params, first_stage=FirstStageSpec(pool=True)).test[0].docids == ("d4", "d1")


def test_a_run_with_unknown_ids_or_missing_queries(
    params: dict[str, object], tmp_path: Path
) -> None:
    rows = Path(str(params["run"])).read_text()
    for added, message in [
        ("q1 Q0 x9 3 0.5 t\n", r"candidates name 1 documents that are not in the corpus: 'x9'"),
        ("q7 Q0 d1 1 0.5 t\n", r"candidates name 1 queries .* 'q7'"),
    ]:
        run = written(tmp_path, rows + added, "odd.run")
        with pytest.raises(DataError, match=message):
            load({**params, "run": str(run)})
    short = written(tmp_path, "q1 Q0 d1 1 1 t\nq2 Q0 d1 1 1 t\n", "short.run")
    with pytest.raises(DataError, match=r"1 queries without candidates: 'q3'"):
        load({**params, "run": str(short)})


def test_what_is_needed_is_named(params: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"data\.params\.corpus: None; expected the path"):
        load({k: v for k, v in params.items() if k != "corpus"})
    with pytest.raises(DataError, match=r"data\.params\.qrels"):
        load({**params, "qrels": None})
    with pytest.raises(DataError, match=r"gone\.run: no such file"):
        load({**params, "run": "gone.run"})
