"""A small collection and recipes for the tiny model: seconds, one thread, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_recipes import content, write_tasks

from rank_rl.specs import RecipeSpec


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., RecipeSpec]:
    """``recipe(section={…})``: a recipe for the tiny model that writes to ``tmp_path/out``."""
    file = tmp_path / "tasks.jsonl"
    write_tasks(file, tests=2)

    def make(**sections: Any) -> RecipeSpec:
        made = content(tiny_model_dir, file, tmp_path / "out", sections)
        return RecipeSpec.model_validate(made)

    return make
