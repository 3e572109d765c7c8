"""``rank-rl serve`` against clients that send nonsense: statuses, permutations, memory.

A real server process gets fuzzed requests from many clients at once. Every answer is checked: a
ranking is a permutation of exactly the documents sent, with scores that fall from 1 to 0, and
everything else is JSON with a reason. The server's resident memory is read throughout; what is
loaded at the first use (BM25) is in it after the first requests, which are told apart.

    python benchmarks/serve_fuzz.py outputs/quickstart/grpo/final --write results/serve_fuzz.json
    python benchmarks/serve_fuzz.py MODEL --requests 500 --clients 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
from serve_load import PATIENCE_S, Running, end_with_us, machine

from rank_rl.seeds import rng

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "serve"))
import fuzzing  # noqa: E402

POINTS = 20  # readings of the memory


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--first", type=int, default=500, help="requests before memory counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", default="", help="further options of rank-rl serve, as one text")
    parser.add_argument("--write", type=Path, help="JSON file of the result")
    return parser.parse_args()


class Count:
    """What became of the requests."""

    def __init__(self) -> None:
        self.done = 0
        self.statuses: Counter[str] = Counter()
        self.orders: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, number: int, sent: bytes, got: httpx2.Response) -> None:
        """Check an answer and count it."""
        self.done += 1
        told = got.json() if got.headers.get("content-type") == "application/json" else {}
        code = "" if got.status_code == 200 else f" {told.get('code')}"
        self.statuses[f"{got.status_code}{code}"] += 1
        if got.status_code == 200:
            self.orders[told["order"]] += 1
        if why := fuzzing.wrong(sent, got.status_code, got.content):
            self.wrong.append(f"request {number}: {why}")


async def send(server: Running, numbers: range, given: argparse.Namespace, count: Count) -> None:
    """Send the requests of these numbers from all clients."""
    waiting = iter(numbers)
    limits = httpx2.Limits(max_connections=given.clients, max_keepalive_connections=given.clients)
    async with httpx2.AsyncClient(timeout=PATIENCE_S, limits=limits, verify=False) as http:

        async def client() -> None:
            for number in waiting:
                sent = fuzzing.body(rng(given.seed, "serve_fuzz", number))
                got = await http.post(server.url + "/v1/rerank", content=sent)
                count.add(number, sent, got)

        await asyncio.gather(*(client() for _ in range(given.clients)))


def fuzz(server: Running, given: argparse.Namespace) -> dict[str, Any]:
    """All requests, with the memory between them."""
    count = Count()
    memory = {0: server.memory_mb()}
    step = max(1, (given.requests - given.first) // POINTS)
    marks = [0, min(given.first, given.requests), *range(given.first + step, given.requests, step)]
    marks.append(given.requests)
    started = time.perf_counter()
    for begin, end in zip(marks, marks[1:], strict=False):
        asyncio.run(send(server, range(begin, end), given, count))
        memory[end] = server.memory_mb()
        print(f"{end} requests: {memory[end]} MiB, {dict(count.statuses)}", flush=True)
    counted = [memory[mark] for mark in marks[1:]]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "statuses": dict(sorted(count.statuses.items())),
        "orders": dict(count.orders),
        "wrong": count.wrong[:20],
        "memory_mb": {
            "before": memory[0],
            "start": counted[0],
            "middle": counted[len(counted) // 2],
            "end": counted[-1],
            "all": memory,
        },
    }


def main() -> int:
    """0 when every answer was right and the server went on and ended as it should."""
    given = options()
    end_with_us()
    settings = {k: v for k, v in vars(given).items() if k not in ("write", "model")}
    settings["model"] = "/".join(Path(given.model).resolve().parts[-3:])
    on = machine()
    server = Running(given.model, given.serve.split())
    try:
        found = fuzz(server, given)
        health = httpx2.get(server.url + "/health", timeout=60).json()
    finally:
        status = server.end()
    tracebacks = server.written().count("Traceback")
    result = {"benchmark": "serve_fuzz", "settings": settings, **on, **found}
    result["server"] = {k: v for k, v in server.said.items() if k in ("engine", "limits")}
    result |= {"health": health["status"], "exit_status": status, "tracebacks": tracebacks}
    print(json.dumps({k: v for k, v in result.items() if k != "versions"}))
    if given.write is not None:
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {given.write}")
    return int(bool(found["wrong"] or status or tracebacks))


if __name__ == "__main__":
    sys.exit(main())
