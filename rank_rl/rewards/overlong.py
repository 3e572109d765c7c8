"""A soft punishment for completions near their greatest length, instead of a sudden cut.

Yu et al., 2025 (DAPO, arXiv 2503.14476, soft overlong punishment). Unlike ``length``, which pays
for being short, it leaves answers of an ordinary length alone: it is 0 until the last ``buffer``
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import check, is_count, payable, valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """0 up to ``max_length - buffer`` completion tokens, falling to -1 at ``max_length``.

    Overlong(max_length=1000, buffer=200) pays 800 tokens 0, 900 tokens -0.5 and 1000 tokens -1. A
    text that broke its format earns ``malformed`` whatever its length, because no malformed text
    may earn more than a valid one.

    Raises:
        RecipeError: unless 1 <= buffer <= max_length, or ``malformed`` above -1.
    """

    max_length: int
    buffer: int
    malformed: float = -1.0
    name: str = "overlong"

    def __post_init__(self) -> None:
        counts = is_count(self.max_length) and is_count(self.buffer)
        check(
            self.name,
            counts and self.buffer <= self.max_length and payable(self.malformed, -1),
            "1 <= buffer <= max_length, in tokens, and malformed <= -1",
            max_length=self.max_length,
            buffer=self.buffer,
            malformed=self.malformed,
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """``malformed`` to 0."""
        return (self.malformed, 0.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the punishment of a text for its length."""
        if not valid(outcome):
            return self.malformed
        over = completion.completion_tokens - (self.max_length - self.buffer)
        return min(0.0, max(-1.0, -over / self.buffer))
