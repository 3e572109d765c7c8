"""Teachers against a server that misbehaves, and against kill -9: nothing is lost or paid twice."""

from __future__ import annotations

import json
import os
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import warm
from openai_server import Server, ServerSettings

from rank_rl.errors import BackendError
from rank_rl.specs import RecipeSpec
from rank_rl.teachers.ledger import ledger
from rank_rl.teachers.run import run
from rank_rl.teachers.store import Store

KEY = "sk-test-0123456789abcdef"
# Everything that must be the same however often a run was interrupted.
OUTPUT = ("lessons.jsonl", "tasks.jsonl", "exchanges.jsonl", "report.json", "README.md")


def collection(path: Path, queries: int, documents: int) -> Path:
    """Queries of one split, each with documents of its own."""
    rows = [
        {
            "qid": f"q{q}",
            "query": f"what is known about subject {q}?",
            "candidates": [
                {"docid": f"q{q}d{d}", "text": f"fact number {d} about subject {q}"}
                for d in range(documents)
            ],
            "grades": {f"q{q}d{q % documents}": 1},
            "split": "train",
        }
        for q in range(queries)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def recipe(
    folder: Path, url: str, questions: list[dict[str, Any]], **endpoint: Any
) -> dict[str, Any]:
    return {
        "run": {"name": "faults", "seed": 5, "output_dir": str(folder / "out")},
        "model": {"name": str(folder / "student")},
        "data": {
            "source": "jsonl",
            "path": str(folder / "tasks.jsonl"),
            "test_split": "",
            "validation": 0,
            "first_stage": {"name": "given"},
        },
        "format": {"name": "permutation", "mode": "reason"},
        "teach": {
            "teachers": {
                "main": {
                    "name": "endpoint",
                    "model": "teacher",
                    "price": {"input": 1.0, "output": 2.0},
                    "params": {"base_url": url, "api_key_env": "TEACH_KEY", **endpoint},
                }
            },
            "questions": questions,
        },
    }


POINT = {
    "name": "point",
    "format": {"name": "pointwise", "mode": "reason"},
    "strategy": {"name": "by_score", "params": {"size": 1}},
    "max_tokens": 64,
}
LIST = {"name": "list", "format": {"name": "permutation", "mode": "reason"}, "max_tokens": 256}


def no_key_in(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_600_requests_at_30_percent_faults_all_end_labelled_or_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEACH_KEY", KEY)
    collection(tmp_path / "tasks.jsonl", queries=60, documents=10)
    settings = ServerSettings(fault_rate=0.3, seed=3, key=KEY)
    with Server(settings) as server, caplog.at_level("DEBUG"):
        content = recipe(tmp_path, server.url, [POINT], concurrency=64, timeout=2.0, retries=3)
        spec = RecipeSpec.model_validate(content)
        summary = run(spec, {"hash": "h", "path": "p"})
        counts = server.counts()
    out = tmp_path / "out"
    assert spec.teach is not None
    store = Store(out / "store")
    told = ledger(store, spec.teach.teachers, "USD")
    failed = store.failures()
    # Every item ended as one or the other, and the faults were really there.
    assert told["succeeded"] + len(failed) == 600
    assert told["failed_attempts"] > 150
    assert len(counts["faults"]) >= 10
    # What the server counts as answered is what the ledger says was paid; nothing was sent twice.
    assert counts["successes"] == told["succeeded"]
    assert max(counts["by_request"].values()) == 1
    assert counts["requests"] == told["requests"]
    assert {f.cause for f in failed} <= {
        "rate_limit", "server_error", "timeout", "connection", "malformed", "empty",
    }  # fmt: skip
    exchanges = [json.loads(line) for line in (out / "exchanges.jsonl").read_text().splitlines()]
    assert len(exchanges) == 600
    assert sum(e["finish"] == "error" for e in exchanges) == len(failed)
    assert told["cost"] == pytest.approx((told["tokens_in"] + 2 * told["tokens_out"]) / 1e6)
    assert summary["requests"]["given_up"] == len(failed)
    no_key_in(tmp_path)
    assert KEY not in caplog.text


def test_failed_requests_are_sent_again_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rank_rl.teachers.run import Options

    monkeypatch.setenv("TEACH_KEY", KEY)
    collection(tmp_path / "tasks.jsonl", queries=10, documents=4)
    with Server(ServerSettings(fault_rate=1.0, faults=("error_500",), key=KEY)) as bad:
        spec = RecipeSpec.model_validate(recipe(tmp_path, bad.url, [LIST], retries=0))
        for _ in range(2):
            with pytest.raises(BackendError, match="10 requests were given up"):
                run(spec, {})
            assert bad.counts()["requests"] == 10, "a failure is not sent again by itself"
    with Server(ServerSettings(key=KEY)) as good:
        again = RecipeSpec.model_validate(recipe(tmp_path, good.url, [LIST], retries=0))
        summary = run(again, {}, Options(retry_failed=True))
        assert good.counts()["successes"] == 10
    assert summary["requests"]["given_up"] == 0
    assert summary["lessons"] == 10


def teach(path: str, going: Any) -> None:
    spec = RecipeSpec.model_validate(json.loads(Path(path).read_text()))
    going.set()
    run(spec, {"hash": "h", "path": "p"})


def started(path: Path) -> BaseProcess:
    going = warm.event()
    process = warm.start(teach, str(path), going, said=path.with_name("said.txt"))
    assert going.wait(60)
    return process


def test_ten_kills_at_random_moments_change_nothing_and_repeat_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACH_KEY", KEY)
    sliding = {**LIST, "strategy": {"name": "sliding", "params": {"window": 4, "step": 2}}}
    folders = {"killed": tmp_path / "killed", "whole": tmp_path / "whole"}
    rng = random.Random(11)
    output = {}
    for name, folder in folders.items():
        folder.mkdir()
        collection(folder / "tasks.jsonl", queries=60, documents=8)
        # Slow enough that ten runs do not finish it: each request takes 50 ms, four at a time.
        with Server(ServerSettings(delay=0.05, key=KEY)) as server:
            content = recipe(folder, server.url, [sliding, POINT], concurrency=4)
            # The same recipe in both folders: what is written must be the same byte for byte.
            content["run"]["output_dir"] = "out"
            content["model"]["name"] = "student"
            content["data"]["path"] = "tasks.jsonl"
            path = folder / "recipe.json"
            path.write_text(json.dumps(content))
            if name == "whole":
                content["teach"]["teachers"]["main"]["params"]["concurrency"] = 64
                path.write_text(json.dumps(content))
            here = os.getcwd()
            os.chdir(folder)
            try:
                kills = 10 if name == "killed" else 0
                for _ in range(kills):
                    process = started(path)
                    until = server.counts()["requests"] + rng.randint(1, 60)
                    deadline = time.monotonic() + 60
                    while server.counts()["requests"] < until and process.is_alive():
                        assert time.monotonic() < deadline
                        time.sleep(0.005)
                    assert process.is_alive(), "it was to be killed while it was asking"
                    process.kill()
                    process.join()
                    time.sleep(0.2)  # the server notices that nobody listens any more
                content["teach"]["teachers"]["main"]["params"]["concurrency"] = 64
                path.write_text(json.dumps(content))
                last = started(path)
                last.join(240)
                assert last.exitcode == 0, (folder / "said.txt").read_text()
            finally:
                os.chdir(here)
            counts = server.counts()
        # Sliding windows: 3 a query; 8 documents judged one by one.
        store = Store(folder / "out" / "store")
        totals = store.totals()["main"]["states"]
        assert totals["ok"] == 60 * (3 + 8), "what was stored was never asked again"
        interrupted = totals.get("open", 0)
        assert (interrupted > 0) == (name == "killed")
        assert interrupted <= 10 * 4
        # A reply that was on its way when the process died is asked for again; no other one is.
        repeated = counts["successes"] - totals["ok"]
        assert sum(n - 1 for n in counts["by_request"].values()) == repeated <= interrupted
        output[name] = {f: (folder / "out" / f).read_bytes() for f in OUTPUT}
        no_key_in(folder)
    assert output["killed"] == output["whole"]
