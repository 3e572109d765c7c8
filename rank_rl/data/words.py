"""Plain words of a text: for comparing annotations with documents and for cutting notes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def words(text: str) -> tuple[str, ...]:
    """Lower-case words without accents, punctuation and width."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(c if c.isalnum() else " " for c in plain if not unicodedata.combining(c))
    return tuple(kept.split())


def contains(text: Sequence[str], part: Sequence[str]) -> bool:
    """Whether ``part`` occurs in ``text`` as consecutive whole words; false when it is empty."""
    n = len(part)
    return n > 0 and any(tuple(text[i : i + n]) == tuple(part) for i in range(len(text) - n + 1))


def shorten(text: str, most: int) -> str:
    """The first ``most`` words of a text, with an ellipsis when words were left out."""
    parts = text.split()
    return text if len(parts) <= most else " ".join(parts[:most]) + " …"
