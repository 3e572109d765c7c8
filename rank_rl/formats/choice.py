"""The setwise format: of the documents shown, the best one or the worst, ``[3]``.

Mode ``answer`` is that label alone (Setwise, Zhuang et al., 2023, arXiv 2310.09497); mode
``reason`` puts it between answer tags behind the reasoning (Rank-R1, 2025, arXiv 2503.06034). The
worst one is what an elimination asks for (IRanker, 2025, arXiv 2506.21638). Issues beyond those of
``tags``: ``non_ascii``, ``bad_choice`` (more or less than a label in brackets), ``out_of_range``
(no document has it) and, when nothing can be read, ``no_choice``: an answer that names several
different documents is none.
"""

from __future__ import annotations

import re
from typing import Literal

from rank_rl.formats import base, wording
from rank_rl.formats.grammar import Fields, one_of
from rank_rl.formats.labels import ascii_form, id_pattern
from rank_rl.formats.only import only_label
from rank_rl.formats.permutation import best_first
from rank_rl.records import Grades, Mode, Outcome, Pick, Prompt, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", "which"),
    "user": ("query documents instruction task", "count which"),
    "document": ("label hint text", ""),
    "document_after": ("label hint text", ""),
    "best": ("", "count"),
    "worst": ("", "count"),
    "reason": ("which", "count"),
    "answer": ("which", "count"),
}

_BLANK = " \t\r\n"
_SHAPES = {"before": "document", "after": "document_after"}


class Params(Spec):
    """``pick``: which document is asked for; ``labels``: whether a document's label stands before
    or behind its text in the prompt; ``prefill``: how the assistant's turn already begins."""

    pick: Literal["best", "worst"] = "best"
    labels: Literal["before", "after"] = "before"
    prefill: str = ""


class ChoiceFormat:
    """One document of those shown.

    Example::

        fmt = formats.make(FormatSpec(name="choice", mode="answer"))
        fmt.parse("[2]", view).answer  # Pick(docid="d2", worst=False)
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        unused = () if self.params.labels == "after" else ("document_after",)
        self.words = wording.load("choice", spec.wording, RULES, unused=unused)
        self.version = self.words.version
        self.worst = self.params.pick == "worst"
        opening = "<think>\n" if spec.mode == "reason" else "["
        self.prefill = base.check_prefill(spec, self.params.prefill, opening)

    @property
    def mode(self) -> Mode:
        """``reason`` or ``answer``."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """One chat that shows all documents of the view in its order."""
        count = len(view.labels)
        which = self.words.fill(self.params.pick, count=count)
        task = self.words.fill(self.mode, which=which, count=count)
        shape = _SHAPES[self.params.labels]
        messages = base.list_chat(self.words, self.spec, view, task, shape=shape, which=which)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the pick; labels count only within the answer, never in the reasoning."""
        tagged = base.read_tags(text, prefill, self.mode)
        issues = list(tagged.issues)
        plain = ascii_form(tagged.answer).strip(_BLANK)
        issues += [] if plain == tagged.answer.strip(_BLANK) else ["non_ascii"]
        label: str | None = plain[1:-1]
        labels = id_pattern(view.labels)
        known = view.docid(plain[1:-1]) is not None
        if plain != f"[{label}]" or not (known or re.fullmatch(labels, plain[1:-1])):
            # What is not between tags may be reasoning: only its last line can be an answer.
            said = plain if tagged.marked else plain.rpartition("\n")[2]
            called = "worst|least" if self.worst else "best|most"
            label = only_label(said, labels, called, prose=tagged.marked)
            issues += [] if label is None else ["bad_choice"]
        docid = None if label is None else view.docid(label)
        if docid is None:
            issues += ["no_choice"] if label is None else ["out_of_range", "no_choice"]
            return base.finish(None, issues, reasoning=tagged.reasoning)
        pick = Pick(docid=docid, worst=self.worst)
        return base.finish(pick, issues, reasoning=tagged.reasoning)

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """The best or the worst document by grade behind the reasoning in its mode.

        Of equal grades, the first is the best and the last is the worst, in the order that
        ``permutation.best_first`` says.
        """
        docid = best_first(self, view, grades)[-1 if self.worst else 0]
        return base.with_reasoning(self.mode, reasoning, f"[{view.label(docid)}]")

    def grammar(self, view: View) -> Fields:
        """One of the labels, see ``formats.grammar``."""
        return one_of(self.label_texts(view))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """The labels shown, in brackets."""
        return tuple(f"[{label}]" for label in view.labels)

    def lead(self, view: View) -> str | None:
        """What comes before the label in mode answer, see ``base.Choices``."""
        return base.label_lead(self.mode, self.prefill)

    def choices(self, view: View) -> tuple[str, ...]:
        """The labels shown, as they follow ``lead``."""
        return base.after_lead(self.label_texts(view), self.lead(view))
