"""One small ranking task of this project's own, as a checkpoint's format shows it to the model.

Cards show it and snippets ask it, so that both hold what the model really reads: the format's own
prompts, cut to its budget by the checkpoint's own tokenizer. The texts are nobody's data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rank_rl import formats
from rank_rl.data.lessons import fits
from rank_rl.formats.budget import fit
from rank_rl.generation.reasoning import begun, label_lead
from rank_rl.hub.contract import PromptContract
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Candidate, Prompt, Query, View, numbered

QUERY = "Which river flows through the city where Johannes Gutenberg was born?"
DOCUMENTS = (
    ("Johannes Gutenberg", "Gutenberg was born in Mainz and printed with movable type.", 7.5),
    ("Mainz", "The city of Mainz lies on the river Rhine.", 6.1),
    ("Movable type", "Movable type was known in China centuries before.", 2.4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The task as a format shows it.

    Attributes:
        views: what is asked, cut to its budget: one view, or one a document.
        prompts: the chats, with what the assistant's turn begins with; none for a scorer.
        choices: texts that may follow, where a label is read; they follow the prefill.
    """

    views: tuple[View, ...]
    prompts: tuple[Prompt, ...]
    choices: tuple[str, ...] = ()


def candidates() -> tuple[Candidate, ...]:
    """The documents in first-stage order, each one text: as the snippets hand them over."""
    return tuple(
        # A title of its own would be told apart from the sentence that a snippet puts first.
        Candidate(docid=f"d{i}", text=f"{title}. {text}", rank=i, score=score)
        for i, (title, text, score) in enumerate(DOCUMENTS, 1)
    )


def example(contract: PromptContract, tokenizer: Any) -> Example:
    """The task in the format of a contract.

    Args:
        contract: of the checkpoint.
        tokenizer: its own.
    """
    fmt = formats.make(contract.format)
    kind = formats.kind(fmt)
    tokens: Any = TextTokens(tokenizer) if kind == "scorer" else ChatTokens(tokenizer)
    views = tuple(fit(view, tokens, fmt=fmt)[0] for view in _views(fmt, kind))
    if kind == "scorer":
        return Example(views=views, prompts=())
    slots: Any = fmt
    if kind == "slots":
        return Example(views=views, prompts=fmt.prompts(views[0]), choices=slots.labels)
    if contract.readout == "score":
        lead = label_lead(fmt, views[0], contract.reasoning)  # type: ignore[arg-type]
        prompts = tuple(replace(fmt.render(view), prefill=lead or "") for view in views)
        return Example(views=views, prompts=prompts, choices=slots.choices(views[0]))
    asked = (begun(fmt, fmt.render(view), contract.reasoning) for view in views)  # type: ignore[arg-type]
    return Example(views=views, prompts=tuple(asked))


def _views(fmt: Any, kind: str) -> list[View]:
    """All documents at once, or as many as one prompt of the format shows."""
    query, found = Query(qid="example", text=QUERY), candidates()
    if kind != "text":
        return [numbered(query, found)]
    size = next((n for n in (3, 2) if fits(fmt, numbered(query, found[:n]))), 1)
    if size > 1:
        return [numbered(query, found[:size])]
    return [numbered(query, [one]) for one in found]
