"""What an answer may say, step by step: text that is given, and choices between.

A format's ``grammar(view)`` describes the answer alone, without the tags and the reasoning around
it. Contract: whatever is chosen, the text is one that ``parse`` calls ok. Formats whose answer goes
on freely behind its label have none. Who decodes under it is ``rank_rl.generation``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rank_rl.errors import RecipeError
from rank_rl.formats import base
from rank_rl.records import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Text that has to follow, then the texts of which one follows; without any it is the end."""

    literal: str
    choices: tuple[str, ...] = ()


class Grammar(Protocol):
    """The answers that a view allows."""

    def next(self, chosen: Sequence[str]) -> Step:
        """What follows the choices made so far."""
        ...


@runtime_checkable
class Ruled(Protocol):
    """What a format adds whose answers can be decoded under a grammar."""

    def grammar(self, view: View) -> Grammar:
        """The answers that a view allows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """``[3] > [1] > [2]``: ``count`` of the labels, each at most once."""

    labels: tuple[str, ...]
    count: int

    def next(self, chosen: Sequence[str]) -> Step:
        """The labels that are left, until enough are listed."""
        if len(chosen) >= self.count:
            return Step(literal="]")
        taken = set(chosen)
        left = tuple(label for label in self.labels if label not in taken)
        return Step(literal="] > [" if chosen else "[", choices=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Texts with the same choices between: ``texts[0]`` choice ``texts[1]`` … ``texts[-1]``."""

    texts: tuple[str, ...]
    choices: tuple[str, ...]

    def next(self, chosen: Sequence[str]) -> Step:
        """The next text, and the choices unless it is the last."""
        done = len(chosen) + 1 == len(self.texts)
        return Step(literal=self.texts[len(chosen)], choices=() if done else self.choices)


def one_of(choices: Sequence[str]) -> Fields:
    """One of several texts and nothing else."""
    return Fields(texts=("", ""), choices=tuple(choices))


def check_grammar(fmt: base.Format, *, where: str) -> None:
    """Refuse formats whose answers cannot be decoded under a grammar.

    Raises:
        RecipeError: naming what was asked for.
    """
    if not isinstance(fmt, Ruled) or getattr(fmt, "label_first", False):
        raise RecipeError(
            f"format {fmt.spec.name!r} has no grammar for its answers",
            where=where,
            expected="permutation, scores, choice, pair, explain, or pointwise but label_first",
        )


def closing(reasoning: str) -> str:
    """What ends a reasoning that was broken off and begins the answer."""
    return ("" if not reasoning or reasoning.endswith("\n") else "\n") + "</think>\n<answer>"
