"""A reward that an untrained model meets by chance, for recipes of these tests."""

from __future__ import annotations

from rank_rl.records import Completion, Grades, Outcome, View


class Digits:
    """Share of digits in the answer."""

    name = "digits"
    bounds = (0.0, 1.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float:
        text = completion.text
        return sum(c.isdigit() for c in text) / max(1, len(text))
