"""Generators: what turns prompts into completions, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rank_rl.records import Completion, Prompt
from rank_rl.registry import resolve

TABLE: dict[str, str] = {
    "canned": "rank_rl.generation.canned:CannedGenerator",
    "endpoint": "rank_rl.generation.endpoint:EndpointGenerator",
    "local": "rank_rl.generation.local:LocalGenerator",
}

Progress = Callable[[int], object]


class Generator(Protocol):
    """Anything that answers prompts, in order, one completion a prompt.

    ``batch_size`` is how many prompts it answers at once; ``progress`` is called with the number
    of prompts finished since the last call.
    """

    batch_size: int

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion a prompt; a failed one has ``finish="error"`` and no text."""
        ...


def make(name: str, *args: Any, **params: Any) -> Generator:
    """Build a generator by its name.

    Raises:
        RecipeError: unknown name.
    """
    generator: Generator = resolve("generator", name, TABLE)(*args, **params)
    return generator
