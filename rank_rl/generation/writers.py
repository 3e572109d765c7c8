"""What one answer reads next and makes of what the model says: freely, guessed ahead, or ruled.

``Free`` writes what the model wants. With greedy decoding it guesses the tokens that may follow (in
what it has read and written, after Saxena, 2023, prompt lookup decoding, and in a text that is like
the answer) and lets one pass check them all: the answer is the same, in fewer passes. ``Guided``
writes under a grammar of ``formats.grammar``: text that is given is read in one piece, and only
the choices are the model's. ``Thinking`` is one behind the other: free reasoning of limited length,
then the answer. Contract: what is written depends on the row alone, not on others in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from rank_rl.errors import ModelError
from rank_rl.formats.grammar import Grammar
from rank_rl.generation.ragged import alike
from rank_rl.models.tokens import ChatTokens

if TYPE_CHECKING:
    import torch

Finish = Literal["stop", "length"]
NGRAMS = (4, 3, 2)  # lengths of what is looked up, the longest first


class Writer(Protocol):
    """One answer under way.

    Attributes:
        ids: tokens written so far.
        chunk: what is read next; its last ``wanted`` tokens want logits.
        wanted: how many logits it wants.
        finish: how it ended; None while it goes on.
    """

    @property
    def ids(self) -> list[int]: ...
    @property
    def chunk(self) -> list[int]: ...
    @property
    def finish(self) -> Finish | None: ...
    @property
    def wanted(self) -> int: ...

    def take(self, logits: torch.Tensor, best: Sequence[int]) -> int:
        """Go on.

        Args:
            logits: (wanted, V) behind the last tokens of ``chunk``.
            best: their likeliest tokens.

        Returns:
            How many tokens of the chunk are kept; afterwards ``chunk`` is the next one.
        """
        ...

    def guess(self, most: int) -> None:
        """Append up to so many guessed tokens to the chunk."""
        ...


class Lookup:
    """Finds what followed the last time that the latest tokens were seen."""

    def __init__(self, *texts: Sequence[int]) -> None:
        self.ids: list[int] = []
        self._seen: dict[tuple[int, ...], int] = {}
        for text in texts:
            self.add(text)

    def add(self, ids: Sequence[int]) -> None:
        """Go on with these tokens."""
        for token in ids:
            for n in NGRAMS:
                if len(self.ids) >= n:
                    self._seen[tuple(self.ids[-n:])] = len(self.ids)
            self.ids.append(token)

    def follow(self, most: int) -> list[int]:
        """Up to so many tokens that may follow."""
        for n in NGRAMS:
            place = self._seen.get(tuple(self.ids[-n:])) if len(self.ids) >= n else None
            if place is not None:
                return self.ids[place : place + most]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a free answer keeps to.

    Attributes:
        most: most tokens.
        ends: tokens that end an answer; they are part of it.
        closed: whether the ids so far hold a text that ends it.
        draw: the next token of (V,) logits for the number of the token; None takes the likeliest.
    """

    most: int
    ends: frozenset[int]
    closed: Callable[[list[int]], bool]
    draw: Callable[[torch.Tensor, int], int] | None = None


class Free:
    """Writes what the model wants.

    Args:
        rules: what it keeps to.
        lookup: what guesses are looked up in; None makes none.
    """

    def __init__(self, rules: Rules, lookup: Lookup | None = None) -> None:
        self.rules, self.lookup = rules, lookup if rules.draw is None else None
        self.ids: list[int] = []
        self.chunk: list[int] = []
        self.finish: Finish | None = None
        self.guessed = self.right = 0
        self._guesses = 0

    @property
    def wanted(self) -> int:
        """One for the last certain token, one for each guess."""
        return 1 + self._guesses

    def guess(self, most: int) -> None:
        """Append guesses to the chunk, which holds the latest token."""
        if self.lookup is not None:
            most = min(most, self.rules.most - len(self.ids) - 1)
            found = self.lookup.follow(most) if most > 0 else []
            self.chunk += found
            self._guesses = len(found)

    def take(self, logits: torch.Tensor, best: Sequence[int]) -> int:
        """Keep the guesses that the model would have written, and one token more."""
        guesses = self.chunk[len(self.chunk) - self._guesses :] if self._guesses else []
        kept = len(self.chunk) - len(guesses)
        self.guessed += len(guesses)
        self._guesses = 0
        for i in range(len(guesses) + 1):
            draw = self.rules.draw
            token = best[i] if draw is None else draw(logits[i], len(self.ids))
            self._write(token)
            if self.finish or i == len(guesses) or guesses[i] != token:
                break
            kept += 1
            self.right += 1
        self.chunk = self.ids[-1:]
        return kept

    def _write(self, token: int) -> None:
        self.ids.append(token)
        if self.lookup is not None:
            self.lookup.add([token])
        if token in self.rules.ends or self.rules.closed(self.ids):
            self.finish = "stop"
        elif len(self.ids) >= self.rules.most:
            self.finish = "length"


