"""What vLLM's outputs mean: log-probabilities of wanted next tokens. Nothing here needs vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_WANTED = 100  # ids that one request reads; vLLM takes 128


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
