"""What is too much, too slow, too late or not allowed: refused with a reason, or marked."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import DOCUMENTS, HTTP, Held, ranker_of, serving

from rank_rl.errors import BackendError, RecipeError
from rank_rl.serve.keys import Keys, read_keys
from rank_rl.serve.limits import Limits, Refused

FIELDS = {"query": "who is the father?", "documents": DOCUMENTS}


def post(url: str, fields: Any = FIELDS, **headers: str) -> httpx2.Response:
    content = fields if isinstance(fields, bytes) else json.dumps(fields)
    return HTTP.post(url + "/v1/rerank", content=content, headers=headers)


@contextmanager
def held_server(loaded: Any, **limits: Any) -> Any:
    """A server whose model waits, and what posts to it in the background."""
    ranker = ranker_of(loaded)
    held = Held(ranker)
    with ThreadPoolExecutor(8) as pool:
        try:
            with serving(ranker, **limits) as server:

                def send(**fields: Any) -> Future[httpx2.Response]:
                    return pool.submit(post, server.url, FIELDS | fields)

                yield server, held, send
                held.go.set()
        finally:
            held.go.set()


def test_sizes(loaded):
    with serving(ranker_of(loaded), documents=3, body_bytes=500, query_chars=20) as server:
        url = server.url
        refused = {
            "too_many_documents": (422, {"query": "a", "documents": ["b"] * 4}),
            "query_too_long": (422, {"query": "a" * 21, "documents": ["b"]}),
            "instruction_too_long": (
                422, {"query": "a", "documents": ["b"], "instruction": "c" * 21},
            ),
            "body_too_large": (413, {"query": "a", "documents": ["b" * 500]}),
        }  # fmt: skip
        for code, (status, fields) in refused.items():
            got = post(url, fields)
            assert (got.status_code, got.json()["code"]) == (status, code)
        fits = {"query": "a" * 20, "documents": ["b"] * 3}
        assert post(url, fits).status_code == 200

        # Chunks tell no length: they are counted as they come, and a large body is not kept.
        chunks = (b"x" * 1000 for _ in range(2000))
        got = HTTP.post(url + "/v1/rerank", content=chunks)
        assert got.status_code == 413
        assert post(url, json.dumps(fits).encode(), **{"Content-Encoding": "gzip"}).json() == {
            "message": "the body must not be compressed",
            "detail": "the body must not be compressed",
            "code": "encoded_body",
        }


def test_a_body_that_does_not_come(loaded):
    with serving(ranker_of(loaded), upload_seconds=0.3) as server:
        host, port = server.address.getsockname()
        with socket.create_connection((host, port), timeout=120) as slow:
            slow.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert b"408" in answer.split(b"\r\n")[0] and b"upload_too_slow" in answer


def test_too_many_at_once(loaded):
    with held_server(loaded, waiting=2) as (server, held, send):
        first, second = send(), send()
        while server.service.gate.inside < 2:
            assert not first.done() and not second.done()
        got = post(server.url)
        assert got.status_code == 429 and got.json()["code"] == "too_many_requests"
        assert 1 <= int(got.headers["Retry-After"]) <= 60
        # Other pages answer all the same.
        assert HTTP.get(server.url + "/health").json()["requests"] == 2
        held.go.set()
        assert {first.result().status_code, second.result().status_code} == {200}
        assert post(server.url).status_code == 200


def test_the_time_budget_ends_in_the_first_stage(loaded):
    with held_server(loaded, seconds=60) as (server, held, send):
        told = send(timeout_ms=50, top_n=2).result().json()
        assert [one["index"] for one in told["results"]] == [0, 1]
        assert [one["relevance_score"] for one in told["results"]] == [1.0, 0.8]
        assert told["order"] == "first_stage" and told["scores"] == "rank"
        assert told["fallback"]["reason"] == "time_budget"
        metrics = HTTP.get(server.url + "/metrics").text
        assert 'rank_rl_fallbacks_total{reason="time_budget"} 1.0' in metrics
        # While the model is busy, the next one waits in line and is given up there.
        assert send(timeout_ms=50).result().json()["order"] == "first_stage"
        held.go.set()
        after = send(query="after").result().json()
        assert after["order"] == "model"
    assert {q for batch in held.asked for q in batch} == {"who is the father?", "after"}
    assert sum(len(batch) for batch in held.asked) == 2, "what was given up is not asked"


def test_the_servers_budget_is_the_longest(loaded):
    with held_server(loaded, seconds=0.05) as (_, _, send):
        assert send(timeout_ms=10**9).result().json()["order"] == "first_stage"


def test_a_client_that_left_is_forgotten(loaded):
    with held_server(loaded) as (server, held, send):
        first = send()
        assert held.came.acquire(timeout=120)
        body = json.dumps(FIELDS | {"query": "gone"}).encode()
        head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(server.address.getsockname()) as client:
            client.sendall(head.encode() + body)
            while server.service.batcher.waiting < 2:
                assert not first.done()
        while server.service.gate.inside > 1:
            assert not first.done()
        held.go.set()
        assert first.result().status_code == 200
        assert 'rank_rl_requests_total{status="499"} 1.0' in HTTP.get(server.url + "/metrics").text
    assert held.asked == [["who is the father?"]]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BackendError("nobody answers", where="http://x"), "http://x: nobody answers"),
        (RuntimeError("CUDA out of memory, secret"), "the model failed (RuntimeError)"),
    ],
)
def test_a_model_that_fails_is_503_and_goes_on(loaded, error, words):
    ranker = ranker_of(loaded)
    held = Held(ranker, go=True)

    def fails(queries: list[str]) -> None:
        if "bad" in queries:
            raise error

    held.fails = fails
    with serving(ranker) as server:
        got = post(server.url, FIELDS | {"query": "bad"})
        assert got.status_code == 503 and got.json()["code"] == "model_failed"
        assert words in got.json()["message"] and "secret" not in got.text
        assert post(server.url).json()["order"] == "model"


def test_batching_off_ranks_one_after_the_other(loaded):
    with held_server(loaded, together=1) as (server, held, send):
        first = send()
        assert held.came.acquire(timeout=120)
        others = [send(query=f"query {i}") for i in range(3)]
        while server.service.batcher.waiting < 4:
            assert not first.done()
        held.go.set()
        assert {f.result().status_code for f in [first, *others]} == {200}
    assert [len(batch) for batch in held.asked] == [1, 1, 1, 1]


def test_ending_refuses_what_is_new_and_finishes_what_was_accepted(loaded):
    with held_server(loaded) as (server, held, send):
        accepted = send()
        assert held.came.acquire(timeout=120)
        ending = threading.Thread(target=server.stop, args=(30,))
        ending.start()
        while not server.service.gate.draining:
            pass
        got = post(server.url)
        assert got.status_code == 503 and got.json()["code"] == "shutting_down"
        health = HTTP.get(server.url + "/health")
        assert health.status_code == 503 and health.json()["status"] == "shutting_down"
        assert HTTP.get(server.url + "/health/live").status_code == 200
        assert not accepted.done()
        held.go.set()
        assert accepted.result().json()["order"] == "model"
        ending.join(30)
        with pytest.raises(httpx2.ConnectError):
            post(server.url)


def test_after_the_grace_time_the_first_stage_answers(loaded):
    with held_server(loaded) as (server, held, send):
        accepted = send()
        assert held.came.acquire(timeout=120)
        ending = threading.Thread(target=server.stop, args=(0,))
        ending.start()
        told = accepted.result().json()
        assert told["order"] == "first_stage" and told["fallback"]["reason"] == "shutdown"
        held.go.set()
        ending.join(30)


def test_keys(loaded):
    with serving(ranker_of(loaded), keys=["one", "zwei-ü"]) as server:
        url = server.url
        for headers in ({}, {"Authorization": "Bearer two"}, {"Authorization": "Basic one"}):
            got = post(url, **headers)
            assert got.status_code == 401 and got.json()["code"] == "unauthorized"
            assert got.headers["WWW-Authenticate"] == "Bearer"
        assert HTTP.get(url + "/v1/models").status_code == 401
        assert post(url, Authorization="Bearer one").status_code == 200
        assert post(url, Authorization="bearer  one").status_code == 200
        assert post(url, **{"X-Api-Key": "one"}).status_code == 200
        other = HTTP.post(url + "/rerank", json=FIELDS, headers={b"x-api-key": "zwei-ü".encode()})
        assert other.status_code == 200
        # A body is not read for strangers, and whoever watches needs no key.
        assert post(url, b"x" * 10_000_000).status_code == 401
        assert HTTP.get(url + "/health").status_code == 200


def test_keys_are_read_from_where_nobody_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEYS", "one, two")
    file = tmp_path / "keys"
    file.write_text("# mine\nthree\n\n")
    keys = read_keys("MY_KEYS", file)
    assert len(keys) == 3 and "one" not in repr(vars(keys))
    for key in ("one", "two", "three"):
        keys.check({"x-api-key": key})
    for key in ("", "# mine", "one, two"):
        with pytest.raises(Refused):
            keys.check({"x-api-key": key})
    Keys().check({})
    monkeypatch.setenv("MY_KEYS", " ")
    with pytest.raises(RecipeError, match="MY_KEYS is not set or empty"):
        read_keys("MY_KEYS", None)
    file.write_text("# none\n")
    with pytest.raises(RecipeError, match="no key in it"):
        read_keys(None, file)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_keys(None, tmp_path / "none")


def test_limits_are_positive():
    with pytest.raises(RecipeError, match="limits: seconds is 0; expected more than 0"):
        Limits(seconds=0)
    with pytest.raises(RecipeError, match="waiting is -1"):
        Limits(waiting=-1)
