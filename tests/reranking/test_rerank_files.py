"""``rank-rl rerank`` of files: what it writes, what it keeps, what it refuses, and shared work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reranking import done, invoke, refused, summary, without_seconds

from rank_rl.data import trec
from rank_rl.rerank import Reranker
from rank_rl.reranking import inputs, jobs
from rank_rl.reranking.kept import Kept
from rank_rl.reranking.settings import settings
from rank_rl.reranking.shares import Team, shared


@pytest.fixture
def files(checkpoint: Path, tasks: Path, tmp_path: Path) -> list[Any]:
    return ["--model", checkpoint, "--tasks", tasks, "--output", tmp_path / "new.trec"]


def test_a_run_its_exchanges_and_what_it_has_cost(files: list[Any], tmp_path: Path) -> None:
    exchanges = tmp_path / "x.jsonl"
    told = done(*files, "--exchanges", exchanges, "--fusion", "rrf")
    assert "10 queries: 10 calls showing 50 documents" in told.stderr
    assert "10 queries reranked" in told.stdout
    found = trec.read_run(tmp_path / "new.trec")
    assert list(found) == [f"q{i}" for i in range(10)]
    assert all(sorted(d for d, _ in found[q]) == [f"d{q[1:]}.{i}" for i in range(5)] for q in found)
    records = [json.loads(line) for line in exchanges.read_text().splitlines()]
    assert [r["qid"] for r in records] == list(found)
    assert records[3]["outcome"]["order"] == [d for d, _ in found["q3"]]
    assert list(trec.read_run(tmp_path / "new.fused.trec")) == list(found)
    said = summary(tmp_path / "new.trec")
    assert (said["queries"], said["documents"], said["calls"]) == (10, 50, 10)
    assert said["settings"]["format"]["name"] == "slots" and said["processes"] == 1
    assert sum(said["statuses"].values()) == 50 and said["answered_before"] == 0


def test_what_is_kept_is_written_in_another_form_without_asking(
    files: list[Any], tmp_path: Path
) -> None:
    done(*files)
    part = tmp_path / "new.trec.kept" / "part-0.jsonl"
    before = part.read_bytes()
    told = done(*files, "--scores", "--exchanges", tmp_path / "x.jsonl", "--top-k", "2")
    assert "10 of 10 queries were answered before" in told.stderr and "call" not in told.stderr
    assert part.read_bytes() == before
    found = trec.read_run(tmp_path / "new.trec")
    assert all(len(rows) == 2 for rows in found.values())
    assert any(score != int(score) for _, score in found["q0"])
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 10


def test_another_reranking_needs_another_output_or_overwrite(
    files: list[Any], tasks: Path, tmp_path: Path
) -> None:
    done(*files)
    run = (tmp_path / "new.trec").read_bytes()
    kept = f"{tmp_path / 'new.trec.kept'}: was answered with another"
    by_two = ["--strategy", "by_score", "--strategy-params", "size=2"]
    said = refused(*files, *by_two)
    assert said.startswith(f"error: {kept} strategy") and "--overwrite starts anew" in said
    assert f"{kept} readout" in refused(*files, "--readout", "expected")
    assert f"{kept} format" in refused(*files, "--format", "name=slots mode=reason doc_tokens=8")
    assert f"{kept} input" in refused(*files, "--depth", "4")
    here = summary(tmp_path / "new.trec")["settings"]["model"]["precision"]
    done(*files, "--dtype", "auto")
    there = "float32" if here == "bfloat16" else "bfloat16"
    said = refused(*files, "--dtype", there)
    assert f"{kept} model: precision '{here}' there, '{there}' now" in said
    assert "dtype: 'int8'; expected auto, float32, bfloat16" in refused(*files, "--dtype", "int8")
    assert (tmp_path / "new.trec").read_bytes() == run
    done(*files, *by_two, "--overwrite")
    assert summary(tmp_path / "new.trec")["calls"] == 30
    text = tasks.read_text().replace("lake 3", "lake three")
    tasks.write_text(text)
    assert f"{kept} input" in refused(*files, *by_two)


def test_depth_is_what_is_reranked_and_top_k_what_is_written(
    files: list[Any], tmp_path: Path
) -> None:
    output = tmp_path / "lists.jsonl"
    done(*files[:-1], output, "--depth", "3", "--top-k", "2")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [r["qid"] for r in records] == [f"q{i}" for i in range(10)]
    assert all([d["rank"] for d in r["ranking"]] == [1, 2] for r in records)
    assert {d["before"] for r in records for d in r["ranking"]} == {1, 2, 3}
    assert records[4]["query"] == "where is lake 4?"
    assert summary(output)["documents"] == 30


def test_a_beir_folder_by_bm25(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"_id": f"d{i}", "text": f"the lake {i} and a town"} for i in range(6)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "lake 3"}\n')
    output = tmp_path / "out.trec"
    model = ["--model", checkpoint, "--output", output]
    done(*model, "--beir", tmp_path, "--depth", "4")
    assert len(trec.read_run(output)["q"]) == 4
    run = tmp_path / "given.trec"
    run.write_text("q Q0 d5 1 2 x\nq Q0 d2 2 1 x\n")
    done(*model, "--beir", tmp_path, "--run", run, "--overwrite")
    assert sorted(d for d, _ in trec.read_run(output)["q"]) == ["d2", "d5"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tasks", "t", "--run", "r"], "--tasks: not with --run"),
        (["--tasks", "t", "--corpus", "c"], "--corpus: not with --tasks"),
        (["--tasks", "t", "--split", "test"], "--split: only with --beir"),
        (["--tasks", "t"], "--output: missing; expected with --tasks, a file"),
        (["--beir", "b", "--queries", "q"], "--queries: not with --beir"),
        (["--beir", "b", "--first-stage", "bm25"], "--first-stage: not with --beir"),
        (["--tasks", "t", "--output", "o", "--engine", "remote"], "--engine: 'remote'"),
        (["--tasks", "t", "--output", "o", "--base-url", "u"], "--base-url: only with --engine"),
        (["--tasks", "t", "--output", "o", "--engine-params", "a=1"], "--engine-params: not with"),
        (["--tasks", "t", "--output", "o", "--engine", "endpoint"], "--format: missing"),
        (
            [
                "--tasks",
                "t",
                "--engine",
                "endpoint",
                "--format",
                "permutation",
                "--batch-size",
                "3",
            ],
            "--batch-size: not with --engine endpoint",
        ),
        (["--tasks", "t", "--format", "name=slots docs=3"], "--format: docs: "),
        (["--query", "q", "--documents", "d", "--depth", "3"], "--depth: only with --run"),
        (["--query", "q", "--page", "p", "--documents", "d", "--no-explain"], "--no-explain: not"),
    ],
)
def test_options_that_contradict_each_other(options: list[str], expected: str) -> None:
    assert refused("--model", "none", *options).startswith(f"error: {expected}")


def test_nothing_that_was_read_is_overwritten(checkpoint: Path, tasks: Path) -> None:
    base = ["--model", checkpoint, "--tasks", tasks, "--output"]
    assert "run: " in (said := refused(*base, tasks)) and "is an input" in said
    other = tasks.with_name("o.trec")
    assert "exchanges: " in refused(*base, other, "--exchanges", tasks)
    assert "is the run as well" in refused(*base, other, "--exchanges", other)
    assert "is a folder" in refused(*base, tasks.parent)
    assert tasks.read_text().startswith('{"qid": "q0"') and not other.exists()


def test_ids_that_a_trec_run_cannot_hold_are_found_before_anything_is_asked(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"qid": "a b", "query": "who?", "documents": ["x", "y"]}\n')
    base = ["--model", checkpoint, "--tasks", path, "--output"]
    assert "id 'a b' has white space" in refused(*base, tmp_path / "o.trec")
    done(*base, tmp_path / "o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text())["qid"] == "a b"


def test_two_processes_and_then_one_leave_the_bytes_of_one(
    checkpoint: Path, tasks: Path, tmp_path: Path
) -> None:
    """The shares of two processes, one after the other; the second is stopped half way."""
    ranker = Reranker.from_pretrained(checkpoint)
    read = inputs.read_listed_tasks(tasks)
    known = settings(ranker, read.tasks, portion=2, explain=2)
    whole = jobs.Job(tasks=read.tasks, folder=tmp_path / "whole", settings=known)
    alone, plan = jobs.opened(whole, ranker, Team())
    assert plan.before == 0 and len(plan.left(whole)) == 10
    jobs.ask(whole, ranker, Team(), alone, plan)

    parts = replace(whole, folder=tmp_path / "parts")
    two = replace(plan, shares=shared(dict.fromkeys(range(5), 1), 2))
    first, second = (Kept(parts.folder, known, rank=rank) for rank in range(2))
    jobs.ask(parts, ranker, Team(), first, two)
    stopped = replace(two, shares=[two.shares[1][:1]])
    jobs.ask(parts, ranker, Team(), second, stopped)
    assert len(list(parts.folder.iterdir())) == 2

    kept, rest = jobs.opened(parts, ranker, Team())
    assert rest.before == 8 and len(rest.left(parts)) == 2
    jobs.ask(parts, ranker, Team(), kept, rest)
    for task in read.tasks:
        qid = task.query.qid
        got, expected = kept.whole(qid), alone.whole(qid)
        assert (got.docids, got.scores) == (expected.docids, expected.scores)
        assert [unmeasured(t) for t in got.traces] == [unmeasured(t) for t in expected.traces]
        assert len(got.traces) == 3  # the question and two explanations


def unmeasured(trace: str) -> Any:
    record = json.loads(trace)
    record["completion"].pop("seconds")
    return record


def test_a_disk_that_cannot_be_written_is_one_line(files: list[Any], tmp_path: Path) -> None:
    (tmp_path / "new.trec.kept").write_text("a file in the way")
    assert "cannot be written" in refused(*files)


def test_files_that_were_written_are_written_again_the_same(
    files: list[Any], tmp_path: Path
) -> None:
    exchanges = ["--exchanges", tmp_path / "x.jsonl"]
    done(*files, *exchanges)
    run, said = (tmp_path / "new.trec").read_bytes(), without_seconds(tmp_path / "x.jsonl")
    assert invoke(*files, *exchanges, "--fresh").exit_code == 0
    assert (tmp_path / "new.trec").read_bytes() == run
    assert without_seconds(tmp_path / "x.jsonl") == said


def test_listed_documents_of_a_model_that_reads_their_order(
    tiny_model_dir: Path, tasks: Path, tmp_path: Path
) -> None:
    hinted = "name=slots first_stage_hint=rank"
    given = ["--model", tiny_model_dir, "--format", hinted, "--tasks", tasks]
    told = done(*given, "--output", tmp_path / "a.jsonl", "--depth", "2")
    assert "no first-stage scores: BM25 orders the documents" in told.stderr
    told = done(*given, "--output", tmp_path / "b.jsonl", "--first-stage", "given", "--depth", "2")
    assert "BM25" not in told.stderr
    docids = [
        {d["docid"] for d in json.loads(line)["ranking"]}
        for line in (tmp_path / "b.jsonl").read_text().splitlines()
    ]
    assert docids == [{f"d{q}.0", f"d{q}.1"} for q in range(10)]
