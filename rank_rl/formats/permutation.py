"""The listwise format: one answer orders all documents shown, ``[3] > [1] > [2]``.

Mode ``answer`` is that list alone; mode ``reason`` puts it between answer tags behind the reasoning
(Sun et al., 2023; Liu et al., 2025). With ``ties`` equally good documents may be joined,
``[3] > [2] = [1]`` (Rank-K, 2025, arXiv 2505.14432), and are then read as equal scores. Issues
beyond those of ``tags`` and ``lists``: ``duplicate``, ``out_of_range``, ``missing``, ``too_long``,
``tie`` (where none is allowed: the order counts as written) and, when nothing can be read,
``no_list``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pydantic import Field

from rank_rl.formats import base, wording
from rank_rl.formats.grammar import Listing
from rank_rl.formats.lists import LabelSpan, list_spans, read_list, tied_tiers, untied
from rank_rl.records import Answer, Grades, Mode, Order, Outcome, Prompt, Scores, View
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
    "ties": ("", ""),
}


class Params(Spec):
    """``top``: only so many best documents are asked for (all when null); ``ties``: whether
    ``[2] = [1]`` may be answered; ``prefill``: how the assistant's turn already begins, e.g.
    ``<think>`` and a line break."""

    top: int | None = Field(default=None, ge=1)
    ties: bool = False
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
        self.words = wording.load(
            "permutation", spec.wording, RULES, unused=() if self.params.ties else ("ties",)
        )
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
        first = [*view.labels[1:3], view.labels[0]][: self._listed(view)]
        example = listing(first)
        if self.params.ties:
            before, last = example.rpartition(" > ")[::2]
            example = f"{before} = {last}" if before else last
        task = self.words.fill(self.mode, which=amount, example=example, count=count)
        task += self.words.fill("ties") if self.params.ties else ""
        messages = base.list_chat(self.words, self.spec, view, task)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the order; identifiers count only within the answer, never in the reasoning."""
        tagged = base.read_tags(text, prefill, self.mode)
        tiers = tied_tiers(tagged.answer)
        listed = untied(tagged.answer) if tiers else tagged.answer
        docids, found = read_order(listed, view, self._listed(view), prose=tagged.marked)
        issues = [*tagged.issues, *found]
        if tiers and not self.params.ties:
            issues.append("tie")
        answer: Answer | None = Order(docids=tuple(docids)) if docids else None
        if tiers and self.params.ties and docids:
            answer = _tied(view, docids, tiers)
        return base.finish(answer, issues, reasoning=tagged.reasoning)

    def label_spans(self, text: str, view: View, *, prefill: str = "") -> tuple[LabelSpan, ...]:
        """Where ``text`` writes each place of its list, in the order that ``parse`` reads.

        Empty unless ``parse`` calls the text ok, and for a list with ties: tied documents have no
        place of their own. What was prefilled is no part of ``text``: the
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
        """Documents by grade behind the reasoning in its mode.

        Equal grades are written as ties where those are allowed, else as ``best_first`` says.
        """
        best = best_first(self, view, grades)[: self._listed(view)]
        if self.params.ties:
            graded = view.grades(grades)
            tiers = [list(tier) for _, tier in groupby(best, key=graded.__getitem__)]
        else:
            tiers = [[docid] for docid in best]
        listed = " > ".join(" = ".join(f"[{view.label(d)}]" for d in tier) for tier in tiers)
        return base.with_reasoning(self.mode, reasoning, listed)

    def grammar(self, view: View) -> Listing:
        """Each label at most once, see ``formats.grammar``; no ties."""
        return Listing(labels=view.labels, count=self._listed(view))

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


def _tied(view: View, docids: Sequence[str], tiers: Sequence[Sequence[str]]) -> Answer:
    """The documents read as equal scores where they are tied, else as the order they are read in.

    Scores are those that an order's places would get (1 for the first document shown, 0 for the
    last, see ``strategies.base.votes``), the mean of its places for a tier: so that answers with
    ties and without can be averaged. Documents left out are the last tier.
    """
    tier_of = {d: i for i, tier in reversed(list(enumerate(tiers))) for d in view.behind(tier)}
    places: dict[int | None, list[int]] = {}
    for place, docid in enumerate(docids):
        places.setdefault(tier_of.get(docid), []).append(place)
    if None in places or len(places) == len(docids):
        return Order(docids=tuple(docids))
    last = max(1, len(view.docids) - 1)
    worth = {tier: 1.0 - sum(found) / len(found) / last for tier, found in places.items()}
    values = {docid: worth[tier_of[docid]] for docid in docids}
    # Places len(docids) … last are those of the documents left out.
    left_out = 1.0 - (len(docids) + last) / 2 / last
    return Scores(values=values | {d: left_out for d in view.docids if d not in values})


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
