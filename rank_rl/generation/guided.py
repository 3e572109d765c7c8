"""Guided answers: all of a groupwise answer but its scores is given, the model chooses the scores.

What an answer of known form must say, labels and quotations, need not be generated: it is read in
one pass up to each score, so that ten scores take ten short passes instead of one for each token
(structured outputs of servers do the same token by token; Willard and Louf, 2023). Contract: the
answer can always be read, and the probabilities at its scores are those which ``readout`` reads
off the same text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from rank_rl.errors import ModelError
from rank_rl.generation.local import batches, window
from rank_rl.generation.readout import Place, find_places
from rank_rl.models.loading import autocast_context, evaluating
from rank_rl.records import Completion, Prompt, View

if TYPE_CHECKING:
    from rank_rl.formats.scores import ScoresFormat
    from rank_rl.models.loading import Loaded


@dataclass(slots=True, kw_only=True)
class _Row:
    """A prompt and the answer that is being filled: ``ids`` holds both, ``places`` are in it."""

    ids: list[int]
    prompt_tokens: int
    places: list[Place]
    logprobs: list[list[float]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)

    def chunk(self, step: int) -> list[int]:
        """What is read from the score before up to this one; nothing behind the last."""
        if step >= len(self.places):
            return []
        return self.ids[self.places[step - 1].index if step else 0 : self.places[step].index]

    def choose(self, step: int, logprobs: torch.Tensor) -> None:
        """Write the likeliest admissible score, the lower one of two that are equally likely."""
        place = self.places[step]
        found = [float(logprobs[token]) for token in place.choices]
        best = found.index(max(found))
        self.ids[place.index] = place.choices[best]
        self.logprobs.append(found)
        self.chosen.append(best)


def fill(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    views: Sequence[View],
    fmt: ScoresFormat,
    *,
    batch_size: int = 32,
) -> list[Completion]:
    """Answer prompts of the format ``scores`` in mode answer; each score is the likeliest one.

    Args:
        loaded: an attention model; every pass goes on from its cache of keys and values.
        prompts: one chat a view.
        views: the documents shown.
        fmt: the format that rendered the prompts.
        batch_size: most prompts a pass (fewer where they are long, as in ``LocalGenerator``).

    Returns:
        One completion a prompt with the log-probabilities of all scores in ``slots``. Its
        ``completion_tokens`` count the whole answer, given and chosen; a prompt too long for the
        model's window has ``finish="error"`` and no text.

    Raises:
        ModelError: a score is not a token of its own.
    """
    rows = [row_of(loaded, *pair, fmt) for pair in zip(prompts, views, strict=True)]
    longest = window(loaded)
    done = {
        i: Completion(text="", finish="error", prompt_tokens=row.prompt_tokens)
        for i, row in enumerate(rows)
        if len(row.ids) > longest
    }
    fitting = [i for i in range(len(rows)) if i not in done]
    lengths = [len(rows[i].ids) for i in fitting]
    for batch in batches(lengths, size=batch_size, loaded=loaded):
        chosen = [fitting[i] for i in batch]
        started = time.perf_counter()
        _fill_batch(loaded, [rows[i] for i in chosen])
        share = (time.perf_counter() - started) / len(chosen)
        for i in chosen:
            done[i] = completion_of(rows[i], prompts[i], views[i], fmt, share)
    return [done[i] for i in range(len(rows))]


def row_of(loaded: Loaded, prompt: Prompt, view: View, fmt: ScoresFormat) -> _Row:
    """A prompt with its answer, whose scores are still to be chosen.

    Raises:
        ModelError: a score is not a token of its own.
    """
    blank = fmt.written(view, [fmt.label_texts(view)[0]] * len(view.labels))
    text = blank.removeprefix(prompt.prefill)
    start, ids, places = find_places(loaded, prompt, text, fmt, view)
    if [place.label for place in places] != list(view.labels):
        raise ModelError(
            "a score is hidden inside a longer token",
            where="readout guided",
            remedy="use readout expected or decoded",
        )
    shifted = [replace(place, index=place.index + len(start)) for place in places]
    return _Row(ids=start + ids, prompt_tokens=len(start), places=shifted)


@torch.no_grad()
def _fill_batch(loaded: Loaded, rows: Sequence[_Row]) -> None:
    """Fill all rows together, one pass a score; shorter pieces are padded on their left."""
    from transformers import DynamicCache

    model = loaded.model
    device = next(model.parameters()).device
    pad = loaded.tokenizer.pad_token_id
    cache: Any = DynamicCache(config=model.config)
    mask = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
    with evaluating(model), autocast_context(loaded):
        for step in range(max(len(row.places) for row in rows)):
            chunks = [row.chunk(step) for row in rows]
            width = max(map(len, chunks))
            ids = [[pad] * (width - len(c)) + c for c in chunks]
            new = [[0] * (width - len(c)) + [1] * len(c) for c in chunks]
            mask = torch.cat([mask, torch.tensor(new, device=device)], dim=1)
            out = model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -width:],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logprobs = out.logits[:, -1].float().log_softmax(-1).cpu()
            for row, chunk, found in zip(rows, chunks, logprobs, strict=True):
                if chunk:
                    row.choose(step, found)


def completion_of(
    row: _Row, prompt: Prompt, view: View, fmt: ScoresFormat, seconds: float
) -> Completion:
    """The filled answer, with the log-probabilities of all scores."""
    texts = fmt.label_texts(view)
    slots = {
        place.label: dict(zip(texts, found, strict=True))
        for place, found in zip(row.places, row.logprobs, strict=True)
    }
    return Completion(
        text=fmt.written(view, [texts[i] for i in row.chosen]).removeprefix(prompt.prefill),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=len(row.ids) - row.prompt_tokens,
        seconds=seconds,
        slots=slots,
    )
