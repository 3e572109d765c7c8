"""Where an answer ends: behind the first of its stop texts, or before the first token that ends it.

Contract: the same for every engine, tokens counted included.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from rank_rl.records import Completion


class Decoder(Protocol):
    """The half of ``Tokens`` that turns ids into text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        ...


def finished(
    tokens: Decoder, ids: list[int], ends: Collection[int], stop: Sequence[str]
) -> Completion:
    """An answer from the ids that were written.

    Args:
        tokens: decodes them.
        ids: what was written, with the token that ended it.
        ends: ids that end an answer; none of them is text.
        stop: texts that end an answer; they stay in it.
    """
    kept = trimmed(ids, ends)
    text = tokens.decode(kept)
    found = [text.index(s) + len(s) for s in stop if s in text]
    if not found:
        ended = len(kept) < len(ids)
        return Completion(
            text=text,
            finish="stop" if ended else "length",
            completion_tokens=len(kept) + ended,
        )
    closed = text[: min(found)]
    return Completion(text=closed, completion_tokens=_needed(tokens, kept, len(closed)))


def trimmed(ids: list[int], ends: Collection[int]) -> list[int]:
    """What was written before the first token that ends an answer."""
    last = next((i for i, token in enumerate(ids) if token in ends), None)
    return ids if last is None else ids[:last]


def _needed(tokens: Decoder, ids: list[int], characters: int) -> int:
    """The fewest of the ids whose text has so many characters."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(tokens.decode(ids[:middle])) >= characters:
            high = middle
        else:
            low = middle + 1
    return low


def closed(tokens: Decoder, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the end of an answer holds one of the ``stop`` texts, which its last token ended."""
    if not stop:
        return False
    text = tokens.decode(list(ids[-_tail(stop) :]))
    return any(s in text for s in stop)


def _tail(stop: Sequence[str]) -> int:
    """Most tokens that a stop text takes, with slack for one that ends it and goes on."""
    return max(len(text.encode()) for text in stop) + 4  # no more tokens than bytes
