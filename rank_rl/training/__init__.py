"""Training stages: score (packed warm-up), sft and grpo, one ``run(spec, info)`` each.

``common`` holds what they share: set-up from a recipe, arguments of the trainers, resuming, saving
and logs. ``callbacks`` validates by really reranking. The table names a stage's entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rank_rl.registry import resolve
from rank_rl.specs import RecipeSpec

STAGES: dict[str, str] = {
    "score": "rank_rl.training.score:run",
    "sft": "rank_rl.training.sft:run",
    "grpo": "rank_rl.training.grpo:run",
}


def stage(name: str) -> Callable[[RecipeSpec, Mapping[str, Any]], dict[str, Any]]:
    """Return the ``run(spec, info)`` of a training stage.

    Raises:
        RecipeError: no such stage.
    """
    return resolve("stage", name, STAGES)  # type: ignore[no-any-return]
