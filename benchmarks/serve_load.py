"""``rank-rl serve`` under load: latency and throughput, with shared batches and without.

Two real servers with the same model: one as it is, one that ranks one request after the other
(``--together 1``). Both are up all the time; for every number of clients they are measured in turn,
so that both meet the same state of the machine. Each client sends its next request when it has the
answer to its last. No two requests of a run ask the same: the documents are those of the bundled
collection in another order each time. Times are seconds.

    python benchmarks/serve_load.py outputs/quickstart/grpo/final --write results/serve_load.json
    python benchmarks/serve_load.py MODEL --clients 1 8 --requests 16 --rounds 1
    python benchmarks/serve_load.py --render   # only the table of docs/serving.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import psutil
from marked import put

from rank_rl.data.beir import bundled_folder
from rank_rl.seeds import rng

ROOT = Path(__file__).parent.parent
ARMS: dict[str, list[str]] = {"together": [], "one_by_one": ["--together", "1"]}
PACKAGES = ("torch", "transformers", "fastapi", "uvicorn", "h11", "httpx2")
PATIENCE_S = 600
RESULT, PAGE = ROOT / "results" / "serve_load.json", ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- serve_load: begin -->", "<!-- serve_load: end -->"


class Running:
    """``rank-rl serve`` as a process, from its address to its end."""

    def __init__(self, model: str, options: list[str]) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (ends with the process)
        command = [sys.executable, "-m", "rank_rl", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.said: dict[str, str] = {}
        for line in self.process.stdout:
            key, _, text = line.partition(":")
            self.said[key] = text.strip()
            if key == "address":
                break
        else:
            raise SystemExit(f"the server did not start:\n{self.written()}")
        self.url = self.said["address"].split()[0]

    def written(self) -> str:
        """What it wrote to stderr so far."""
        self.log.seek(0)
        return self.log.read()

    def memory_mb(self) -> float:
        """Resident memory now, in MiB."""
        return round(psutil.Process(self.process.pid).memory_info().rss / 2**20, 1)

    def counters(self) -> dict[str, float]:
        """What ``/metrics`` says, by name with labels."""
        rows = httpx2.get(self.url + "/metrics", timeout=60).text.splitlines()
        pairs = [row.rpartition(" ") for row in rows if row.startswith("rank_rl_")]
        return {name: float(value) for name, _, value in pairs}

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="checkpoint folder")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=64, help="of a round, at least the clients")
    parser.add_argument("--rounds", type=int, default=3, help="of each arm and number of clients")
    parser.add_argument("--documents", type=int, default=20, help="of a request")
    parser.add_argument("--explain", type=int, default=0, help="documents to explain")
    parser.add_argument("--serve", default="", help="further options of rank-rl serve, as one text")
    parser.add_argument("--write", type=Path, help="JSON file of the result")
    parser.add_argument("--render", action="store_true", help="only the table of docs/serving.md")
    given = parser.parse_args()
    if not given.model and not given.render:
        parser.error("MODEL is missing")
    return given


def bodies(count: int, given: argparse.Namespace, *names: object) -> list[bytes]:
    """Requests of the bundled collection, none like another."""
    folder = bundled_folder("musique200")
    read = [json.loads(row) for row in (folder / "queries.jsonl").read_text().splitlines()]
    texts = [json.loads(row)["text"] for row in (folder / "corpus.jsonl").read_text().splitlines()]
    draw = rng(0, "serve_load", *names)
    return [
        json.dumps(
            {
                "query": draw.choice(read)["text"],
                "documents": draw.sample(texts, given.documents),
                "explain": given.explain,
                "first_stage": "given",
            }
        ).encode()
        for _ in range(count)
    ]


async def load(url: str, sent: list[bytes], clients: int) -> dict[str, Any]:
    """Send requests from so many clients; how long each took and all together."""
    waiting = iter(sent)
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)

    async with httpx2.AsyncClient(timeout=PATIENCE_S, limits=limits, verify=False) as http:

        async def client() -> None:
            for body in waiting:
                started = time.perf_counter()
                got = await http.post(url + "/v1/rerank", content=body)
                seconds.append(time.perf_counter() - started)
                told = got.json()
                order = str(told.get("order")) if got.status_code == 200 else told["code"]
                outcomes[order] += 1

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        wall = time.perf_counter() - started
    return {"wall": wall, "seconds": seconds, "outcomes": dict(outcomes)}


def measure(server: Running, sent: list[bytes], clients: int) -> dict[str, Any]:
    """One round of one arm."""
    before = server.counters()
    found = asyncio.run(load(server.url, sent, clients))
    after = server.counters()

    def grown(name: str) -> float:
        return after.get(f"rank_rl_{name}", 0.0) - before.get(f"rank_rl_{name}", 0.0)

    batches = grown("batch_requests_count")
    return {
        "p50": percentile(found["seconds"], 50),
        "p95": percentile(found["seconds"], 95),
        "requests_per_second": round(len(sent) / found["wall"], 3),
        "requests_a_batch": round(grown("batch_requests_sum") / batches, 2) if batches else 0.0,
        "prompt_tokens": int(grown('tokens_total{kind="prompt"}')),
        "completion_tokens": int(grown('tokens_total{kind="completion"}')),
        "outcomes": found["outcomes"],
    }


def percentile(values: list[float], share: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 4)


def compare(servers: dict[str, Running], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Both arms at every number of clients, in turn, round by round."""
    cells = []
    for clients in given.clients:
        rounds: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        for number in range(given.rounds):
            sent = bodies(max(given.requests, clients), given, clients, number)
            for arm in sorted(ARMS, reverse=number % 2 == 0):
                rounds[arm].append(measure(servers[arm], sent, clients))
                print(
                    f"{clients} clients, round {number + 1}, {arm}: {rounds[arm][-1]}", flush=True
                )
        cells.append({"clients": clients, "rounds": rounds, **summary(rounds)})
    return cells


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and the ratio of the arms within a round."""
    names = ("p50", "p95", "requests_per_second")
    middle = {
        arm: {name: round(statistics.median(r[name] for r in found), 4) for name in names}
        for arm, found in rounds.items()
    }
    pairs = list(zip(rounds["together"], rounds["one_by_one"], strict=True))
    ratios = {name: [round(a[name] / b[name], 3) for a, b in pairs] for name in names}
    return {"median": middle, "together_over_one_by_one": ratios}


def table(result: dict[str, Any]) -> str:
    """The result as the table of docs/serving.md."""
    settings = result["settings"]
    rows = [
        f"{settings['requests']} requests of {settings['documents']} documents a round, medians of "
        f"{settings['rounds']} round(s), {result['cores']} cores, {result['device']}; seconds, "
        "requests a second, and shared batches over one by one:",
        "",
        "| clients | p50 | p95 | requests/s | one by one: p50 | p95 | requests/s | gain |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cell in result["cells"]:
        arms = [cell["median"][arm] for arm in ARMS]
        cells = [f"{arm[k]:.2f}" for arm in arms for k in ("p50", "p95", "requests_per_second")]
        gain = statistics.median(cell["together_over_one_by_one"]["requests_per_second"])
        rows.append(f"| {cell['clients']} | {' | '.join(cells)} | {gain:.2f} |")
    return "\n".join(rows)


def render(result: dict[str, Any], path: Path) -> None:
    """Write the table between the markers of a page."""
    put(path, (BEGIN, END), table(result))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": gpu or f"CPU, {torch.backends.cpu.get_cpu_capability()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def end_with_us() -> None:
    """Let SIGTERM end this process as an exception does, so that the servers end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main() -> None:
    given = options()
    if given.render:
        render(json.loads(RESULT.read_text(encoding="utf-8")), PAGE)
        return
    end_with_us()
    settings = {k: v for k, v in vars(given).items() if k not in ("write", "model", "render")}
    settings["model"] = "/".join(Path(given.model).resolve().parts[-3:])
    on = machine()
    wide = ["--time-budget", str(PATIENCE_S), "--max-waiting", "1000", *given.serve.split()]
    servers = {arm: Running(given.model, [*wide, *more]) for arm, more in ARMS.items()}
    try:
        for server in servers.values():
            asyncio.run(load(server.url, bodies(4, given, "warm-up"), 2))
        cells = compare(servers, given)
        said = {k: v for k, v in servers["together"].said.items() if k in ("engine", "limits")}
        memory = {arm: server.memory_mb() for arm, server in servers.items()}
    finally:
        ends = [server.end() for server in servers.values()]
    result = {"benchmark": "serve_load", "settings": settings, **on, "server": said}
    result |= {"memory_mb": memory, "exit_statuses": ends, "cells": cells}
    for cell in cells:
        print(f"{cell['clients']} clients: {cell['median']} {cell['together_over_one_by_one']}")
    if given.write is not None:
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {given.write}")


if __name__ == "__main__":
    main()
