"""Counting tokens before a model is there: its tokenizer if it can be had, else words."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, TypeAlias

from rank_rl.errors import ModelError
from rank_rl.models import loading, sources
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Prompt, SlotPrompt

logger = logging.getLogger(__name__)


class Words:
    """Counts words where there is no tokenizer yet; budgets are then only a guess."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []

    def encode(self, text: str) -> list[int]:
        """One id for each word."""
        for word in text.split():
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
        return [self._ids[word] for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """The words, joined by spaces."""
        return " ".join(self._words[i] for i in ids)

    def count_prompt(self, prompt: Any) -> int:
        """Words of all messages and the prefill."""
        return sum(len(m["content"].split()) for m in prompt.messages) + len(prompt.prefill.split())

    def encode_slots(self, prompt: SlotPrompt) -> tuple[list[int], list[list[int]]]:
        """Words of the shared head, and of each document up to its slot."""
        shared = self.encode(f"{prompt.system} {prompt.head}")
        return shared, [self.encode(f"{body} {prompt.lead}") for body in prompt.bodies]


class Rough:
    """Counts tokens of a model whose tokenizer is on a server: about right for most, never exact.

    Words of a Latin alphabet are a token for every six letters, numbers one for every three digits,
    other alphabets one for every three letters, signs and characters of East Asian scripts one
    each.
    """

    _piece = re.compile(
        r"\s*(?:[A-Za-z\u00c0-\u024f]{1,6}|\d{1,3}|[\u0250-\u2e7f]{1,3}|\S)|\s+", re.ASCII
    )
    _message = 4  # tokens of a chat template around a message, about

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        """One id a piece."""
        return [self._id(piece) for piece in self._piece.findall(text)]

    def decode(self, ids: list[int]) -> str:
        """The pieces put together again: the text that they are of."""
        return "".join(self._pieces[i] for i in ids)

    def count_prompt(self, prompt: Prompt) -> int:
        """Pieces of all messages and the prefill, and what a chat template adds."""
        texts = [*(m["content"] for m in prompt.messages), prompt.prefill]
        pieces = sum(len(self._piece.findall(text)) for text in texts)
        return pieces + self._message * (len(prompt.messages) + 1)

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[piece]


def token_counter(name: str, *, chat: bool = True, warn: bool = True) -> tuple[Counter, str]:
    """The model's tokenizer, or a count of words when it is not there; and which of them it is.

    Weights are not loaded, and of a Hub model only the tokenizer is fetched. Without ``chat`` it
    counts plain texts and pairs of them, as scorers read them. ``warn`` logs why a tokenizer
    cannot be had.

    Raises:
        ModelError: with ``warn``, a ``pip:`` package is not there; no stage will write that.
    """
    here = name.startswith("pip:") or Path(name).expanduser().exists()
    if not here and name.count("/") != 1:  # a folder that a stage before this one will write
        return Words(), f"counted in words, because {name} is not there yet (tokens are more)"
    try:
        remote = sources.Source(name=name, path=Path(name), revision="")
        source = sources.locate(name) if here else remote
        tokenizer = loading.load_tokenizer(source, chat=chat)
        tokens = ChatTokens(tokenizer) if chat else TextTokens(tokenizer)
        return tokens, f"counted with the tokenizer of {name}"
    except ModelError as error:
        if warn and name.startswith("pip:"):
            raise
        level = logging.WARNING if warn else logging.DEBUG
        logger.log(level, "no tokenizer: %s", error.line())
        return Words(), "counted in words (tokens are more)"


Counter: TypeAlias = ChatTokens | TextTokens | Words
