"""Reasoning skipped at inference: a model that was trained to reason answers at once.

A model is trained to reason, and spared the reasoning when it ranks (RRADistill, 2024, arXiv
2410.18097; TFRank, 2025, arXiv 2508.09539). Formats that think first get an empty reasoning as the
beginning of the assistant's turn; formats that give the label first stop behind it; label slots
need nothing, as their notes are written on demand only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from rank_rl.errors import RecipeError
from rank_rl.formats import base
from rank_rl.records import Candidate, Completion, Prompt, Query, View, numbered
from rank_rl.specs import Reasoning

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.formats.budget import TokenCounter
    from rank_rl.generation import Generator

# What an ideal answer without reasoning says before its answer.
SKIPPED = base.with_reasoning("reason", "", "").removesuffix("</answer>")

# Whether a label comes first depends on the format alone; it needs a view to be asked.
ANY = numbered(Query(qid="q", text="?"), [Candidate(docid="d", text="?", rank=1)])


def check_reasoning(fmt: Format, wanted: str, *, where: str = "reasoning") -> Reasoning:
    """The switch as a format can take it.

    Raises:
        RecipeError: no such value, or the format writes no reasoning that could be skipped.
    """
    known: dict[str, Reasoning] = {name: name for name in get_args(Reasoning)}
    if wanted not in known:
        raise RecipeError(
            f"reasoning {wanted!r}", where=where, expected=f"one of {', '.join(known)}"
        )
    if wanted == "skip" and fmt.mode == "answer":
        raise RecipeError(
            f"format {fmt.spec.name!r} in mode answer has no reasoning to skip",
            where=where,
            expected="mode reason",
        )
    return known[wanted]


def label_first(fmt: Format) -> bool:
    """Whether reasoning follows the label, so that the label is there before any is written."""
    return fmt.mode == "reason" and hasattr(fmt, "choices") and fmt.lead(ANY) is not None  # type: ignore[attr-defined]


def begun(fmt: Format, prompt: Prompt, reasoning: Reasoning) -> Prompt:
    """The prompt with an empty reasoning where the format would think first and must not."""
    if reasoning == "write" or fmt.mode == "answer" or label_first(fmt):
        return prompt
    return replace(prompt, prefill=SKIPPED)


def label_lead(fmt: Format, view: View, reasoning: Reasoning) -> str | None:
    """What the assistant's turn says before its label; None where reasoning has to be written."""
    own: str | None = fmt.lead(view)  # type: ignore[attr-defined]
    return SKIPPED if own is None and reasoning == "skip" else own


def generate_labels(
    generator: Generator,
    prompts: Sequence[Prompt],
    views: Sequence[View],
    fmt: Format,
    tokens: TokenCounter,
) -> list[Completion]:
    """Answers of a label-first format that end behind the label.

    A generator with ``shortened`` writes no more tokens than a label takes; what others write
    behind it is dropped. An answer gets the end that an ideal one without reasoning has, so that
    it keeps the rules of its format; one that breaks other rules than that of the missing note is
    left as it is, so that it counts as it would with reasoning.
    """
    lengths = [len(tokens.encode(text)) for view in views[:1] for text in _choices(fmt, view)]
    # Two more, as a label behind a prompt may be cut into other tokens than by itself.
    shortened: Any = getattr(generator, "shortened", None)
    short: Generator = shortened(max(lengths) + 2) if shortened and lengths else generator
    answers = short.generate(prompts)
    return [_ended(*known, fmt) for known in zip(answers, prompts, views, strict=True)]


def _ended(completion: Completion, prompt: Prompt, view: View, fmt: Format) -> Completion:
    # What only begins like a label ("10" of at most 3, "nothing") is none: the format decides.
    read = fmt.parse(completion.text, view, prefill=prompt.prefill)
    if read.answer is None or not {"no_note"}.issuperset(read.issues):
        return completion
    choices = sorted(_choices(fmt, view), key=len, reverse=True)
    whole, ideal = (prompt.prefill + completion.text).lstrip(), fmt.ideal(view, {}, "")
    label = next((text for text in choices if whole.startswith(text)), None)
    if label is None:
        return completion
    end = next((ideal.removeprefix(text) for text in choices if ideal.startswith(text)), "")
    return replace(completion, text=(label + end).removeprefix(prompt.prefill), finish="stop")


def _choices(fmt: Format, view: View) -> list[str]:
    """The labels with what comes before them."""
    lead: str = fmt.lead(view) or ""  # type: ignore[attr-defined]
    return [lead + choice for choice in fmt.choices(view)]  # type: ignore[attr-defined]
