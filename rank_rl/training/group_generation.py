"""Generation for GRPO with one prefill a prompt: ``generation.group_decode`` at TRL's border.

Every draw has a seed of its own, derived from the run's seed, the step, the prompt and its place in
the group: the same completions come whatever shares the batch, on one process or several, and
after a resume. An answer that closes (``</answer>``) ends there; the end token that is put behind
it is marked as not the model's own, so that it is not trained.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl import seeds
from rank_rl.generation import group_decode
from rank_rl.generation.endings import closed
from rank_rl.generation.group_decode import Drawing, Row
from rank_rl.models.loading import evaluating
from rank_rl.models.packed_attention import reach
from rank_rl.models.tokens import ChatTokens

logger = logging.getLogger(__name__)

# Rows decoded at once: more were no faster a token on a CPU, and their keys take memory.
CPU_ROWS, GPU_ROWS = 64, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When an answer is complete: an end token, or one of the ``stop`` texts.

    ``eos`` holds the ids that end a completion; the first stands behind answers that close.
    """

    tokens: ChatTokens
    eos: Sequence[int]
    stop: tuple[str, ...] = ()

    def __call__(self, ids: list[int]) -> bool:
        """Whether an answer is complete."""
        return ids[-1] in self.eos or self.closed(ids)

    def closed(self, ids: Sequence[int]) -> bool:
        """Whether the end of an answer holds a stop text."""
        return closed(self.tokens, ids, self.stop)

    def finish(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """An answer up to where it closes, with its end token; 1 for each token of the model's own.

        Engines that do not stop there write on; what follows is cut, unless it is the end token.
        """
        size = bisect.bisect_left(range(len(ids) + 1), True, key=lambda n: self._holds(ids[:n]))
        if size > len(ids) or (size == len(ids) - 1 and ids[-1] in self.eos):
            return ids, [1] * len(ids)
        return [*ids[:size], self.eos[0]], [1] * size + [0]

    def _holds(self, ids: list[int]) -> bool:
        text = self.tokens.decode(ids)
        return any(stop in text for stop in self.stop)


def supported(settings: Mapping[str, Any]) -> bool:
    """Whether generation settings, by their names in transformers, hold nothing but ``Drawing``."""
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "do_sample": True}
    known = {"max_new_tokens", "temperature", "top_p", "top_k", "min_p", "disable_compile"}
    known |= {"pad_token_id", "bos_token_id", "eos_token_id"}
    return all(
        key in known or value is None or value == neutral.get(key, object())
        for key, value in settings.items()
    )


def drawing(settings: Mapping[str, Any]) -> Drawing:
    """The sampling that generation settings describe."""
    return Drawing(
        temperature=float(settings.get("temperature") or 1.0),
        top_p=float(settings.get("top_p") or 1.0),
        top_k=int(settings.get("top_k") or 0),
        min_p=settings.get("min_p"),
    )


def fits(model: Any, prompts: Collection[Sequence[int]], most: int) -> bool:
    """Whether the longest prompt and answer stay within what the model reads."""
    return max(map(len, prompts)) + most <= reach(model, "gather")


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[tuple[object, ...]],
    *,
    seed: int,
    settings: Mapping[str, Any],
    ending: Ending,
) -> list[list[int]]:
    """Draw one answer for each row.

    Args:
        model: a causal language model, gradients off.
        prompts: token ids of each row's prompt; equal ones are read once.
        keys: what tells the draws of equal prompts apart, such as step and place in the group.
        seed: the run's seed.
        settings: generation settings by their names in transformers.
        ending: when an answer is complete.
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for number, ids in enumerate(prompts):
        rows_of.setdefault(tuple(ids), []).append(number)
    answers: list[list[int]] = [[] for _ in prompts]
    most = int(settings["max_new_tokens"])
    with evaluating(model):
        for part in _parts(rows_of, model):
            numbers = [n for ids in part for n in rows_of[ids]]
            rows = [
                Row(prompt=place, seed=seeds.derive(seed, "draw", *keys[n], *ids))
                for place, ids in enumerate(part)
                for n in rows_of[ids]
            ]
            found = group_decode.decode(
                model, part, rows, most=most, drawing=drawing(settings), ended=ending
            )
            for n, answer in zip(numbers, found, strict=True):
                answers[n] = answer
    return answers


def _parts(
    rows_of: Mapping[tuple[int, ...], Sequence[int]], model: Any
) -> list[list[tuple[int, ...]]]:
    """Prompts to be decoded together, as many as make a batch; a prompt is never divided."""
    most = CPU_ROWS if next(model.parameters()).device.type == "cpu" else GPU_ROWS
    parts: list[list[tuple[int, ...]]] = []
    held = most
    for ids, rows in rows_of.items():
        if held + len(rows) > most:
            parts.append([])
            held = 0
        parts[-1].append(ids)
        held += len(rows)
    return parts
