"""The listwise format: one answer orders all documents shown, ``[3] > [1] > [2]``.

Mode ``answer`` is that list alone; mode ``reason`` puts it between answer tags behind the reasoning
(Sun et al., 2023; Liu et al., 2025). Issues beyond those of ``tags`` and ``lists``: ``duplicate``,
``out_of_range``, ``missing``, ``too_long`` and, when nothing can be read, ``no_list``.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rank_rl.formats import base, wording
from rank_rl.formats.lists import LabelSpan, list_spans, read_list
from rank_rl.records import Grades, Mode, Order, Outcome, Prompt, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", ""),
    "user": ("query documents instruction task", "count"),
    "document": ("label hint text", ""),
    "all": ("", "count"),
    "top": ("top", "count"),
    "reason": ("which", "example count"),
    "answer": ("which", "example count"),
}


class Params(Spec):
    """``top``: only so many best documents are asked for (all when null); ``prefill``: how the
    assistant's turn already begins, e.g. ``<think>`` and a line break."""

    top: int | None = Field(default=None, ge=1)
    prefill: str = ""


class PermutationFormat:
    """Listwise order of labels.

    Example::

        fmt = formats.make(FormatSpec(name="permutation", mode="answer"))
        fmt.parse("[2] > [1]", view).answer  # Order(docids=("d2", "d1"))
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.words = wording.load("permutation", spec.wording, RULES)
        self.version = self.words.version
        opening = "<think>\n" if spec.mode == "reason" else "["
        self.prefill = base.check_prefill(spec, self.params.prefill, opening)

    @property
    def mode(self) -> Mode:
        """``reason`` or ``answer``."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """One chat that shows all documents of the view in its order."""
        count = len(view.labels)
        amount = self.words.fill(
            "top" if self._listed(view) < count else "all", top=self._listed(view), count=count
        )
        example = listing([*view.labels[1:3], view.labels[0]][: self._listed(view)])
        task = self.words.fill(self.mode, which=amount, example=example, count=count)
        messages = base.list_chat(self.words, self.spec, view, task)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the order; identifiers count only within the answer, never in the reasoning."""
        tagged = base.read_tags(text, prefill, self.mode)
        docids, found = read_order(tagged.answer, view, self._listed(view), prose=tagged.marked)
        issues = [*tagged.issues, *found]
        answer = Order(docids=tuple(docids)) if docids else None
        return base.finish(answer, issues, reasoning=tagged.reasoning)

    def label_spans(self, text: str, view: View, *, prefill: str = "") -> tuple[LabelSpan, ...]:
        """Where ``text`` writes each place of its list, in the order that ``parse`` reads.

        Empty unless ``parse`` calls the text ok. What was prefilled is no part of ``text``: the
        first span is cut where it begins there.
        """
        if self.parse(text, view, prefill=prefill).status != "ok":
            return ()
        tagged = base.read_tags(text, prefill, self.mode)
        shift = tagged.start - len(prefill)
        return tuple(
            LabelSpan(
                start=max(0, span.start + shift),
                label=max(0, span.label + shift),
                end=max(0, span.end + shift),
            )
            for span in list_spans(tagged.answer)
        )

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """Documents by grade behind the reasoning in its mode; ties as ``best_first`` says."""
        best = best_first(self, view, grades)[: self._listed(view)]
        listed = listing([view.label(docid) for docid in best])
        return base.with_reasoning(self.mode, reasoning, listed)

    def label_texts(self, view: View) -> tuple[str, ...]:
        """The labels shown, in brackets."""
        return tuple(f"[{label}]" for label in view.labels)

    def _listed(self, view: View) -> int:
        """How many documents an answer must list."""
        return min(self.params.top or len(view.labels), len(view.labels))


def best_first(fmt: base.Format, view: View, grades: Grades) -> tuple[str, ...]:
    """Docids of a view by grade.

    Ties stand in first-stage order where the prompt tells it, else in the order shown: a target
    that nothing in the prompt explains would teach guessing.
    """
    graded = view.grades(grades)
    tied = view.by_first_stage() if base.reads_first_stage(fmt) else view.docids
    return tuple(sorted(tied, key=lambda docid: -graded[docid]))


def read_order(answer: str, view: View, wanted: int, *, prose: bool) -> tuple[list[str], list[str]]:
    """Read the documents that an answer lists, each once, and what is wrong with the list.

    Args:
        answer: the answer part of a completion.
        view: the documents shown.
        wanted: how many the answer must list.
        prose: as for ``lists.read_list``.

    Returns:
        docids: best first; empty when there is no list, which is the issue ``no_list``.
        issues: those of ``lists``, ``out_of_range``, ``duplicate``, ``missing``, ``too_long``.
    """
    written, issues = read_list(answer, view.labels, prose=prose)
    found = view.behind(written)
    if len(set(found)) == len(found) == wanted and None not in found:
        return [docid for docid in found if docid is not None], issues
    docids: dict[str, None] = {}
    for docid in found:
        if docid is None:
            issues.append("out_of_range")
        elif docid in docids:
            issues.append("duplicate")
        else:
            docids[docid] = None
    if not docids:
        issues.append("no_list")
    elif len(docids) != wanted:
        issues.append("missing" if len(docids) < wanted else "too_long")
    return list(docids), issues


def listing(labels: Sequence[str]) -> str:
    """An order of labels as an answer writes it, ``[2] > [1]``."""
    return " > ".join(f"[{label}]" for label in labels)
