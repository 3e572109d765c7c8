"""Stages of a recipe in real launches on a CPU: the shipped configurations, changed to run here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "accelerate_configs"
COLOURS = ("red", "blue", "green", "grey", "pink", "black")
KINDS = {"ddp": "MULTI_CPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def tasks(count: int, split: str) -> list[dict[str, Any]]:
    """Queries that name a colour; of four documents the one of that colour is relevant."""
    made = []
    for number in range(count):
        colours = [COLOURS[(number + i) % len(COLOURS)] for i in range(4)]
        candidates = [
            {"docid": f"d{i}", "text": f"the house is {c}", "score": 4.0 - i}
            for i, c in enumerate(colours)
        ]
        query = f"which house of {split} street {number} is {colours[number % 4]}?"
        made.append(
            {
                "qid": f"{split}{number}",
                "query": query + " please say" * (number % 3),  # rows of different length
                "candidates": candidates,
                "grades": {f"d{number % 4}": 1},
                "split": split,
            }
        )
    return made


def write_recipe(folder: Path, model: Path, *, name: str = "recipe", **sections: Any) -> Path:
    """A recipe for a tiny model that writes to ``folder/NAME``; sections are merged into it."""
    data = folder / "tasks.jsonl"
    lines = [*tasks(8, "train"), *tasks(3, "validation"), *tasks(1, "test")]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    content: dict[str, Any] = {
        "run": {"name": name, "output_dir": str(folder / name), "seed": 3},
        "model": {"name": str(model), "autocast": "off"},
        "data": {
            "source": "jsonl",
            "path": str(data),
            "validation_split": "validation",
            "first_stage": {"name": "given"},
            "sampler": {"name": "pool", "size": 4},
        },
        "format": {"name": "permutation", "doc_tokens": 16, "prompt_tokens": 512},
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "disable_tqdm": True,
        },
        "eval": {"max_new_tokens": 8},
    }
    for section, values in sections.items():
        whole = isinstance(values, list)
        content[section] = values if whole else {**content.get(section, {}), **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def on_cpu(name: str, folder: Path) -> Path:
    """A copy of a shipped configuration that runs on a CPU, with 2 processes where it has more."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    config["use_cpu"] = config["distributed_type"] in ("MULTI_GPU", "NO")
    config["num_processes"] = min(2, config["num_processes"])
    config["main_process_port"] = free_port()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def environment(config: str) -> dict[str, str]:
    """The environment of a launch; FSDP and DeepSpeed are told to take the CPU."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "PYTEST_"))}
    paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.startswith("fsdp"):
        own["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if config.startswith("zero"):
        own["DS_ACCELERATOR"] = "cpu"
    return {**kept, **own}


def command(config: str, stage: str, recipe: Path, *arguments: str) -> list[str]:
    """``accelerate launch`` of one stage, as docs/scaling.md writes it."""
    module = "fsdp_on_cpu" if config.startswith("fsdp") else "rank_rl"
    file = on_cpu(config, recipe.parent)
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*start, "-m", module, stage, str(recipe), *arguments]


def launch(
    config: str, stage: str, recipe: Path, *arguments: str, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a stage under a configuration and wait for its end."""
    return subprocess.run(
        command(config, stage, recipe, *arguments),
        cwd=recipe.parent,
        env=environment(config),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
