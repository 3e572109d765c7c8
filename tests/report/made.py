"""Benchmark folders made for the tests of the report, by the benchmark's own code.

Nothing is asked of a model: rankers are functions, and what a model would have said is written
here; metrics, documents, merging, diagnosis and files are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rank_rl import metrics
from rank_rl.bench import diagnosis
from rank_rl.bench.document import CollectionFacts, Document
from rank_rl.bench.merge import Plan, merge
from rank_rl.bench.traces import exchange_record
from rank_rl.data import trec
from rank_rl.data.files import write_lines
from rank_rl.data.tasks import write_tasks
from rank_rl.records import (
    Candidate,
    Completion,
    Exchange,
    Outcome,
    Prompt,
    Query,
    Ranking,
    RankingTask,
    Scores,
    numbered,
)
from rank_rl.specs import DiagnosisSpec

HOSTILE = (
    "</script><img src=x onerror=\"window.broken = 'script'\"><script>window.broken = 1</script>",
    "<b>bold</b> & <!-- comment --> <style>body { display: none }</style>",
    "\u202eright to left\u202c שלום עולם مرحبا",
    "NUL \x00, bell \x07, line\u2028separator, \ufffe",
    "emoji 👩‍🔬🏳️‍🌈 and {{ 7 * 7 }} {% raw %} ${alert(1)} `code` \\ \" ' |",
    "long " + "word " * 20_000,
)
METRICS = ("ndcg@10", "mrr@10", "recall@5", "map")
Order = Callable[[RankingTask], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A row: how it ranks, what it says about documents, and what it costs."""

    name: str
    kind: str = "text"
    order: Order
    note: str = ""
    comparison: str = ""
    reasoning: str = ""
    failed_every: int = 0
    seconds: float = 1.0
    tokens: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a folder holds."""

    queries: int = 12
    candidates: int = 8
    systems: tuple[System, ...]
    name: str = "made"
    texts: Sequence[str] = ("a plain text about a river",)
    seeds: tuple[int, ...] = (7,)
    samples: int = 200
    diagnosed: bool = True


def first(task: RankingTask) -> list[str]:
    return list(task.docids)


def perfect(task: RankingTask) -> list[str]:
    return sorted(task.docids, key=lambda d: -(task.grades or {}).get(d, 0))


def rotated(places: int) -> Order:
    """The input with its first documents put last; deterministic and never the same for all."""

    def order(task: RankingTask) -> list[str]:
        by = (places + len(task.query.text)) % len(task.docids)
        return [*task.docids[by:], *task.docids[:by]]

    return order


def mostly(task: RankingTask) -> list[str]:
    """The perfect order for two queries of three, the reverse for the others."""
    number = int(task.query.qid.split("-")[-1])
    return perfect(task) if number % 3 else list(reversed(task.docids))


SYSTEMS = (
    System(name="random", kind="random", order=rotated(3)),
    System(name="first stage", kind="first_stage", order=first),
    System(name="untrained base", order=rotated(1), failed_every=2, seconds=0.5, tokens=400),
    System(
        name="reasoner | 50% & more_or_less",
        order=mostly,
        note="It says where the river runs. <b>not bold</b> half a pair: \ud800",
        comparison="It stands above the next one because it is shorter.",
        reasoning="First the rivers, then the lakes.\nThen the rest.",
        seconds=3.0,
        tokens=900,
    ),
    System(name="slow", order=rotated(2), seconds=9.0, tokens=5000),
    System(name="perfect order", kind="perfect", order=perfect),
)


def tasks(made: Made) -> list[RankingTask]:
    """Query i has a relevant document at rank 2 + i % 3, and another one of grade 2."""
    found = []
    for i in range(made.queries):
        ids = [f"d{i}-{j}" for j in range(made.candidates)]
        grades = {ids[1 + i % 3]: 1, ids[(4 + i) % made.candidates]: 2, ids[0]: 0}
        kind = {"type": ("bridge", "comparison")[i % 2]}
        query = Query(
            qid=f"{made.name}-{i}",
            text=f"where does river {i} run? {made.texts[i % len(made.texts)][:300]}",
            metadata=kind,
        )
        candidates = tuple(
            Candidate(
                docid=docid,
                text=made.texts[(i + j) % len(made.texts)],
                title=f"Title {j} of {i}",
                rank=j + 1,
            )
            for j, docid in enumerate(ids)
        )
        found.append(RankingTask(query=query, candidates=candidates, grades=grades))
    return found


def bench(folder: Path, made: Made) -> dict[str, Any]:
    """Write a folder as ``rank-rl bench`` does; returns the result."""
    asked = tasks(made)
    facts = CollectionFacts.of(made.name, asked, first_stage="BM25 (made)", queries=len(asked))
    documents = []
    for system in made.systems:
        rankings = {t.query.qid: Ranking(qid=t.query.qid, docids=tuple(system.order(t)))
                    for t in asked}  # fmt: skip
        slug = "".join(c if c.isalnum() else "_" for c in system.name)
        trec.write_run(folder / "runs" / f"{slug}.trec", rankings.values(), slug)
        exchanges = [_exchange(t, system, i) for i, t in enumerate(asked)] if _asks(system) else []
        if exchanges:
            lines = (json.dumps(e) for e in exchanges)
            write_lines(folder / "exchanges" / f"{slug}.jsonl", lines)
        for seed in made.seeds if _asks(system) else made.seeds[:1]:
            shifted = _values(asked, rankings, seed - made.seeds[0])
            document = _document(system, slug, seed, facts, shifted, exchanges)
            looked = _diagnosis(system, exchanges, asked) if made.diagnosed and exchanges else {}
            documents.append(replace(document, **looked))
    plan = Plan(
        metrics=METRICS,
        baselines=("first stage", "untrained base"),
        steps=(("first stage", "untrained base"), ("untrained base", made.systems[3].name)),
        teacher=made.systems[3].name,
        samples=made.samples,
        seed=made.seeds[0],
        gpu_hour=2.0,
    )
    result = merge(documents, plan, _facts(made), asked)
    write_lines(folder / "result.json", [json.dumps(result)])
    write_tasks(folder / "tasks.jsonl", asked)
    return result


def old(folder: Path) -> None:
    """Turn a folder into one of the old shape: no tasks, no key that old results lacked."""
    (folder / "tasks.jsonl").unlink()
    path = folder / "result.json"
    result = json.loads(path.read_text())
    kept = ("name recipe seed rank_rl versions git data metrics queries queries_without_relevant "
            "resamples systems comparisons steps per_query")  # fmt: skip
    rows = ("name kind metrics missing_queries model setting fusion statuses failure_rate "
            "explanations cuts costs run exchanges")  # fmt: skip
    result = {key: result[key] for key in kept.split()}
    result["systems"] = [{k: s[k] for k in rows.split()} for s in result["systems"]]
    for row in (*result["comparisons"], *result["steps"]):
        row.pop("p_t")
    path.write_text(json.dumps(result))


def training(folder: Path, steps: int = 6) -> Path:
    """A stage's folder with a log of validation, rewards and an alarm."""
    records: list[dict[str, Any]] = [
        {"step": 0, "eval_ndcg@10": 0.4, "eval_first_stage": 0.42, "eval_perfect": 1.0}
    ]
    for step in range(1, steps + 1):
        records.append(
            {
                "step": step, "loss": 1 / step, "learning_rate": 1e-5 / step, "entropy": 20.0,
                "reward": 0.5 + step / 20, "ranking/reward": 0.5 + step / 20,
                "ranking/copy": 0.3, "ranking/parse_ok": 1.0, "ranking/parse_failed": 0.0,
                "rewards/ndcg/mean": 0.5, "rewards/ndcg/share": 0.8,
                "rewards/recall/mean": 0.4, "rewards/recall/share": 0.2,
            }
        )  # fmt: skip
    records.append({"step": steps, "alarm": "hacking", "text": "reward <b>rises</b> alone"})
    records.append({"step": steps, "eval_ndcg@10": 0.55, "eval_first_stage": 0.42})
    (folder / "final").mkdir(parents=True)
    write_lines(folder / "training_log.jsonl", (json.dumps(r) for r in records))
    return folder


