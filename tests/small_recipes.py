"""A small collection, and the content of a recipe that trains a tiny model on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLOURS = ("red", "blue", "green", "grey", "pink", "black")


def tasks(count: int, split: str, documents: int = 4, longer: str = "") -> list[dict[str, Any]]:
    """Queries that name a colour; of the documents the one of that colour is relevant."""
    made = []
    for number in range(count):
        colours = [COLOURS[(number + i) % len(COLOURS)] for i in range(documents)]
        wanted = number % documents
        query = f"which house of {split} street {number} is {colours[wanted]}?"
        made.append(
            {
                "qid": f"{split}{number}",
                "query": query + longer * (number % 3),
                "candidates": [
                    {"docid": f"d{i}", "text": f"the house is {colour}", "score": 4.0 - i}
                    for i, colour in enumerate(colours)
                ],
                "grades": {f"d{wanted}": 1},
                "split": split,
            }
        )
    return made


def write_tasks(file: Path, tests: int, longer: str = "") -> None:
    """8 tasks to train on, 3 for validation; ``longer`` makes queries differ in length."""
    sizes = {"train": 8, "validation": 3, "test": tests}
    lines = [task for split, count in sizes.items() for task in tasks(count, split, longer=longer)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def content(model: Path, data: Path, out: Path, sections: dict[str, Any]) -> dict[str, Any]:
    """A recipe that writes to ``out``; sections are merged into it, lists replace its own."""
    made: dict[str, Any] = {
        "run": {"name": "test", "output_dir": str(out), "seed": 3},
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
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "disable_tqdm": True,
        },
        "eval": {"max_new_tokens": 8},
    }
    for name, values in sections.items():
        whole = isinstance(values, list)
        made[name] = values if whole else {**made.get(name, {}), **values}
    return made