class Guided:
    """Writes under a grammar: the likeliest of the choices, token by token.

    Args:
        grammar: what may be said.
        tokens: the tokenizer.
        stop: the token that ends an answer where no text does.
        lead: text before the answer, read in one piece with it.
        end: text behind the answer.

    ``text`` is what was written, lead and end included. ``1`` and ``10`` are told from each other
    by what follows them.

    Raises:
        ModelError: the tokenizer joins a choice with the character behind it.
    """

    wanted = 1

    def __init__(
        self, grammar: Grammar, tokens: ChatTokens, *, stop: int, lead: str = "", end: str = ""
    ) -> None:
        self.grammar, self.tokens, self.stop, self.end = grammar, tokens, stop, end
        self.ids: list[int] = []
        self.chunk: list[int] = []
        self.finish: Finish | None = None
        self.chosen: list[str] = []
        self.text = ""
        self._lead, self._literal = lead, ""
        self._paths: dict[str, list[int]] = {}  # tokens of each choice that is left, and one more
        self._at = 0  # so many tokens of the paths are written
        self._go_on()

    @property
    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        return sorted({path[self._at] for path in self._paths.values()})

    def guess(self, most: int) -> None:
        """Nothing has to be guessed."""

    def take(self, logits: torch.Tensor, best: Sequence[int]) -> int:
        """Choose among what is allowed next; what follows of itself goes into the chunk."""
        kept = len(self.chunk)
        self.chunk = []
        allowed = self.allowed
        values = logits[-1][allowed].tolist()
        token = allowed[values.index(max(values))]
        self._paths = {c: p for c, p in self._paths.items() if p[self._at] == token}
        if len(self._paths) > 1:
            self._put([token])
            self._at += 1
            self._stem()
        else:
            ((choice, path),) = self._paths.items()
            self._choose(choice, path[self._at : -1])
            self._go_on()
        return kept

    def _go_on(self) -> None:
        """Write what has to follow, up to where the model decides, or to the end."""
        while self.finish is None:
            step = self.grammar.next(self.chosen)
            self._literal, self._lead = self._lead + step.literal, ""
            if not step.choices:
                rest = self._literal + self.end
                self._put(self.tokens.encode(rest))
                self.text += rest
                self.finish = "stop"
            elif len(step.choices) == 1:
                self._choose(step.choices[0], self.tokens.encode(self._literal + step.choices[0]))
            else:
                self._paths = {choice: self._path(choice) for choice in step.choices}
                self._at = 0
                self._stem()
                return

    def _stem(self) -> None:
        """Write the tokens that all paths have in common."""
        rows = list(self._paths.values())
        same = alike(min(rows), max(rows))
        self._put(rows[0][self._at : same])
        self._at = max(self._at, same)

    def _path(self, choice: str) -> list[int]:
        """Tokens of what leads to a choice, the choice, and the first of what follows it."""
        following = self.grammar.next([*self.chosen, choice])
        tail = (following.literal + ("" if following.choices else self.end))[:1]
        ids = self.tokens.encode(self._literal + choice)
        if not tail:
            return [*ids, self.stop]
        longer = self.tokens.encode(self._literal + choice + tail)
        if longer[: len(ids)] != ids or len(longer) != len(ids) + 1:
            raise ModelError(
                f"the tokenizer joins {choice!r} with {tail!r}",
                where="constrained answers",
                expected="a token that ends where a choice ends",
                remedy="write answers freely (constrained: false, no thinking_budget)",
            )
        return longer

    def _choose(self, choice: str, ids: Sequence[int]) -> None:
        self._put(ids)
        self.chosen.append(choice)
        self.text += self._literal + choice

    def _put(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.chunk += ids


class Thinking:
    """Free reasoning up to its end or its budget, then the answer under a grammar.

    Args:
        free: what writes the reasoning; its budget is its ``rules.most``.
        answer: makes what writes the answer, of the tokens of the reasoning.
    """

    def __init__(self, free: Free, answer: Callable[[list[int]], Guided]) -> None:
        self.free, self.answer = free, answer
        self.guided: Guided | None = None

    @property
    def ids(self) -> list[int]:
        """Tokens of both."""
        return self.free.ids + (self.guided.ids if self.guided else [])

    @property
    def chunk(self) -> list[int]:
        """What is read next."""
        return self.guided.chunk if self.guided else self.free.chunk

    @property
    def finish(self) -> Finish | None:
        """How the answer ended."""
        return self.guided.finish if self.guided else None

    @property
    def wanted(self) -> int:
        """As its part under way."""
        return self.guided.wanted if self.guided else self.free.wanted

    def guess(self, most: int) -> None:
        """As its part under way."""
        (self.guided or self.free).guess(most)

    def take(self, logits: torch.Tensor, best: Sequence[int]) -> int:
        """Go on with the reasoning, or begin the answer where it is over."""
        if self.guided is not None:
            return self.guided.take(logits, best)
        kept = self.free.take(logits, best)
        if self.free.finish is not None:
            last = self.free.ids[-1:]
            if last and last[0] in self.free.rules.ends:
                del self.free.ids[-1]
                last = []
            self.guided = self.answer(self.free.ids)
            self.guided.chunk[:0] = last
        return kept
