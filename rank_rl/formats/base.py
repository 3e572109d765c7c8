"""The Format protocol and the helpers that the formats share by composition.

Status policy, the same for every format: ``ok`` means that the text kept every rule; ``repaired``
that an answer could still be read, each departure named in ``issues``; ``failed`` that none could
(``answer`` is None). Rewards decide by the status strictly, inference uses what was read, and both
are counted. Parsing never raises on model text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import ValidationError

from rank_rl.errors import DataError, RecipeError
from rank_rl.formats.labels import neutralise
from rank_rl.formats.tags import Tagged, harmless, has_tags, split
from rank_rl.formats.wording import Rules, Wording
from rank_rl.records import (
    Answer,
    Candidate,
    Grades,
    Message,
    Mode,
    Outcome,
    Prompt,
    View,
)
from rank_rl.registry import nearest
from rank_rl.specs import FormatSpec, Spec

# Keys that every wording has: required placeholders, then optional ones. ``no_instruction``, what
# stands in the place of a query's instruction where it has none, may be left out.
COMMON_RULES: Rules = {
    "instruction": ("instruction", ""),
    "no_instruction": ("", ""),
    "hint_rank": ("rank", ""),
    "hint_score": ("score", ""),
}


class Format(Protocol):
    """One way to ask for a ranking and to read the answer."""

    spec: FormatSpec
    version: str

    @property
    def mode(self) -> Mode:
        """``reason``: reasoning is part of the answer; ``answer``: the bare answer."""
        ...

    def render(self, view: View) -> Prompt:
        """The chat that shows a view."""
        ...

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """Every chat that asking a view takes: one, or one a document."""
        ...

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read a completion; ``prefill`` is what the assistant's turn already began with."""
        ...

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """The best assistant text for known grades, from its first character (prefill included)."""
        ...

    def label_texts(self, view: View) -> tuple[str, ...]:
        """The texts that may stand where the answer makes a choice."""
        ...


@runtime_checkable
class Choices(Protocol):
    """What a format adds whose answer is one choice, so that labels can be read as probabilities.

    A text is the answer that makes the choice ``i`` when it begins with ``lead + choices[i]``. What
    a model thinks of all choices then takes one forward pass and no generation.
    """

    def lead(self, view: View) -> str | None:
        """What the assistant's turn begins with before its choice, prefill included.

        None where reasoning of unknown text comes first.
        """
        ...

    def choices(self, view: View) -> tuple[str, ...]:
        """The texts of the choices as they follow ``lead``, aligned with ``label_texts``."""
        ...


ParamsT = TypeVar("ParamsT", bound=Spec)


def read_params(model: type[ParamsT], spec: FormatSpec) -> ParamsT:
    """Validate ``format.params`` against a format's own model.

    Raises:
        RecipeError: unknown key, wrong type or value out of range.
    """
    try:
        return model(**spec.params)
    except ValidationError as error:
        first, known = error.errors()[0], sorted(model.model_fields)
        key = ".".join(map(str, first["loc"]))
        where = f"format.params.{key}"
        if first["type"] == "extra_forbidden":
            what, near = f"unknown parameter of {spec.name}", nearest(key, known)
            raise RecipeError(what, where=where, expected=", ".join(known), remedy=near) from error
        if first["type"] == "value_error":
            raise RecipeError(first["msg"].removeprefix("Value error, "), where=where) from error
        given, text = first["input"], first["msg"].removeprefix("Input should be ")
        remedy = "put it in quotes" if isinstance(given, bool) and "string" in text else ""
        raise RecipeError(f"value {given!r}", where=where, expected=text, remedy=remedy) from error


def check_prefill(spec: FormatSpec, prefill: str, opening: str) -> str:
    """Return ``prefill`` if every answer of the format begins with it.

    Raises:
        RecipeError: it is not a beginning of ``opening``.
    """
    if not opening.startswith(prefill):
        raise RecipeError(
            f"prefill {prefill!r} is not how an answer of {spec.name} begins",
            where="format.params.prefill",
            expected=f"a beginning of {opening!r}",
        )
    return prefill


def document_text(candidate: Candidate) -> str:
    """Title and text as a prompt shows them: on one line, harmless (see ``labels``)."""
    return joined(neutralise(candidate.title), neutralise(candidate.text))


def joined(title: str, text: str) -> str:
    """Title and text as one string, either may be empty."""
    return f"{title}. {text}" if title and text else title or text


