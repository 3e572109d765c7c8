"""The pairwise format: of two documents, the one that answers better, ``[2]``.

Mode ``answer`` is that label alone; mode ``reason`` puts it between answer tags behind the
reasoning. A preference becomes an order of both documents, a tie (``[1] = [2]``) equal scores.
Issues beyond those of ``tags``: ``non_ascii``, ``bad_choice`` (more than a label in brackets, or
another way to say it, ``[2] > [1]``), ``tie`` (where none is allowed), ``out_of_range`` (no
document has the label) and, when nothing can be read, ``no_choice``. A sentence that mentions both
documents is no choice.
"""

from __future__ import annotations

import re

from rank_rl.errors import RecipeError
from rank_rl.formats import base, wording
from rank_rl.formats.grammar import Fields, one_of
from rank_rl.formats.labels import ascii_form, id_pattern
from rank_rl.formats.only import AROUND, only_label
from rank_rl.formats.permutation import best_first
from rank_rl.records import Grades, Mode, Order, Outcome, Prompt, Scores, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", ""),
    "user": ("query documents instruction task", ""),
    "document": ("label hint text", ""),
    "ties": ("tie", "first second"),
    "reason": ("first second ties", ""),
    "answer": ("first second ties", ""),
}

_BLANK = " \t\r\n"


class Params(Spec):
    """``ties``: whether ``[1] = [2]`` may be answered; ``prefill``: how the assistant's turn
    already begins."""

    ties: bool = False
    prefill: str = ""


class PairFormat:
    """The better one of two documents.

    Example::

        fmt = formats.make(FormatSpec(name="pair", mode="answer"))
        fmt.parse("[2]", view).answer  # Order(docids=("d2", "d1"))
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.words = wording.load("pair", spec.wording, RULES)
        self.version = self.words.version
        opening = "<think>\n" if spec.mode == "reason" else "["
        self.prefill = base.check_prefill(spec, self.params.prefill, opening)

    @property
    def mode(self) -> Mode:
        """``reason`` or ``answer``."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """One chat that shows both documents in the view's order.

        Raises:
            RecipeError: the view does not show two documents.
        """
        _two(view)
        labels = dict(zip(("first", "second"), view.labels, strict=True))
        ties = self.words.fill("ties", tie=_tie(view), **labels) if self.params.ties else ""
        task = self.words.fill(self.mode, ties=ties, **labels)
        messages = base.list_chat(self.words, self.spec, view, task)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the preference; labels count only within the answer, never in the reasoning."""
        tagged = base.read_tags(text, prefill, self.mode)
        issues = list(tagged.issues)
        plain = ascii_form(tagged.answer).strip(_BLANK)
        issues += [] if plain == tagged.answer.strip(_BLANK) else ["non_ascii"]
        labels, exact = self._preference(plain, view, marked=tagged.marked)
        issues += [] if exact or labels is None else ["bad_choice"]
        docids = [d for d in map(view.docid, labels or ()) if d is not None]
        if labels is None or not docids or len(docids) < len(labels):
            issues += ["out_of_range"] if labels else []
            return base.finish(None, [*issues, "no_choice"], reasoning=tagged.reasoning)
        if len(docids) == 1:
            others = (d for d in view.docids if d != docids[0])
            order = Order(docids=(docids[0], *others))
            return base.finish(order, issues, reasoning=tagged.reasoning)
        issues += [] if self.params.ties else ["tie"]
        return base.finish(
            Scores(values=dict.fromkeys(docids, 1.0)), issues, reasoning=tagged.reasoning
        )

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """The better document by grade, behind the reasoning in its mode.

        Equal grades are a tie where ties are allowed; else the first in first-stage order where
        the prompt tells it, or the first shown: what any reader can repeat.

        Raises:
            RecipeError: the view does not show two documents.
        """
        _two(view)
        graded = view.grades(grades)
        level = len(set(graded.values())) == 1
        best = best_first(self, view, grades)[0]
        choice = _tie(view) if level and self.params.ties else f"[{view.label(best)}]"
        return base.with_reasoning(self.mode, reasoning, choice)

    def grammar(self, view: View) -> Fields:
        """One of the labels, see ``formats.grammar``."""
        return one_of(self.label_texts(view))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """Both labels in brackets, and the tie where it is allowed."""
        labels = tuple(f"[{label}]" for label in view.labels)
        return (*labels, _tie(view)) if self.params.ties else labels

    def lead(self, view: View) -> str | None:
        """What comes before the label in mode answer, see ``base.Choices``."""
        return base.label_lead(self.mode, self.prefill)

    def choices(self, view: View) -> tuple[str, ...]:
        """Both labels, and the tie where it is allowed, as they follow ``lead``."""
        return base.after_lead(self.label_texts(view), self.lead(view))

    def _preference(
        self, plain: str, view: View, *, marked: bool
    ) -> tuple[tuple[str, ...] | None, bool]:
        """The better label, both for a tie, None if there is no choice; and whether it is exact."""
        if plain in [f"[{label}]" for label in view.labels]:
            return (plain[1:-1],), True
        if self.params.ties and plain == _tie(view):
            return view.labels, True
        one = id_pattern(view.labels)
        if alone := re.fullmatch(rf"\[({one})\]", plain):
            return (alone[1],), True  # spelled as asked for, though no document has it
        if not marked:
            # What is not between tags may be reasoning: only its last line can be an answer.
            plain = plain.rpartition("\n")[2]
        related = _relation(plain.strip(AROUND), one, whole=not marked)
        if related is not None:
            return related, False
        label = only_label(plain, one, "better|best", prose=marked)
        return (None, False) if label is None else ((label,), False)


def _relation(text: str, one: str, *, whole: bool) -> tuple[str, ...] | None:
    """What ``[2] > [1]``, ``[1] < [2]`` or ``2 > 1`` prefers; None if nothing or several things.

    Args:
        text: the answer without white space around it.
        one: pattern of a label.
        whole: only a relation that is all of the text counts.
    """
    sign = r"\s{0,3}([<>=＜])\s{0,3}"
    bracketed = rf"\[\s?({one})\s?\]{sign}\[\s?({one})\s?\]"
    alone = re.fullmatch(rf"{bracketed}|({one}){sign}({one})", text)
    if alone:
        found = [tuple(x for x in alone.groups() if x is not None)]
    else:
        found = [] if whole else re.findall(bracketed, text)
    said = {_better(*relation) for relation in found}
    return said.pop() if len(said) == 1 else None


def _better(left: str, sign: str, right: str) -> tuple[str, ...]:
    """The better label of a relation, both for a tie, none for a label beside itself."""
    if left == right:
        return ()
    if sign == "=":
        return tuple(sorted((left, right)))
    return (left,) if sign == ">" else (right,)


def _tie(view: View) -> str:
    return " = ".join(f"[{label}]" for label in view.labels)


def _two(view: View) -> None:
    if len(view.docids) != 2:
        raise RecipeError(
            f"format pair compares two documents, not {len(view.docids)}",
            where="format.name",
            remedy="use views of two documents: strategy pairs, and data.sampler.size: 2",
        )
