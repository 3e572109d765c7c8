"""What rank_rl adds to a bare loop of openai's client: wall and CPU time, in pairs, in one run.

A: ``EndpointGenerator.answer`` (retries, timeout, reading). B: ``openai.AsyncOpenAI`` behind a
semaphore. Both ask the same server (a process of its own: a fixed delay, answers of a fixed
length) the same prompts at the same concurrency. Rounds alternate B A A B, so that a drift of the
machine falls on both. The last line is JSON; CPU time is that of this process, not the server's.

    python benchmarks/endpoint.py --requests 640 --rounds 6
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import openai

from rank_rl.generation.calls import Sampling
from rank_rl.generation.endpoint import EndpointGenerator
from rank_rl.records import Prompt

SERVER = Path(__file__).parent.parent / "tests" / "openai_server.py"
MAX_TOKENS = 2048


def prompts(number: int) -> list[Prompt]:
    """Listwise prompts of about 20 documents of 60 words."""
    documents = " ".join(f"[{i + 1}] " + "a river runs by the town " * 10 for i in range(20))
    return [
        Prompt(messages=({"role": "user", "content": f"query {i}: {documents} <answer>"},))
        for i in range(number)
    ]


async def ours(url: str, asked: Sequence[Prompt], concurrency: int) -> int:
    """Path A; returns the characters received."""
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


async def bare(url: str, asked: Sequence[Prompt], concurrency: int) -> int:
    """Path B; returns the characters received."""
    turn = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def one(prompt: Prompt) -> int:
            async with turn:
                reply = await client.chat.completions.create(
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
    asked = prompts(args.requests)
    paths = {"ours": ours, "bare": bare}
    walls: dict[str, list[float]] = {name: [] for name in paths}
    cpus: dict[str, list[float]] = {name: [] for name in paths}
    received: set[int] = set()
    for number in range(args.rounds + 1):
        for name in sorted(paths, reverse=number % 2 == 0):
            path = paths[name]
            wall, cpu, size = measure(lambda path=path: path(url, asked, args.concurrency))
            received.add(size)
            print(f"round {number} {name}: {wall:.3f} s wall, {cpu:.3f} s CPU")
            if number:
                walls[name].append(wall)
                cpus[name].append(cpu)
    if len(received) != 1:
        raise SystemExit(f"the paths received different answers: {received}")
    result: dict[str, object] = dict(vars(args))
    for label, times in (("wall", walls), ("cpu", cpus)):
        ratios = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
        result[f"{label}_ratio"] = {
            "median": round(statistics.median(ratios), 4),
            "min": round(min(ratios), 4),
            "max": round(max(ratios), 4),
            "of_minima": round(min(times["ours"]) / min(times["bare"]), 4),
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
    parser.add_argument("--rounds", type=int, default=6, help="pairs that count")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds of the server")
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
