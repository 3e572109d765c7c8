"""How many completions a second one core parses and scores, and what it would be with ranx.

``ours`` is the path of training (``TrlRewards.judge``): TRL's columns to views, parser, composite
of ndcg_gain, recall and format; ``logged`` has the statistics of a training log on top. ``metric``
is our nDCG@10 alone, of orders that were parsed before; ``ranx`` and ``pytrec_eval`` compute that
same number with one call a completion, compiled and made once before. The completions are distinct
texts about the bundled collection: orders of varying quality, and a share that breaks the format in
every way that ``rank_rl.rewards.adversaries`` knows. CPU time of this process, the best of several
rounds in turn.

    taskset -c 0 python benchmarks/rewards.py --output results/rewards_throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rank_rl import data, formats, rewards
from rank_rl.data import rows, sampling
from rank_rl.formats import Format
from rank_rl.records import Grades, Outcome, View
from rank_rl.rewards import adversaries
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.rewards.gold import Gold
from rank_rl.rewards.monitor import Judged, part_statistics, summary
from rank_rl.specs import DataSpec, FirstStageSpec, FormatSpec, RewardSpec, SamplerSpec

SAMPLER = SamplerSpec(name="pool", size=20)
REWARDS = [
    RewardSpec(name="ndcg_gain", weight=0.8),
    RewardSpec(name="recall", weight=0.2, params={"k": 5}),
    RewardSpec(name="format", weight=0.2),
]
CASES = [(name, mode) for name in ("permutation", "scores") for mode in ("answer", "reason")]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Completions with TRL's columns, and the view and grades of each."""

    texts: list[str]
    columns: dict[str, list[Any]]
    shown: list[tuple[View, Grades]]


