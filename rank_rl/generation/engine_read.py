"""What vLLM's outputs mean: an answer from its tokens, log-probabilities of wanted next tokens.

Contract: an answer ends where ``LocalGenerator`` would end it, behind the first of its stop texts
or before the first token that ends it, and counts the same tokens. Nothing here needs vLLM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rank_rl.records import Completion

MOST_WANTED = 100  # ids that one request reads; vLLM takes 128


class Decoder(Protocol):
    """The half of ``Tokens`` that turns ids into text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """What a model says of the next token.

    Attributes:
        logprobs: log-probability under the whole vocabulary, by id, of the ids asked about.
        likeliest: the id that greedy decoding would write.
    """

    logprobs: Mapping[int, float]
    likeliest: int


def pieces(ids: list[int]) -> list[list[int]]:
    """Ids in lists that one request may read; a single empty one where there are none."""
    return [ids[i : i + MOST_WANTED] for i in range(0, len(ids), MOST_WANTED)] or [[]]


def peeked(outputs: Sequence[Any]) -> Peek:
    """The reading of one row from its requests, each with one token and its ``logprobs``.

    ``logprobs[0]`` of an output maps ids to objects with ``logprob``, or is None where no ids were
    asked about.
    """
    found: dict[int, float] = {}
    for output in outputs:
        for token, told in ((output.logprobs or [None])[0] or {}).items():
            found[int(token)] = float(told.logprob)
    return Peek(logprobs=found, likeliest=int(outputs[0].token_ids[0]))


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
