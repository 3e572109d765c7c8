"""``rank-rl rerank --engine endpoint`` with a real server on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai_server import Fixed, Server, ServerSettings
from reranking import done, refused, summary

from rank_rl.data import trec

pytest.importorskip("openai")

REFUSED = Fixed(status=401, body={"error": {"message": "no", "type": "test", "code": None}})
DOWN = Fixed(status=400, body={"error": {"message": "not this one", "type": "test", "code": None}})


def options(server: Server, tasks: Path, output: Path) -> list[Any]:
    given = ["--engine", "endpoint", "--base-url", server.url, "--format", "permutation"]
    given += ["--concurrency", "1", "--engine-params", "retries=0 timeout=20"]
    return ["--model", "tiny", *given, "--tasks", tasks, "--output", output]


def test_what_a_server_answered_is_not_asked_twice(tasks: Path, tmp_path: Path) -> None:
    """It refuses all after six answers: four are a whole portion, two are kept as answers."""
    output = tmp_path / "o.trec"
    with Server(ServerSettings(script=("",) * 6 + (REFUSED,))) as server:
        given = options(server, tasks, output)
        said = refused(*given)
        assert "401" in said or "key" in said
        assert not output.exists()
        told = done(*given)
        assert "4 of 10 queries were answered before" in told.stderr
        assert server.counts()["successes"] == 10 and max(server.successes.values()) == 1
        body = server.bodies[-1]
    assert body["model"] == "tiny" and "lake" in body["messages"][-1]["content"]
    assert sorted(trec.read_run(output)) == sorted(f"q{i}" for i in range(10))
    assert summary(output)["settings"]["model"]["server"].startswith("http://127.0.0.1")
    assert summary(output)["statuses"]["ok"] == 10


def test_a_query_that_got_no_answer_is_asked_again(tasks: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.trec"
    with Server(ServerSettings(script=("", "", DOWN))) as server:
        given = options(server, tasks, output)
        told = done(*given)
        assert "1 of them have requests that nobody answered" in told.stdout
        assert summary(output)["unanswered"] == ["q2"]
        told = done(*given)
        assert "nobody answered" not in told.stdout and summary(output)["unanswered"] == []
        assert server.counts()["successes"] == 10
        done(*given, "--overwrite")
        assert server.counts()["successes"] == 20


def test_other_settings_of_the_server_are_another_reranking(tasks: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.trec"
    with Server() as server:
        given = options(server, tasks, output)
        done(*given)
        said = refused(
            *[a if a != "permutation" else "name=permutation mode=reason" for a in given]
        )
        assert "another format" in said
        assert "another model: name 'tiny' there, 'other' now" in refused(
            *[a if a != "tiny" else "other" for a in given]
        )
        assert "unknown parameter 'tries'" in refused(
            *[a if a != "retries=0 timeout=20" else "tries=3" for a in given]
        )
        assert len(json.loads((tmp_path / "o.trec.json").read_text())["unanswered"]) == 0