def _asks(system: System) -> bool:
    return system.kind not in ("random", "first_stage", "perfect")


def _values(
    asked: Sequence[RankingTask], rankings: dict[str, Ranking], shift: int
) -> dict[str, dict[str, float]]:
    """Metrics of rankings; ``shift`` takes a little away, as another seed might."""
    found: dict[str, dict[str, float]] = {m: {} for m in METRICS}
    for task in asked:
        order, grades = rankings[task.query.qid].docids, task.grades or {}
        values = (
            metrics.ndcg(order, grades, 10),
            metrics.reciprocal_rank(order, grades, 10),
            metrics.recall(order, grades, 5),
            metrics.average_precision(order, grades),
        )
        for metric, value in zip(METRICS, values, strict=True):
            found[metric][task.query.qid] = max(0.0, value - 0.02 * shift)
    return found


def _exchange(task: RankingTask, system: System, number: int) -> dict[str, Any]:
    view = numbered(task.query, task.candidates)
    order = system.order(task)
    failed = bool(system.failed_every) and number % system.failed_every == 0
    outcome = Outcome(
        status="failed" if failed else "ok",
        answer=None
        if failed
        else Scores(values={d: float(len(order) - i) / 10 for i, d in enumerate(order)}),
        reasoning=system.reasoning,
        notes={d: f"{system.note} ({d})" for d in order} if system.note else {},
        comparisons={order[0]: system.comparison} if system.comparison else {},
        issues=("no_answer_tag",) if failed else (),
    )
    exchange = Exchange(
        qid=task.query.qid,
        view=view,
        prompt=Prompt(messages=({"role": "user", "content": "Which?"},)),
        completion=Completion(
            text="I cannot say <answer>" if failed else "[1] > [2]",
            prompt_tokens=system.tokens,
            completion_tokens=20,
            seconds=system.seconds,
        ),
        outcome=outcome,
    )
    return exchange_record(exchange)


