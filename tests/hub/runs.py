"""A finished run of two stages and its benchmark, written as training and ``bench`` write them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rank_rl import formats
from rank_rl.hub.contract import PromptContract
from rank_rl.models.sources import fingerprint
from rank_rl.specs import FormatSpec, StrategySpec

BASE, COMMIT = "acme/base-model", "c" * 40
SLOTS = {
    "name": "slots",
    "mode": "reason",
    "doc_tokens": 40,
    "snippet": "query",  # puts another sentence first, unless it is told that it is the title
    "params": {"context": 1},
}
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "rank-rl": "0.1.0"}


@dataclass(frozen=True)
class Run:
    """Folders of a run: its root, the last checkpoint and the benchmark."""

    root: Path
    checkpoint: Path
    bench: Path


def weights(base: Path, folder: Path, seed: int) -> None:
    """A copy of a tiny model whose weights decide more than those of a new one."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)


def stage(root: Path, name: str, base: tuple[str, str], made_of: Path, **known: Any) -> Path:
    """The output of a training stage; returns its checkpoint."""
    out = root / "outputs" / name
    checkpoint = out / "final"
    out.mkdir(parents=True)
    weights(made_of, checkpoint, seed=len(name))
    fmt = formats.make(FormatSpec.model_validate(known.pop("format", SLOTS)))
    validation = {"step": 4, "eval_ndcg@10": 0.61, "eval_queries": 10.0, "eval_first_stage": 0.4}
    strategy = StrategySpec(name="by_score" if formats.kind(fmt) == "slots" else "single")
    contract = PromptContract.of(
        fmt,
        strategy,
        stage=name,
        base_model=base[0],
        base_revision=base[1],
        recipe_hash=f"hash-{name}",
        data="rivers",
        max_new_tokens=12,
        extra={"validation": validation},
        **known,
    )
    contract.write(checkpoint)
    recipe = {
        "run": {"name": "tiny", "output_dir": f"outputs/{name}", "seed": 7},
        "model": {"name": base[0], "lora": None},
        "data": {"source": "jsonl", "path": str(root / "data" / "rivers.jsonl")},
        "losses": [{"name": "label_ce", "weight": 1.0}],
        "rewards": [],
        "training": {"learning_rate": 1e-4, "max_steps": 4},
        "eval": {"metric": "ndcg@10"},
    }
    (out / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = f"{root}/rank_rl/__main__.py {name} recipes/{name}.yaml"
    facts = {"recipe": f"recipes/{name}.yaml", "hash": f"hash-{name}", "seed": 7}
    facts |= {"versions": VERSIONS, "command": command, "stage": name}
    facts |= {"git": {"commit": "d" * 40, "changed": True}}
    write_json(out / "provenance.json", facts)
    metrics = {"start": {"eval_ndcg@10": 0.5}, "alarms": ["flat at step 3: <b>all</b> the same"]}
    summary = {"stage": name, "steps": 4, "seconds": 9.5, "metrics": metrics}
    write_json(out / "done.json", {"hash": f"hash-{name}", "summary": summary})
    log = [{"step": i, "loss": 1.0 / i} for i in (1, 2)]
    log.append({"step": 3, "saved": str(checkpoint)})
    (out / "training_log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in log))
    return checkpoint


def write_json(path: Path, record: Any) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def system(name: str, kind: str, ndcg: float, **known: Any) -> dict[str, Any]:
    """A row of a result; ``mrr@10`` is half of nDCG."""
    return {
        "name": name,
        "kind": kind,
        "metrics": {"ndcg@10": interval(ndcg), "mrr@10": interval(ndcg / 2)},
        "model": {},
        "setting": {},
        "fusion": None,
        "failure_rate": None,
        "costs": {},
        **known,
    }


def result(mark: str, **changes: Any) -> dict[str, Any]:
    """A result whose row ``trained`` measured the files with that fingerprint."""
    costs = {"calls": 1.0, "prompt_tokens": 812.4, "completion_tokens": 0.0, "seconds": 0.2}
    setting = {"format": "slots/default@1", "mode": "reason", "strategy": "by_score"}
    model = {"name": "outputs/sft/final", "revision": f"files:{mark}", "contract": "x"}
    base = {"name": BASE, "revision": COMMIT, "contract": ""}
    known = {"costs": costs, "failure_rate": 0.0125, "setting": {**setting, "readout": "score"}}
    rows = [
        system("random", "random", 0.2),
        system("first stage", "first_stage", 0.4),
        system("untrained base", "slots", 0.3, **{**known, "model": base}),
        system("trained", "slots", 0.62345, **{**known, "model": model}),
        system("perfect order", "perfect", 1.0),
    ]
    tests = [
        {"metric": metric, "baseline": baseline, "system": "trained", "difference": d,
         "low": d - 0.1, "high": d + 0.1, "p": p / 2, "p_holm": p}
        for metric in ("ndcg@10", "mrr@10")
        for baseline, d, p in (("first stage", 0.223, 0.0004), ("untrained base", 0.04, 0.31))
    ]  # fmt: skip
    found = {
        "schema": 2,
        "name": "tiny",
        "recipe": {"path": "recipes/bench.yaml", "hash": "hash-bench"},
        "seed": 7,
        "seeds": [7],
        "rank_rl": "0.1.0",
        "data": {"name": "rivers", "source": "jsonl", "splits": {"train": {"queries": 48}}},
        "collection": {"name": "rivers", "queries": 12, "first_stage": "BM25", "depth": 5},
        "metrics": ["ndcg@10", "mrr@10"],
        "queries": 12,
        "queries_without_relevant": 1,
        "minimal_difference": {"ndcg@10": {"untrained base": 0.08, "first stage": 0.09}},
        "systems": rows,
        "comparisons": tests,
        "steps": [],
        "per_query": {"trained": {"ndcg@10": {"/m/river/1": 0.5}}},
    }
    return {**found, **changes}


EXCHANGE = {
    "qid": "q1",
    "query": "which river?",
    "docids": ["d1", "d2"],
    "labels": ["1", "2"],
    "prompt": {"messages": [{"role": "user", "content": "see /etc/river/notes"}], "prefill": "R:"},
    "completion": {
        "text": "[1] yes\n[2] no",
        "finish": "stop",
        "prompt_tokens": 9,
        "completion_tokens": 0,
        "seconds": 0.5,
        "slots": {"1": {" no": -2.0, " yes": -0.1}},
        "reasoning": "",
        "logprob": None,
    },
    "outcome": {
        "status": "ok",
        "answer": {"values": {"d1": 1.9}, "unread": []},
        "reasoning": "",
        "notes": {},
        "comparisons": {},
        "issues": [],
        "order": ["d1", "d2"],
    },
    "provenance": {},
}
NOTE = {
    "qid": "q1",
    "explains": "d1",
    "completion": {"text": " It says so.", "finish": "stop", "prompt_tokens": 9,
                   "completion_tokens": 4, "seconds": 0.1, "reasoning": "", "logprob": None},
    "note": "It says so.",
    "issues": [],
}  # fmt: skip


def bench(folder: Path, checkpoint: Path, **changes: Any) -> Path:
    """The output of a benchmark that measured a checkpoint."""
    (folder / "runs").mkdir(parents=True)
    (folder / "exchanges").mkdir()
    write_json(folder / "result.json", result(fingerprint(checkpoint), **changes))
    (folder / "runs" / "trained.trec").write_text("q1 Q0 d1 1 2 rank_rl\nq1 Q0 d2 2 1 rank_rl\n")
    lines = [json.dumps(EXCHANGE), json.dumps(NOTE)]
    (folder / "exchanges" / "trained.jsonl").write_text("".join(f"{x}\n" for x in lines))
    page = f"<html><body>trained {Path.cwd()}/outputs and /etc/river/notes</body></html>"
    (folder / "report.html").write_text(page)
    (folder / "tasks.jsonl").write_text("{}\n")
    return folder


def run(root: Path, base: Path) -> Run:
    """Stages score and sft on a base of the Hub, with a benchmark of the second one."""
    first = stage(root, "score", (BASE, COMMIT), base)
    mark = f"files:{fingerprint(first)}"
    last = stage(root, "sft", ("outputs/score/final", mark), first)
    (last.parent / ".env").write_text("HF_TOKEN=hf_0123456789012345678901234567890123\n")
    (last / "optimizer.pt").write_bytes(b"\x80 no weights")
    (last / "rng_state.pth").write_bytes(b"\x80")
    (last / "training_args.bin").write_bytes(b"\x80")
    (last / "notes.txt").write_text("mine\n")
    (last.parent / "checkpoint-4").mkdir()
    folder = root / "outputs" / "bench"
    found = bench(folder, last)
    recipe = yaml.safe_load((last.parent / "recipe.resolved.yaml").read_text())
    recipe["run"]["output_dir"] = "outputs/bench"
    (found / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return Run(root=root, checkpoint=last, bench=found)
