"""The listwise format with explicit and comparison reasoning before its order (ReasoningRank).

After Ji et al., 2024, arXiv 2410.05168. Between think tags stands a line on what each document
contributes and a line on why it stands where it does (see ``sections``), between answer tags the
order, ``[2] > [1]``, which is never read from the reasoning. Issues beyond those of ``tags``,
``lists``, ``permutation`` and ``sections``: ``no_explicit`` (no such section), with the kind of
section before them ``_missing`` (a document without a line), ``_order`` (explicit lines follow the
order shown, comparisons the answer), ``_unexpected`` (not asked for); the same for ``comparison``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rank_rl.errors import RecipeError
from rank_rl.formats import base, wording
from rank_rl.formats.grammar import Listing
from rank_rl.formats.permutation import best_first, listing, read_order
from rank_rl.formats.sections import (
    COMPARISON,
    EXPLICIT,
    HEADINGS,
    Sections,
    compose,
    has_heading,
    read,
    sections,
)
from rank_rl.formats.tags import Tagged, harmless
from rank_rl.records import Grades, Mode, Order, Outcome, Prompt, View
from rank_rl.specs import FormatSpec, Spec

__all__ = ["ExplainFormat", "Params", "compose", "sections"]

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", ""),
    "user": ("query documents instruction task", "count"),
    "document": ("label hint text", ""),
    "explicit": ("", "count"),
    "comparison": ("", "count"),
    "reason": ("sections shape", "example count"),
    "relevant": ("", ""),
    "irrelevant": ("", ""),
    "above": ("label", ""),
    "level": ("label", ""),
    "last": ("", ""),
}
_TAG = re.compile(r"[<＜]\s{0,3}/?\s{0,3}(?:think|answer)\s{0,3}[>＞]", re.IGNORECASE)


class Params(Spec):
    """``explicit``, ``comparison``: which reasoning is written, one of them at least; ``prefill``:
    how the assistant's turn already begins."""

    explicit: bool = True
    comparison: bool = True
    prefill: str = ""


class ExplainFormat:
    """Listwise order of labels behind a line or two about each document.

    Example::

        fmt = formats.make(FormatSpec(name="explain", mode="reason"))
        fmt.parse(text, view).comparisons  # {"d2": "names him", "d1": "below [2] because …"}
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        if spec.mode != "reason":
            raise RecipeError(
                "format explain writes its reasoning",
                where="format.mode",
                expected="reason",
                remedy="use format permutation for the order alone",
            )
        asked = {EXPLICIT: self.params.explicit, COMPARISON: self.params.comparison}
        self.kinds = tuple(kind for kind, wanted in asked.items() if wanted)
        if not self.kinds:
            raise RecipeError(
                "explicit and comparison are both false",
                where="format.params",
                expected="one of them at least",
                remedy="use format permutation for the order alone",
            )
        self.words = wording.load("explain", spec.wording, RULES)
        self.version = self.words.version
        self.prefill = base.check_prefill(spec, self.params.prefill, "<think>\n")

    @property
    def mode(self) -> Mode:
        """``reason``, always."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """One chat that shows all documents of the view in its order."""
        count = len(view.labels)
        best = [*view.labels[1:3], view.labels[0]]
        ranks = {EXPLICIT: sorted(best, key=view.labels.index), COMPARISON: best}
        shape = [
            line
            for kind in self.kinds
            for line in (HEADINGS[kind], *(f"[{label}] ..." for label in ranks[kind]))
        ]
        task = self.words.fill(
            "reason",
            sections=" ".join(self.words.fill(kind, count=count) for kind in self.kinds),
            shape="\n".join(shape),
            example=listing(best),
            count=count,
        )
        messages = base.list_chat(self.words, self.spec, view, task)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the order from the answer, and from the reasoning what it says of each document."""
        tagged = base.read_tags(text, prefill, self.mode)
        reasoning, answer = _parts(tagged, prefill + text)
        docids, issues = read_order(answer, view, len(view.docids), prose=tagged.marked)
        told = read(reasoning, view)
        outcome = base.finish(
            Order(docids=tuple(docids)) if docids else None,
            [*tagged.issues, *issues, *told.issues, *self._faults(told, view, docids)],
            reasoning=reasoning,
            notes=told.found.get(EXPLICIT),
        )
        return replace(outcome, comparisons=told.found.get(COMPARISON, {}))

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """Documents by grade behind the reasoning; ties as ``permutation.best_first`` says.

        Of a reasoning in sections those that are asked for are kept, any other is kept as it is,
        before them. A document without a line gets one made of its grade (``relevant``, ``above
        [1]``), so that every ideal answer keeps the rules.
        """
        order = best_first(self, view, grades)
        told = read(harmless(reasoning), view)
        lines = {EXPLICIT: self._judged(view, grades), COMPARISON: self._compared(view, grades)}
        said = {
            kind: {**lines[kind], **told.found.get(kind, {})} if kind in self.kinds else {}
            for kind in lines
        }
        free = told.free.strip() if not told.found else ""
        composed = compose(view, said[EXPLICIT], said[COMPARISON], order)
        text = f"{free}\n{composed}" if free else composed
        return base.with_reasoning(self.mode, text, listing([view.label(d) for d in order]))

    def grammar(self, view: View) -> Listing:
        """The order of the answer, see ``formats.grammar``; its reasoning is free."""
        return Listing(labels=view.labels, count=len(view.labels))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """The labels shown, in brackets."""
        return tuple(f"[{label}]" for label in view.labels)

    def _faults(self, told: Sections, view: View, order: Sequence[str]) -> list[str]:
        """What is wrong with the sections as a whole."""
        faults = [f"{kind}_unexpected" for kind in told.found if kind not in self.kinds]
        wanted = {EXPLICIT: view.docids, COMPARISON: tuple(order)}
        for kind in self.kinds:
            lines = told.found.get(kind)
            if not lines:
                faults.append(f"no_{kind}")
                continue
            faults += [f"{kind}_missing"] if len(lines) < len(view.docids) else []
            in_place = [docid for docid in wanted[kind] if docid in lines]
            faults += [f"{kind}_order"] if in_place != [d for d in lines if d in in_place] else []
        return faults

    def _judged(self, view: View, grades: Grades) -> dict[str, str]:
        """The line about each document by itself that its grade gives."""
        graded = view.grades(grades)
        return {d: self.words.fill("relevant" if graded[d] else "irrelevant") for d in view.docids}

    def _compared(self, view: View, grades: Grades) -> dict[str, str]:
        """The line about each document and the one below it that their grades give."""
        order, graded = best_first(self, view, grades), view.grades(grades)
        lines = {order[-1]: self.words.fill("last")}
        for upper, lower in zip(order, order[1:], strict=False):
            relation = "level" if graded[upper] == graded[lower] else "above"
            lines[upper] = self.words.fill(relation, label=view.label(lower))
        return lines


def _parts(tagged: Tagged, whole: str) -> tuple[str, str]:
    """Reasoning and answer; a section is reasoning wherever it stands, with or without tags."""
    if has_heading(tagged.answer):
        return _TAG.sub("\n", whole).strip(), ""
    before = _TAG.sub("\n", whole[: tagged.start])
    if not has_heading(tagged.reasoning) and has_heading(before):
        return before.strip(), tagged.answer
    return tagged.reasoning, tagged.answer
