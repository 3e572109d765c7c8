"""Seconds, money and energy of a thousand queries."""

from __future__ import annotations

import logging
import socket
import sys
import time
from pathlib import Path

import pytest

from rank_rl.bench import costs
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import PriceSpec

TASKS = [
    RankingTask(query=Query(qid=f"q{i}", text="?"), candidates=(Candidate(docid="d", text="t"),))
    for i in range(4)
]


def test_latency_of_one_at_a_time_follows_an_unmeasured_query():
    asked = []

    def rank_one(task: RankingTask) -> None:
        asked.append(task.query.qid)
        time.sleep(0.02)

    found = costs.latency(rank_one, TASKS, 2)
    assert asked == ["q2", "q0", "q1"]
    assert found is not None and found["mode"] == "one at a time" and found["queries"] == 2
    assert 0.02 <= found["p50"] <= found["p95"]
    asked.clear()
    costs.latency(rank_one, TASKS[:1], 9)
    assert asked == ["q0", "q0"]  # nothing else to warm up with
    assert costs.latency(rank_one, TASKS, 0) is None and costs.latency(rank_one, [], 3) is None


def test_shares_of_batches_have_percentiles():
    each = {f"q{i}": {"seconds": float(i), "calls": 1.0} for i in range(1, 22)}
    assert costs.share_latency(each) == {
        "p50": 11.0,
        "p95": 20.0,
        "mode": "batched share",
        "queries": 21,
    }
    assert costs.share_latency({}) is None


def test_tokens_have_a_price_before_the_machine_has_one():
    mean = {"prompt_tokens": 2000.0, "completion_tokens": 100.0, "seconds": 1.8}
    price = PriceSpec(input=0.5, output=2.0)
    found = costs.price_per_1000(mean, price=price, gpu_hour=4.0, currency="EUR")
    # 1,000 queries: 2 million tokens read, 0.1 million written.
    assert found == {
        "per_1000_queries": pytest.approx(1.2),
        "basis": "tokens",
        "currency": "EUR",
    }
    found = costs.price_per_1000(mean, price=None, gpu_hour=4.0, currency="USD")
    # 1,800 seconds are half an hour.
    assert found == {
        "per_1000_queries": pytest.approx(2.0),
        "basis": "gpu hours",
        "currency": "USD",
    }
    assert costs.price_per_1000(mean, price=None, gpu_hour=None, currency="USD") is None
    assert costs.price_per_1000({}, price=price, gpu_hour=4.0, currency="USD") is None


def test_energy_is_scaled_to_a_thousand_queries():
    assert costs.energy_per_1000(0.002, 80) == {"kwh_per_1000_queries": pytest.approx(0.025)}
    assert costs.energy_per_1000(None, 80) is None and costs.energy_per_1000(0.1, 0) is None


def test_energy_that_nobody_asked_for_is_not_measured():
    with costs.energy(wanted=False) as meter:
        pass
    assert meter.kwh is None


def test_energy_without_codecarbon_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(RecipeError, match=r"not installed.*rank-rl\[energy\]"):
        costs.check_energy()
    with pytest.raises(RecipeError, match=r"rank-rl\[energy\]"), costs.energy():
        pass


def spin(seconds: float) -> None:
    ended = time.perf_counter() + seconds
    while time.perf_counter() < ended:
        sum(range(1000))


def test_energy_is_measured_offline_and_leaves_no_file(monkeypatch, tmp_path):
    pytest.importorskip("codecarbon")
    connected: list[object] = []
    plain = socket.getaddrinfo

    def lookup(host: str, *rest: object, **more: object) -> object:
        connected.append(host)
        return plain(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.chdir(tmp_path)
    # A user's own settings must not make it write or send anything either.
    monkeypatch.setenv("CODECARBON_SAVE_TO_FILE", "true")
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv,api")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://127.0.0.1:9")
    with costs.energy() as meter:
        assert meter.kwh is None
        spin(0.3)
    assert meter.kwh is not None and 0 < meter.kwh < 0.01
    assert connected == [] and list(Path.cwd().iterdir()) == []


def test_an_error_in_the_block_is_not_swallowed():
    pytest.importorskip("codecarbon")
    with pytest.raises(KeyError), costs.energy():
        raise KeyError("x")


def test_a_failing_sensor_is_a_warning(monkeypatch, caplog):
    codecarbon = pytest.importorskip("codecarbon")

    def broken(self: object) -> None:
        raise OSError("no such sensor")

    with caplog.at_level(logging.WARNING, logger="rank_rl.bench.costs"):
        with monkeypatch.context() as patched:
            patched.setattr(codecarbon.OfflineEmissionsTracker, "start", broken)
            with costs.energy() as meter:
                pass
        assert meter.kwh is None
        assert "no such sensor" in caplog.messages[0] and "not be measured" in caplog.messages[1]
        caplog.clear()
        # A sensor that fails within codecarbon is silent there, and counts nothing.
        with monkeypatch.context() as patched:
            patched.setattr(codecarbon.OfflineEmissionsTracker, "_do_measurements", broken)
            with costs.energy() as meter:
                spin(0.1)
        assert meter.kwh is None and "not be measured" in caplog.messages[0]
