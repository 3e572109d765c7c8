"""Readouts: what counts as a document's score, and expected scores off a written answer.

Small models know more than their decoded integers say (H. Zhuang et al., 2023, arXiv 2310.14122):
one pass over prompt and answer gives the probability of every admissible score at each place where
one stands. Contract: the answer's text and status stay as they are; only the values become finer.
``guided`` reads the same while the answer is written, see ``rank_rl.generation.guided``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.reasoning import label_first
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Outcome, Prompt, Scores, View
from rank_rl.specs import Readout

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.models.loading import Loaded

# Readouts by the probabilities of admissible scores, each of which must be one token.
BY_PROBABILITY: frozenset[str] = frozenset({"expected", "guided"})

Slots = dict[str, dict[str, float]]
# What checkpoints of the first days call score and decoded.
_FORMER: dict[str, Readout] = {"slots": "score", "text": "decoded"}


def readout_for(
    fmt: Format, wanted: str = "auto", *, where: str = "readout", reasoning: str = "write"
) -> Readout:
    """The readout of a format that a recipe or a checkpoint asks for; never ``auto``.

    Args:
        fmt: the format; ``auto`` is decoded for written answers and score for all others.
        wanted: a name of ``rank_rl.specs.Readout``, or ``slots`` or ``text`` of a checkpoint.
        where: the key to blame.
        reasoning: whether it is skipped, so that the label comes at once.

    Raises:
        RecipeError: no such readout, or the format cannot be read that way.
    """
    kind = formats.kind(fmt)
    by_slots = kind == "slots"
    if wanted == "auto":
        return "decoded" if kind == "text" else "score"
    known: dict[str, Readout] = {name: name for name in get_args(Readout)} | _FORMER
    fits = {
        "score": kind != "text" or _at_once(fmt, reasoning),
        "expected": by_slots or hasattr(fmt, "slot_spans"),
        "guided": hasattr(fmt, "written") and fmt.mode == "answer",
        "decoded": kind != "scorer",
    }
    allowed = ["auto", *(name for name, fit in fits.items() if fit)]
    if known.get(wanted) not in allowed:
        raise RecipeError(
            f"readout {wanted!r} with format {fmt.spec.name!r}",
            where=where,
            expected=f"one of {', '.join(allowed)}",
            remedy=_SCORE_REMEDY if wanted == "score" and hasattr(fmt, "choices") else "",
        )
    return known[wanted]


_SCORE_REMEDY = "a label behind reasoning can be read in mode answer, or with reasoning: skip"


def _at_once(fmt: Format, reasoning: str) -> bool:
    """Whether an answer is a label that no reasoning has to be written before."""
    first = fmt.mode == "answer" or reasoning == "skip" or label_first(fmt)
    return hasattr(fmt, "choices") and first


def read_slots(loaded: Loaded, prompt: Prompt, text: str, fmt: Format, view: View) -> Slots:
    """Log-probability of every admissible score at each score of an answer, by document label.

    Args:
        loaded: the model that wrote the answer.
        prompt: what it was asked, prefill included.
        text: what it wrote behind the prefill.
        fmt: a format with ``slot_spans``.
        view: the documents shown.

    Raises:
        RecipeError: the format has no such places.
        ModelError: a score takes more than one token of this model.

    A place where the answer's spelling hides the score inside a longer token is left out.
    """
    if not hasattr(fmt, "slot_spans"):
        raise RecipeError(
            f"format {fmt.spec.name!r} has no scores to read out", expected="format scores"
        )
    start, ids, places = find_places(loaded, prompt, text, fmt, view)
    if not places:
        return {}
    texts = fmt.label_texts(view)
    rows = _logprobs(loaded, start + ids, [len(start) + place.index - 1 for place in places])
    return {
        place.label: dict(zip(texts, (row[i] for i in place.choices), strict=True))
        for place, row in zip(places, rows, strict=True)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the score of ``label`` stands: the position of its token in the answer's ids, and the
    token that each admissible score is there."""

    label: str
    index: int
    choices: tuple[int, ...]


