"""Label first, reasoning after it: one label slot behind each document (RRADistill, 2024).

A document is asked alone, ``… Relevant:``, and answered `` yes. It says who the father is.`` The
label ranks, by its probability in a packed pass over many documents; the note behind it is read
only on demand. Issues: ``no_lead``, ``leading_text``, ``no_label``, ``label_spelling``,
``no_note``, ``separator``, ``second_label``, ``trailing_text``, ``missing``, ``extra_documents``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from pydantic import Field

from rank_rl.errors import RecipeError
from rank_rl.formats import base, wording
from rank_rl.formats.notes import read_note, with_note
from rank_rl.records import Grades, Message, Mode, Outcome, Prompt, Scores, SlotPrompt, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", "task labels"),
    "head": ("query instruction", ""),
    "context": ("text", ""),
    "document": ("hint text", ""),
    "lead": ("", ""),
    "reason": ("", "labels"),
    "answer": ("", "labels"),
}


class Params(Spec):
    """``labels``: worst first, each one token; ``values``: what they are worth (0, 1, … when
    null); ``lead``: what the assistant's turn begins with (the wording's when null); ``context``:
    how many of the view's first documents, by first-stage rank, are shown with the query to every
    other one, as pseudo-relevance feedback (Rocchio, 1971; E2Rank's listwise prompt, 2510.22733)
    and the only way in which one document can tell about another."""

    labels: list[str] = Field(default=["no", "yes"], min_length=2)
    values: list[float] | None = None
    lead: str | None = None
    context: int = Field(default=0, ge=0)


class SlotFormat:
    """One label a document, then a short note in mode ``reason``.

    The space between lead and label belongs to a label that is a word (`` yes`` is one token) and
    to the lead before a digit (which most tokenizers keep apart from the space); a digit written
    with its space in the recipe (``" 1"``) keeps it.

    Example::

        fmt = SlotFormat(FormatSpec(name="slots", mode="reason"))
        fmt.parse_slot(" yes. It names him.")  # (" yes", "It names him.", ())
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.words = wording.load("slots", spec.wording, RULES)
        self.version = self.words.version
        words = [label.strip() for label in self.params.labels]
        _check_labels(words, self.params.values)
        lead = (self.words.fill("lead") if self.params.lead is None else self.params.lead).strip()
        if not lead or "\n" in lead:
            raise RecipeError(f"lead is {lead!r}", where="format.params.lead", expected="one line")
        spaced = any(x.startswith(" ") for x in self.params.labels)
        bare = all(word.isdecimal() for word in words) and not spaced
        self.lead = f"{lead} " if bare else lead
        self.labels = tuple(words if bare else [f" {word}" for word in words])
        values = self.params.values or range(len(words))
        self.values = tuple(float(value) for value in values)
        _check_pieces(self.words)
        # One group a label: which one matched tells the label whatever its case is.
        choice = "|".join(f"({re.escape(word)})" for word in words)
        self._lenient = re.compile(rf"[\s*\"'(:]*(?:{choice})(?!\w)", re.IGNORECASE)
        self._leads = re.compile(rf"^[ \t]*{re.escape(lead)}", re.MULTILINE)

    @property
    def mode(self) -> Mode:
        """``reason``: a note follows the label; ``answer``: the label alone."""
        return self.spec.mode

    def slots(self, view: View) -> SlotPrompt:
        """The packed form: a shared head, one body and one slot a document."""
        bodies = (base.document(self.words, self.spec, view, i) for i in range(len(view.docids)))
        return SlotPrompt(
            system=self._system(),
            head=self._head(view),
            bodies=tuple(bodies),
            lead=self.lead,
            labels=self.labels,
            values=self.values,
        )

    def slot_messages(self, view: View, index: int) -> tuple[Message, ...]:
        """System and user message that show one document of the view."""
        body = base.document(self.words, self.spec, view, index)
        return base.chat(self._system(), self._head(view) + body)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """One chat a document, in shown order."""
        return tuple(
            Prompt(messages=self.slot_messages(view, i), prefill=self.lead)
            for i in range(len(view.docids))
        )

    def render(self, view: View) -> Prompt:
        """The chat of a view of one document.

        Raises:
            RecipeError: the view shows several; ``prompts`` or ``slots`` render those.
        """
        if len(view.docids) != 1:
            raise RecipeError(
                f"format slots asks one document at a time, not {len(view.docids)}",
                where="format.name",
                remedy="use kind: slots, views of one document, or another format",
            )
        return self.prompts(view)[0]

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read one answer a document, each on a line that begins with the lead, in shown order."""
        whole = prefill + text
        starts = [m.span() for m in self._leads.finditer(whole)]
        if not starts:
            starts = [(0, 0)]
            issues = ["no_lead"]
        else:
            issues = ["leading_text"] if whole[: starts[0][0]].strip() else []
        if len(view.docids) == 1:
            pieces = [whole[starts[0][1] :]]
        else:
            ends = [start for start, _ in starts[1:]] + [len(whole)]
            pieces = [
                whole[begin:end].rstrip() for (_, begin), end in zip(starts, ends, strict=True)
            ]
            issues += ["missing"] if len(pieces) < len(view.docids) else []
            issues += ["extra_documents"] if len(pieces) > len(view.docids) else []
        labels: list[str | None] = []
        notes: dict[str, str] = {}
        for docid, piece in zip(view.docids, pieces, strict=False):
            label, note, found = self.parse_slot(self._after_lead(piece))
            labels.append(label)
            issues += found
            if note:
                notes[docid] = note
        labels += [None] * (len(view.docids) - len(labels))
        outcome = self.to_outcome(view, labels, None, notes)
        return base.finish(
            outcome.answer, [*issues, *outcome.issues], reasoning=_reasoning(notes), notes=notes
        )

    def parse_slot(self, text: str) -> tuple[str | None, str, tuple[str, ...]]:
        """Read what follows the lead: (label as in ``labels`` or None, note, issues)."""
        label = next((x for x in self.labels if _starts_with(text, x)), None)
        issues: list[str] = []
        if label is None:
            match = self._lenient.match(text)
            if match is None:
                return None, "", ("no_label",)
            label = self.labels[(match.lastindex or 1) - 1]
            issues.append("label_spelling")
            rest = text[match.end() :]
        else:
            rest = text[len(label) :]
        if self.mode == "answer":
            return label, "", (*issues, *(["trailing_text"] if rest.strip() else []))
        again = self._leads.search(rest)
        if again:
            issues.append("second_label")
            rest = rest[: again.start()]
        note, found = read_note(rest)
        return label, note, (*issues, *found)

    def to_outcome(
        self,
        view: View,
        labels: Sequence[str | None],
        scores: Sequence[float] | None,
        notes: Mapping[str, str],
    ) -> Outcome:
        """Scores of a view from the labels said, or from the finer ``scores`` where given.

        Args:
            view: the documents, in shown order.
            labels: one label a document (with or without its space), None where none was read.
            scores: one number a document, e.g. the expected label value; not finite is missing.
            notes: reasoning by docid.
        """
        worth = dict(zip((x.strip() for x in self.labels), self.values, strict=True))
        said = [worth.get(label.strip()) if label else None for label in labels]
        values = said if scores is None else [s if math.isfinite(s) else None for s in scores]
        found = {d: v for d, v in zip(view.docids, values, strict=False) if v is not None}
        issues = ["no_label"] if None in said else []
        issues += ["missing"] if len(found) < len(view.docids) else []
        return base.finish(Scores(values=found) if found else None, issues, notes=notes)

    def ideal_slot(self, grade: int, note: str = "") -> str:
        """What follows the lead for a grade: `` yes. Note`` or, in mode ``answer``, `` yes``."""
        label = self.labels[min(max(grade, 0), len(self.labels) - 1)]
        return with_note(label, note) if self.mode == "reason" else label

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """One line a document in shown order; a line of ``reasoning`` is the note of each."""
        graded = view.grades(grades)
        notes = reasoning.split("\n") if len(view.docids) > 1 else [reasoning]
        notes += [""] * (len(view.docids) - len(notes))
        return "\n".join(
            self.lead + self.ideal_slot(graded[docid], notes[i])
            for i, docid in enumerate(view.docids)
        )

    def label_texts(self, view: View) -> tuple[str, ...]:
        """The labels exactly as they follow the lead."""
        return self.labels

    def _after_lead(self, piece: str) -> str:
        """Give a digit back the space that the lead has taken."""
        return piece[1:] if self.lead.endswith(" ") and piece.startswith(" ") else piece

    def _system(self) -> str:
        named = " or ".join(label.strip() for label in self.labels)
        task = self.words.fill(self.mode, labels=named)
        return self.words.fill("system", task=task, labels=named)

    def _head(self, view: View) -> str:
        head = self.words.fill("head", **base.question(self.words, view))
        first = sorted(view.candidates, key=lambda c: (c.rank, c.docid))[: self.params.context]
        shown = (self.words.fill("context", text=base.document_text(c)) for c in first)
        return head + "".join(shown)


def _starts_with(text: str, label: str) -> bool:
    """Whether the text begins with exactly this label, not with a longer word."""
    return text.startswith(label) and not text[len(label) : len(label) + 1].isalnum()


def _reasoning(notes: Mapping[str, str]) -> str:
    return next(iter(notes.values())) if len(notes) == 1 else ""


def _check_labels(words: Sequence[str], values: Sequence[float] | None) -> None:
    where = "format.params.labels"
    if len({word.lower() for word in words}) != len(words) or not all(words):
        raise RecipeError(f"labels {list(words)!r}", where=where, expected="distinct words")
    if values is not None and len(values) != len(words):
        raise RecipeError(
            f"{len(values)} values for {len(words)} labels",
            where="format.params.values",
            expected="one value a label",
        )


def _check_pieces(words: wording.Wording) -> None:
    """Head and body must tokenise the same apart and together."""
    head, body = words.texts["head"], words.texts["document"]
    if not head.endswith("\n") or head[:1].isspace():
        raise RecipeError("head must end with a line break", where=f"wording {words.version}: head")
    context = words.texts["context"]
    if not context.endswith("\n") or context[:1].isspace() or context.startswith("{"):
        raise RecipeError(
            "must begin with a word and end with a line break",
            where=f"wording {words.version}: context",
        )
    if body[:1].isspace() or body.startswith("{"):
        raise RecipeError("must begin with a word", where=f"wording {words.version}: document")
