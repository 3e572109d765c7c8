"""Answers decoded under a grammar by asking which of several texts comes next, round by round.

For models whose tokens cannot be seen from here. All answers take their next choice together, so
that a list of ten takes ten rounds however many lists there are. Contract: whatever is chosen,
``parse`` calls the text ok; a choice that is no choice is not asked about. Who chooses is
``remote_grammar``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rank_rl.formats.grammar import Grammar, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A choice to make.

    Attributes:
        index: number of the answer that it belongs to.
        text: the answer so far, from its first character.
        choices: texts of which one follows, each with what has to stand behind it; at least two.
    """

    index: int
    text: str
    choices: tuple[str, ...]


# Numbers of the choices taken, one a fork; None where none could be.
Choose: TypeAlias = Callable[[Sequence[Fork]], Sequence[int | None]]


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An answer that is being written; ``text`` holds the literal of ``step``."""

    grammar: Grammar
    end: str
    chosen: list[str] = field(default_factory=list)
    text: str = ""
    step: Step = Step(literal="")
    given_up: bool = False

    def __post_init__(self) -> None:
        self.step = self.grammar.next(())
        self.text = self.after("", self.step)

    def after(self, choice: str, step: Step) -> str:
        """A choice with what stands behind it."""
        return choice + step.literal + ("" if step.choices else self.end)

    def ahead(self) -> list[Step]:
        """The step behind each choice."""
        return [self.grammar.next([*self.chosen, choice]) for choice in self.step.choices]

    def take(self, number: int) -> None:
        """Write one of the choices."""
        choice, behind = self.step.choices[number], self.ahead()[number]
        self.text += self.after(choice, behind)
        self.chosen.append(choice)
        self.step = behind

    def fork(self, index: int) -> Fork | None:
        """The next choice; None at the end. What is no choice is written."""
        while len(self.step.choices) == 1:
            self.take(0)
        if self.given_up or not self.step.choices:
            return None
        pairs = zip(self.step.choices, self.ahead(), strict=True)
        texts = tuple(self.after(*pair) for pair in pairs)
        return Fork(index=index, text=self.text, choices=texts)


def decode(grammars: Sequence[Grammar], ends: Sequence[str], choose: Choose) -> list[str | None]:
    """One answer a grammar; None where a choice could not be made.

    Args:
        grammars: what each answer may say.
        ends: what stands behind each.
        choose: which choice follows.
    """
    drafts = [_Draft(grammar=g, end=end) for g, end in zip(grammars, ends, strict=True)]
    while True:
        found = [draft.fork(i) for i, draft in enumerate(drafts)]
        forks = [fork for fork in found if fork is not None]
        if not forks:
            return [None if draft.given_up else draft.text for draft in drafts]
        for fork, number in zip(forks, choose(forks), strict=True):
            if number is None:
                drafts[fork.index].given_up = True
            else:
                drafts[fork.index].take(number)