def corpus(fmt: Format, args: argparse.Namespace) -> Corpus:
    """Groups of completions about the views of the bundled collection."""
    spec = DataSpec(
        source="bundled", path="musique200", first_stage=FirstStageSpec(pool=True), sampler=SAMPLER
    )
    collection = data.load(spec, seed=args.seed)
    tasks = [*collection.train, *collection.validation]
    draw = random.Random(args.seed)
    made = Corpus(texts=[], columns={}, shown=[])
    for group in range(args.completions // args.group):
        task = tasks[group % len(tasks)]
        (view, *_), _ = sampling.sample_views(task, SAMPLER, seed=args.seed + group)
        grades = view.grades(task.grades or {})
        (row,) = rows.group_rows(task, [view], fmt)
        for text in completions(fmt, view, grades, draw, args):
            made.texts.append(text)
            made.shown.append((view, grades))
            for name, value in row.items():
                if name != "prompt":
                    made.columns.setdefault(name, []).append(value)
    return made


def completions(
    fmt: Format, view: View, grades: Grades, draw: random.Random, args: argparse.Namespace
) -> list[str]:
    """A group of answers: noisy orders behind words of the documents, and broken texts."""
    words = " ".join(c.text for c in view.candidates).split()

    def reasoning() -> str:
        start = draw.randrange(len(words))
        told = (words[start:] + words * 3)[: round(args.words * draw.uniform(0.8, 1.2))]
        return " ".join(told)

    broken = [a.text or "" for a in adversaries.broken(fmt, view, grades, reasoning())]
    draw.shuffle(broken)
    texts = []
    for _ in range(args.group):
        if draw.random() < args.broken:
            texts.append(broken.pop())
            continue
        noise = draw.choice([0.1, 0.5, 1, 2])
        order = sorted(view.docids, key=lambda d: -grades[d] + draw.gauss(0, noise))
        write = adversaries.text_writer(fmt, reasoning())
        texts.append(write("order", view, adversaries.by_rank(order)).text or "")
    return texts


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one round."""
    start = time.process_time()
    work()
    return time.process_time() - start


def rivals(made: Corpus, judged: list[Judged], k: int = 10) -> dict[str, Callable[[], list[float]]]:
    """nDCG@k of every completion by us, by ranx and by pytrec_eval, one call a completion."""
    import numpy as np
    import pytrec_eval
    from ranx import Qrels, Run, evaluate

    outcomes = [j.outcome for j in judged]
    pairs = [(o, view) for o, (view, _) in zip(outcomes, made.shown, strict=True)]
    golds = {id(view): Gold(view, grades) for view, grades in made.shown}
    qrels = {
        id(v): Qrels({"q": {d: g for d, g in grades.items() if g}}) for v, grades in made.shown
    }
    judges = {
        id(v): pytrec_eval.RelevanceEvaluator({"q": dict(grades)}, {f"ndcg_cut.{k}"})
        for v, grades in made.shown
    }

    def run_of(outcome: Outcome, view: View) -> dict[str, dict[str, float]]:
        return {"q": {d: float(-i) for i, d in enumerate(outcome.as_order(view))}}

    def ours() -> list[float]:
        return [golds[id(v)].ndcg(o.as_order(v), k) for o, v in pairs]

    def ranx() -> list[float]:
        values = (evaluate(qrels[id(v)], Run(run_of(o, v)), f"ndcg@{k}") for o, v in pairs)
        return [float(np.mean(value)) for value in values]

    def trec() -> list[float]:
        return [judges[id(v)].evaluate(run_of(o, v))["q"][f"ndcg_cut_{k}"] for o, v in pairs]

    return {"metric": ours, "ranx": ranx, "pytrec_eval": trec}


def compare(name: str, mode: str, args: argparse.Namespace) -> dict[str, Any]:
    """All paths on the same completions of one format."""
    fmt = formats.make(FormatSpec(name=name, mode=mode))
    made = corpus(fmt, args)
    adapter = TrlRewards(rewards.make(REWARDS), fmt)
    judged = adapter.judge(made.texts, None, made.columns)

    def logged() -> object:
        again = adapter.judge(made.texts, None, made.columns)
        return summary(again), part_statistics(again, adapter.composite)

    paths: dict[str, Callable[[], object]] = {
        "ours": lambda: adapter.judge(made.texts, None, made.columns),
        "logged": logged,
    }
    size = dict.fromkeys(paths, len(made.texts))
    if args.rivals and (name, mode) == CASES[0]:
        known = rivals(made, judged)
        found = {rival: work() for rival, work in known.items()}  # warms up, and they must agree
        for rival in ("ranx", "pytrec_eval"):
            apart = max(abs(a - b) for a, b in zip(found["metric"], found[rival], strict=True))
            if apart > 1e-6:
                raise SystemExit(f"{rival} differs by {apart}")
        paths |= known
        size |= dict.fromkeys(known, len(made.texts))
    times: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(args.rounds):
        for path, work in paths.items():
            times[path].append(seconds(work))
    statuses = Counter(j.outcome.status for j in judged)
    result: dict[str, Any] = {
        "format": name, "mode": mode, "completions": len(made.texts),
        "distinct": len(set(made.texts)),
        "characters": round(statistics.fmean(map(len, made.texts))),
        "status": dict(statuses),
    }  # fmt: skip
    for path, taken in times.items():
        result[path] = {
            "per_second": round(size[path] / min(taken)),
            "per_second_median": round(size[path] / statistics.median(taken)),
        }
    if "ranx" in times:
        for rival in ("ranx", "pytrec_eval"):
            result[f"metric_over_{rival}"] = round(min(times[rival]) / min(times["metric"]), 1)
            result[f"ours_over_{rival}"] = round(min(times[rival]) / min(times["ours"]), 1)
    return result


def processor() -> str:
    """The name of the processor, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def loop_milliseconds() -> float:
    """CPU time of a million additions in a loop: how fast this core runs Python just now."""

    def loop() -> int:
        total = 0
        for i in range(1_000_000):
            total += i
        return total

    return round(1000 * min(seconds(loop) for _ in range(20)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=4096, help="a format")
    parser.add_argument("--group", type=int, default=16, help="completions a prompt")
    parser.add_argument("--words", type=int, default=300, help="of reasoning, in mode reason")
    parser.add_argument("--broken", type=float, default=0.2, help="share of malformed texts")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-rivals", dest="rivals", action="store_false")
    parser.add_argument("--output", type=Path, default=None, help="also write the JSON here")
    args = parser.parse_args()
    load = round(os.getloadavg()[0], 1)  # what else the machine does
    found = []
    for name, mode in CASES:
        result = compare(name, mode, args)
        found.append(result)
        rates = {
            k: v["per_second"]
            for k, v in result.items()
            if isinstance(v, dict) and "per_second" in v
        }
        told = ", ".join(f"{path} {rate:,}/s" for path, rate in rates.items())
        print(f"{name} {mode}: {told}", flush=True)
        for key, value in result.items():
            if "_over_" in key:
                print(f"  {key.replace('_', ' ')}: {value}")
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    used = [r.model_dump(exclude_defaults=True) for r in REWARDS]
    packages = ("ranx", "pytrec_eval-terrier", "numpy", "numba")
    report = {
        "benchmark": "benchmarks/rewards.py",
        "machine": f"{os.cpu_count()} cores, {processor()}, one used",
        "load_before": load,
        "milliseconds_of_a_million_additions": loop_milliseconds(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "settings": {**settings, "rewards": used, "documents": SAMPLER.size},
        "results": found,
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    else:
        json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