def hint(words: Wording, spec: FormatSpec, view: View, index: int) -> str:
    """First-stage rank or score of a document as a prompt shows it, or nothing.

    The score is written as it is (three digits), so it does not depend on what else is shown.
    After Askari et al., 2023, "Injecting the BM25 Score as Text".

    Raises:
        DataError: a score is asked for and the candidate has none.
    """
    candidate = view.candidates[index]
    if spec.first_stage_hint == "none":
        return ""
    if spec.first_stage_hint == "rank":
        return words.fill("hint_rank", rank=candidate.rank)
    if candidate.score is None:
        raise DataError(
            f"document {candidate.docid!r} has no first-stage score to show",
            where=f"query {view.query.qid!r}",
            remedy="set format.first_stage_hint to rank or none",
        )
    return words.fill("hint_score", score=f"{candidate.score:.3g}")


def reads_first_stage(fmt: Format) -> bool:
    """Whether prompts of the format show what the first stage said of the documents."""
    return fmt.spec.first_stage_hint != "none" or bool(fmt.spec.params.get("context"))


def picks_worst(fmt: Format) -> bool:
    """Whether an answer of the format names the worst document."""
    return bool(getattr(fmt, "worst", False))


def document(
    words: Wording, spec: FormatSpec, view: View, index: int, *, shape: str = "document"
) -> str:
    """One document as a prompt shows it, with its label and hint where the wording has them.

    ``shape`` is the wording's key that says how.
    """
    filled = words.fill(
        shape,
        label=view.labels[index],
        hint=hint(words, spec, view, index),
        text=document_text(view.candidates[index]),
    )
    return filled.rstrip()


def question(words: Wording, view: View) -> dict[str, str]:
    """The placeholders ``query`` and ``instruction`` (the wording's own, or empty, without one)."""
    instruction = neutralise(view.query.instruction or "")
    without = words.texts.get("no_instruction", "")
    wrapped = words.fill("instruction", instruction=instruction) if instruction else without
    return {"query": neutralise(view.query.text), "instruction": wrapped}


def chat(system: str, user: str) -> tuple[Message, ...]:
    """System and user message; no system message when it is empty."""
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return messages if system else messages[1:]


def list_chat(
    words: Wording,
    spec: FormatSpec,
    view: View,
    task: str,
    *,
    shape: str = "document",
    **more: object,
) -> tuple[Message, ...]:
    """One chat that shows all documents of a view in its order, and the task.

    Args:
        words: its wording.
        spec: the format, for what is told of the first stage.
        view: what is shown.
        task: what is asked.
        shape: the wording's key for a document.
        more: further placeholders of the wording's ``system`` and ``user``.
    """
    count = len(view.labels)
    documents = "\n".join(document(words, spec, view, i, shape=shape) for i in range(count))
    filled = {"documents": documents, "task": task, "count": count, **more}
    user = words.fill("user", **filled, **question(words, view))
    return chat(words.fill("system", **more), user)


def label_lead(mode: Mode, prefill: str) -> str | None:
    """What comes before a choice that is the whole answer, see ``Choices``."""
    return prefill if mode == "answer" else None


def after_lead(texts: Sequence[str], lead: str | None) -> tuple[str, ...]:
    """Texts of choices as they follow a lead, which may hold their first characters."""
    return tuple(text.removeprefix(lead or "") for text in texts)


def with_reasoning(mode: Mode, reasoning: str, answer: str) -> str:
    """An assistant text of the mode; tags that the reasoning quotes are made harmless."""
    if mode == "answer":
        return answer
    return f"<think>\n{harmless(reasoning.strip())}\n</think>\n<answer>{answer}</answer>"


def read_tags(text: str, prefill: str, mode: Mode) -> Tagged:
    """Find reasoning and answer as the mode says; ``answer`` mode allows no tags."""
    if mode == "reason":
        return split(text, prefill)
    whole = prefill + text
    if not has_tags(whole):
        return Tagged(reasoning="", answer=whole, issues=(), start=0, marked=True)
    found = split(text, prefill)
    return Tagged(
        reasoning=found.reasoning,
        answer=found.answer,
        issues=("unexpected_tags",),
        start=found.start,
        marked=found.marked,
    )


def finish(
    answer: Answer | None,
    issues: Sequence[str],
    *,
    reasoning: str = "",
    notes: Mapping[str, str] | None = None,
) -> Outcome:
    """Apply the status policy; issues are kept once each, in order of appearance."""
    named = tuple(dict.fromkeys(issues))
    return Outcome(
        status="failed" if answer is None else "repaired" if named else "ok",
        answer=answer,
        reasoning=reasoning,
        notes=notes or {},
        issues=named,
    )
