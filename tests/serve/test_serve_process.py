"""``rank-rl serve`` as a process: what it says, how it ends, and what it refuses to start with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from serving import DOCUMENTS, HTTP, SLOTS
from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.hub.contract import PromptContract
from rank_rl.serve.server import bind
from rank_rl.specs import StrategySpec


@pytest.fixture
def checkpoint(tiny_model_dir: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "run" / "final"))
    fmt = formats.make(SLOTS)
    contract = PromptContract.of(
        fmt, StrategySpec(name="by_score"), readout="score", max_new_tokens=48
    )
    contract.write(folder)
    return folder


def test_from_start_to_end(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "rank_rl", "serve", str(checkpoint), "--port", "0"]
    command += ["--api-key-env", "SERVE_KEYS", "--max-documents", "60", "--grace", "300"]
    environment = {**os.environ, "SERVE_KEYS": "secret", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        said = dict(line.split(":", 1) for line in (server.stdout.readline() for _ in range(5)))
        assert list(said) == ["model", "engine", "limits", "keys", "address"]
        assert "format slots, readout score" in said["model"] and "local, cpu" in said["engine"]
        assert "60 documents" in said["limits"] and said["keys"].split() == ["1", "known"]
        url = said["address"].split()[0]
        assert url.startswith("http://127.0.0.1:")

        # An explanation of every document takes long enough to be told to end meanwhile.
        fields = {"query": "who?", "documents": [f"{DOCUMENTS[i % 5]} {i}" for i in range(40)]}
        answers: list[Any] = []

        def send() -> None:
            headers = {"x-api-key": "secret"}
            body = json.dumps(fields | {"explain": True})
            answers.append(HTTP.post(url + "/rerank", content=body, headers=headers))

        asking = threading.Thread(target=send)
        asking.start()
        while not HTTP.get(url + "/health").json()["requests"]:
            assert asking.is_alive()
        server.send_signal(signal.SIGTERM)
        asking.join(300)
        told = answers[0].json()
        assert told["order"] == "model" and len(told["results"]) == 40
        assert told["model"] == "run/final"
        out, err = server.communicate(timeout=300)
        assert server.returncode == 0 and out == "ended\n" and "Traceback" not in err
        assert "secret" not in err
    finally:
        server.kill()


def invoke(*options: str) -> str:
    """The one line in which a start is refused."""
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # The model is not there: the address is looked at first.
        told = invoke("none", "--port", str(port))
    assert f"127.0.0.1:{port}: the port is taken (choose another with --port)" in told
    assert "nowhere.invalid:0" in invoke("none", "--port", "0", "--host", "nowhere.invalid")
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["none"], "none"),
        (
            ["none", "--engine", "cloud"],
            "--engine: 'cloud'; expected one of local, engine, endpoint",
        ),
        (["none", "--engine", "endpoint"], "--format: missing; expected with --engine endpoint, "),
        (["none", "--base-url", "http://x"], "--base-url: only with --engine endpoint"),
        (["none", "--format", "slotz"], "unknown format 'slotz'"),
        (["none", "--api-key-env", "NOT_SET_AT_ALL"], "NOT_SET_AT_ALL is not set"),
        (["none", "--time-budget", "0"], "limits: seconds is 0"),
        (["none", "--strategy", "setwize"], "unknown strategy 'setwize'"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], words: str) -> None:
    assert words in invoke(*options, "--port", "0")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = invoke("none", "--port", "0")
    assert f"package '{package}' is not installed (pip install 'rank-rl[serve]')" in told
