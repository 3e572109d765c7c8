"""A small collection and recipes for the tiny model: seconds, one thread, no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rank_rl.specs import RecipeSpec

COLOURS = ("red", "blue", "green", "grey", "pink", "black")


def tasks(count: int, split: str) -> list[dict[str, Any]]:
    """Queries that name a colour; of four documents the one of that colour is relevant."""
    made = []
    for number in range(count):
        colours = [COLOURS[(number + i) % len(COLOURS)] for i in range(4)]
        wanted = colours[number % 4]
        made.append(
            {
                "qid": f"{split}{number}",
                "query": f"which house of {split} street {number} is {wanted}?",
                "candidates": [
                    {"docid": f"d{i}", "text": f"the house is {colour}", "score": 4.0 - i}
                    for i, colour in enumerate(colours)
                ],
                "grades": {f"d{number % 4}": 1},
                "split": split,
            }
        )
    return made


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., RecipeSpec]:
    """``recipe(section={…})``: a recipe for the tiny model that writes to ``tmp_path/out``."""
    file = tmp_path / "tasks.jsonl"
    lines = [*tasks(8, "train"), *tasks(3, "validation"), *tasks(2, "test")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def make(**sections: dict[str, Any]) -> RecipeSpec:
        content: dict[str, dict[str, Any]] = {
            "run": {"name": "test", "output_dir": str(tmp_path / "out"), "seed": 3},
            "model": {"name": str(tiny_model_dir), "autocast": "off"},
            "data": {
                "source": "jsonl",
                "path": str(file),
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
            whole = name in ("rewards", "losses")
            content[name] = values if whole else {**content.get(name, {}), **values}
        return RecipeSpec.model_validate(content)

    return make