def _document(
    system: System,
    slug: str,
    seed: int,
    facts: CollectionFacts,
    values: dict[str, dict[str, float]],
    exchanges: list[dict[str, Any]],
) -> Document:
    if not _asks(system):
        return Document(
            key=slug, system=system.name, kind=system.kind, seed=seed, collection=facts,
            per_query=values, judged={"10": 0.25}, run=f"runs/{slug}.trec",
        )  # fmt: skip
    cost = {"calls": 1.0, "depth": 1.0, "seconds": system.seconds,
            "prompt_tokens": float(system.tokens), "completion_tokens": 20.0}  # fmt: skip
    return Document(
        key=f"{slug}{seed}",
        system=system.name,
        kind=system.kind,
        seed=seed,
        drawn=True,
        collection=facts,
        model={"name": f"out/{slug}/final", "revision": "files:0", "contract": "c0ffee"},
        setting={"format": "permutation/plain@1", "mode": "reason", "readout": "decoded"},
        per_query=values,
        judged={"10": 0.25},
        costs={e["qid"]: dict(cost) for e in exchanges},
        statuses=_statuses(exchanges),
        issues=diagnosis.issues(exchanges),
        run=f"runs/{slug}.trec",
        exchanges=f"exchanges/{slug}.jsonl",
    )


def _statuses(exchanges: list[dict[str, Any]]) -> dict[str, int]:
    failed = sum(e["outcome"]["status"] == "failed" for e in exchanges)
    return {"ok": len(exchanges) - failed, "repaired": 0, "failed": failed}


def _diagnosis(
    system: System, exchanges: list[dict[str, Any]], asked: Sequence[RankingTask]
) -> dict[str, Any]:
    """What the benchmark would find in the answers and by asking again."""

    def rank(some: Sequence[RankingTask]) -> list[Ranking]:
        return [Ranking(qid=t.query.qid, docids=tuple(system.order(t))) for t in some]

    few = [t for t in asked if len(t.candidates[0].text) < 1000][:4]
    found = diagnosis.of_answers(
        exchanges,
        asked,
        DiagnosisSpec(),
        rankings={r.qid: r for r in rank(asked)},
        statuses=_statuses(exchanges),
    )
    # As ``diagnosis.formatting`` returns it; its metric alone would take seconds.
    variants = [
        {"name": "lower_case", "difference": -0.02, "low": -0.05, "high": 0.01, "tau": 0.9},
        {"name": "html", "difference": -0.2, "low": -0.3, "high": -0.1, "tau": 0.4},
    ]
    again = {
        "position": diagnosis.position(rank, few, shuffles=2, seed=7),
        "formatting": {"queries": len(few), "metric": METRICS[0], "variants": variants},
    }
    return {"diagnosis": found, "probes": again}


def _facts(made: Made) -> dict[str, Any]:
    return {
        "name": f"benchmark of {made.name}",
        "recipe": {"path": "recipes/made/bench.yaml", "hash": "abc123"},
        "rank_rl": "0.1.0",
        "versions": {"python": "3.11", "torch": "2.13"},
        "git": {"commit": "f" * 40, "changed": True},
        "data": {"name": made.name, "source": "jsonl", "files": {"tasks.jsonl": "a" * 64},
                 "first_stage": "BM25 (made)", "splits": {"test": {"queries": made.queries}}},
        "leaks": {"queries": [], "documents": ["d1"]},
    }  # fmt: skip