def find_places(
    loaded: Loaded, prompt: Prompt, text: str, fmt: Format, view: View
) -> tuple[list[int], list[int], list[Place]]:
    """Ids of the prompt without its prefill, ids of the answer with it, and the answer's places.

    Raises:
        ModelError: a score takes more than one token of this model.
    """
    answer = prompt.prefill + text
    shift = len(prompt.prefill)
    tokens = ChatTokens(loaded.tokenizer)
    texts = fmt.label_texts(view)
    start = tokens.encode_prompt(replace(prompt, prefill=""))
    ids, offsets = _with_offsets(loaded, answer)
    spans = fmt.slot_spans(text, view, prefill=prompt.prefill)  # type: ignore[attr-defined]
    if spans:
        check_texts(tokens, texts)
    places = []
    for label, (begin, _) in spans.items():
        index = next((i for i, (_, end) in enumerate(offsets) if end > begin + shift), None)
        if index is not None:
            glue = " " if tokens.decode([ids[index]]).startswith(" ") else ""
            before = answer[: begin + shift].removesuffix(glue)[-12:]
            choices = [_choice_id(tokens, before, glue + text) for text in texts]
            found = tuple(choice for choice in choices if choice is not None)
            if len(found) == len(texts):
                places.append(Place(label=label, index=index, choices=found))
    return start, ids, places


def with_expected(
    outcome: Outcome, slots: Mapping[str, Mapping[str, float]], view: View, fmt: Format
) -> Outcome:
    """Replace decoded scores by their expectation over the admissible scores, where one was read.

    Scores are worth what the format's ``values`` say, else the number that they write. A document
    whose place could not be read keeps its decoded score.
    """
    if not isinstance(outcome.answer, Scores):
        return outcome
    worth = _worth(fmt, view)
    values = dict(outcome.answer.values)
    for label, logprobs in slots.items():
        docid = view.docid(label)
        if docid in values:
            weights = {text: math.exp(lp) for text, lp in logprobs.items()}
            total = sum(weights.values())
            if total > 0:
                values[docid] = sum(worth[text] * w for text, w in weights.items()) / total
    return replace(outcome, answer=Scores(values=values))


def _worth(fmt: Format, view: View) -> dict[str, float]:
    texts = fmt.label_texts(view)
    values: Sequence[float] = getattr(fmt, "values", None) or [float(text) for text in texts]
    return dict(zip(texts, values, strict=True))


def _with_offsets(loaded: Loaded, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoded = loaded.tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def check_texts(tokens: ChatTokens, texts: Sequence[str]) -> None:
    """Check that each score is one token where answers write it, with or without its space.

    Raises:
        ModelError: a score takes more than one token of this model.
    """
    for text in texts:
        ways = [('"[1]": ', text), ('"[1]":', f" {text}")]
        if all(_choice_id(tokens, before, after) is None for before, after in ways):
            fewer = (
                "set format.params.max to 9 or less" if text.isdecimal() else "choose other labels"
            )
            raise ModelError(
                f"score {text!r} takes more than one token",
                where="expected scores",
                remedy=f"{fewer}, or use readout decoded",
            )


def check_readout(fmt: Format, readout: str, tokens: ChatTokens, view: View) -> None:
    """Check before anything is computed that a model's tokens allow a readout of a format.

    Raises:
        ModelError: expected or guided scores are wanted and one takes more than one token.
    """
    if readout in BY_PROBABILITY and hasattr(fmt, "slot_spans"):
        check_texts(tokens, fmt.label_texts(view))


def _choice_id(tokens: ChatTokens, before: str, text: str) -> int | None:
    """The single token that ``text`` becomes behind ``before``; None when it is not one."""
    stem, both = tokens.encode(before), tokens.encode(before + text)
    return both[-1] if both[:-1] == stem else None


def _logprobs(loaded: Loaded, ids: list[int], positions: list[int]) -> list[list[float]]:
    import torch

    from rank_rl.models.loading import autocast_context, evaluating

    model = loaded.model
    with torch.no_grad(), evaluating(model), autocast_context(loaded):
        device = next(model.parameters()).device
        keep = torch.tensor(positions, device=device)
        out = model(input_ids=torch.tensor([ids], device=device), logits_to_keep=keep)
        rows: list[list[float]] = out.logits[0].float().log_softmax(-1).tolist()
    return rows
