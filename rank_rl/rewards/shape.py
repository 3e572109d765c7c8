"""Rewards for the shape of a completion: whether it kept its format, and how long it is.

Neither looks at the grades. ``format`` is the part that keeps a malformed text under every valid
one, whatever the order that could be read from it; give it a weight in every composite.
"""

from __future__ import annotations

from dataclasses import dataclass

from rank_rl.formats.tags import ISSUES
from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.rewards.base import UpToOne, check, is_number, payable, valid


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatReward:
    """Graded format reward: ``ok`` for a text that kept every rule, less for any other.

    A repaired text earns ``repaired``, less ``step`` for each issue after the first, at least
    ``least``. A failed one earns ``tagged`` when it reasoned inside the right tags and only the
    answer between them was bad, else ``failed``. The parser alone is asked, so a tag that the
    prompt prefilled is never missed. FormatReward(ok=0.0, repaired=-0.1, least=-0.1, tagged=-0.1,
    failed=-0.5) are the penalties of GroupRank (2025, arXiv 2511.11653).

    Raises:
        RecipeError: values that do not fall from ``ok`` over ``repaired`` to ``failed``.
    """

    ok: float = 1.0
    repaired: float = 0.4
    step: float = 0.1
    least: float = 0.1
    tagged: float = 0.3
    failed: float = 0.0
    name: str = "format"

    def __post_init__(self) -> None:
        levels = (self.ok, self.repaired, self.step, self.least, self.tagged, self.failed)
        good = all(is_number(v) for v in levels) and (
            self.ok > self.repaired >= self.least >= self.failed
            and self.ok > self.tagged >= self.failed
            and self.step >= 0
        )
        expected = "ok > repaired >= least >= failed, ok > tagged >= failed, step >= 0"
        names = ("ok", "repaired", "step", "least", "tagged", "failed")
        check(self.name, good, expected, **dict(zip(names, levels, strict=True)))

    @property
    def bounds(self) -> tuple[float, float]:
        """``failed`` to ``ok``."""
        return (self.failed, self.ok)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return the grade of the text's format."""
        return self.of(outcome)

    def of(self, outcome: Outcome) -> float:
        """The grade of a text's format, which its outcome alone decides."""
        if valid(outcome):
            return self.ok
        if outcome.status == "repaired" and outcome.answer is not None:
            issues = len(set(outcome.issues))
            return max(self.least, self.repaired - self.step * max(0, issues - 1))
        if outcome.status == "failed" and outcome.reasoning and not ISSUES & {*outcome.issues}:
            return self.tagged
        return self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(UpToOne):
    """Soft length bound in completion tokens, in [0, 1]; a malformed text earns ``malformed``.

    1 up to ``soft_max`` tokens, falling linearly to 0 at ``hard_max``; Length(soft_max=1000,
    hard_max=2000) pays 1500 tokens 0.5.

    Raises:
        RecipeError: unless 0 <= soft_max < hard_max, or ``malformed`` above 0.
    """

    soft_max: int
    hard_max: int | None = None
    malformed: float = 0.0
    name: str = "length"

    def __post_init__(self) -> None:
        given = self.hard_max is None or is_number(self.hard_max)
        ok = is_number(self.soft_max) and given and 0 <= self.soft_max < self._end
        check(
            self.name,
            ok and payable(self.malformed, 0),
            "0 <= soft_max < hard_max and malformed <= 0",
            soft_max=self.soft_max,
            hard_max=self.hard_max,
            malformed=self.malformed,
        )

    @property
    def _end(self) -> int:
        """``hard_max``, by default twice ``soft_max``."""
        return 2 * self.soft_max if self.hard_max is None else self.hard_max

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float | None:
        """Return 1 for a short valid text, less for a longer one."""
        if not valid(outcome):
            return self.malformed
        left = (self._end - completion.completion_tokens) / (self._end - self.soft_max)
        return max(0.0, min(1.0, left))
