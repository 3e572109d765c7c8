"""Rewards that an untrained model meets by chance, for recipes of these tests."""

from __future__ import annotations

from collections.abc import Callable

from rank_rl.records import Completion, Grades, Outcome, View


class Share:
    """Share of the characters of an answer that are of one kind."""

    name: str
    counts: Callable[[str], bool]
    bounds = (0.0, 1.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float:
        return self.paid(completion.text)

    def paid(self, text: str) -> float:
        """What a text is worth, in [0, 1]."""
        return sum(map(self.counts, text)) / max(1, len(text))


class Digits(Share):
    name = "digits"
    counts = staticmethod(str.isdigit)


class Letters(Share):
    name = "letters"
    counts = staticmethod(str.isalpha)


class Capitals(Share):
    name = "capitals"
    counts = staticmethod(str.isupper)
