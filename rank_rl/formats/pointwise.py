"""The pointwise format: one document a prompt, graded by a rubric with a number or a word, ``2``.

Mode ``answer`` is that grade alone. Mode ``reason`` puts it between answer tags behind the
reasoning, or, with ``order: label_first``, first and the reasoning behind it in one line without
tags, ``yes. It names him.`` (RRADistill, 2024, arXiv 2410.18097; see ``notes``). Either is the
document's note as well. Issues beyond those of ``tags``, ``grades`` and ``notes``: ``non_ascii``,
and when nothing can be read ``no_grade`` or ``several_documents``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator

from rank_rl.errors import RecipeError
from rank_rl.formats import base, wording
from rank_rl.formats.grades import Found, Numbers, Scale, Words
from rank_rl.formats.grammar import Fields, one_of
from rank_rl.formats.labels import ascii_form
from rank_rl.formats.notes import read_note, with_note
from rank_rl.formats.tags import Tagged, harmless
from rank_rl.records import Grades, Mode, Outcome, Prompt, Scores, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", "max labels"),
    "user": ("query document instruction task", ""),
    "document": ("hint text", ""),
    "rubric": ("", "max labels"),
    "reason": ("rubric", "max labels"),
    "label_first": ("rubric", "max labels"),
    "answer": ("rubric", "max labels"),
}

_BLANK = " \t\r\n"
_EMPTY = re.compile(r"<think>\s*</think>\s*")


class Params(Spec):
    """``max``: the best grade; ``labels``: words instead of numbers, worst first; ``values``: what
    those are worth (0, 1, … when null); ``grade_max``: the judged grade that earns the best one in
    ideal answers (when null, grades are written as they are, at most the best); ``order``: whether
    the reasoning comes before or after the grade in mode reason; ``prefill``: how the assistant's
    turn already begins, in mode reason with the reasoning first; in mode answer an empty reasoning,
    for models that are shown one before the grade (``<think>\\n\\n</think>\\n\\n``)."""

    max: int = Field(default=3, ge=1, le=1000)
    labels: list[str] | None = Field(default=None, min_length=2)
    values: list[float] | None = None
    grade_max: int | None = Field(default=None, ge=1)
    order: Literal["reason_first", "label_first"] = "reason_first"
    prefill: str = ""

    @field_validator("labels", mode="before")
    @classmethod
    def _quoted(cls, labels: Any) -> Any:
        """YAML reads yes and no as truth values, 0 and 1 as numbers."""
        if not isinstance(labels, list):
            return labels
        if any(isinstance(label, bool) for label in labels):
            raise ValueError("YAML takes yes and no for true and false: put them in quotes")
        return [str(label) if isinstance(label, int) else label for label in labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A completion taken apart: the grade's offsets are in ``prefill + text``."""

    grade: Found | None
    reasoning: str
    issues: tuple[str, ...]
    shift: int


class PointwiseFormat:
    """A grade for one document.

    Attributes:
        values: what the texts of ``label_texts`` are worth, worst first.

    Example::

        fmt = formats.make(FormatSpec(name="pointwise", mode="answer", params={"max": 3}))
        fmt.parse("2", view).answer  # Scores(values={"d1": 2.0})
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.label_first = spec.mode == "reason" and self.params.order == "label_first"
        unused = () if self.label_first else ("label_first",)
        self.words = wording.load("pointwise", spec.wording, RULES, unused=unused)
        self.version = self.words.version
        self.scale = _scale(self.params)
        self.values = self.scale.values
        self._named = _named(self.scale.texts)
        self._task = "label_first" if self.label_first else spec.mode
        _check_rubric(self.words, self.scale, self._task)
        thinks = spec.mode == "reason" and not self.label_first
        self.prefill = self.params.prefill
        if spec.mode == "reason" or not _EMPTY.fullmatch(self.prefill):
            base.check_prefill(spec, self.prefill, "<think>\n" if thinks else "")

    @property
    def mode(self) -> Mode:
        """``reason`` or ``answer``."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """The chat of a view of one document.

        Raises:
            RecipeError: the view shows several; ``prompts`` renders those one by one.
        """
        self._only(view)
        return self._prompt(view, 0)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """One chat a document, in shown order."""
        return tuple(self._prompt(view, i) for i in range(len(view.docids)))

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the grade of the view's one document, never from the reasoning."""
        read = self._read(text, prefill)
        if len(view.docids) != 1:
            issues = [*read.issues, "several_documents"]
            return base.finish(None, issues, reasoning=read.reasoning)
        if read.grade is None:
            return base.finish(None, [*read.issues, "no_grade"], reasoning=read.reasoning)
        docid = view.docids[0]
        return base.finish(
            Scores(values={docid: read.grade.value}),
            read.issues,
            reasoning=read.reasoning,
            notes={docid: read.reasoning} if read.reasoning else {},
        )

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """The document's grade, and the reasoning in its mode.

        Raises:
            RecipeError: the view shows several documents.
        """
        self._only(view)
        grade, most = view.grades(grades)[view.docids[0]], len(self.scale.texts) - 1
        top = self.params.grade_max or most
        label = self.scale.texts[int(most * min(grade, top) / top + 0.5)]
        if self.label_first:
            return with_note(label, harmless(reasoning))
        before = self.prefill if self.mode == "answer" else ""
        return before + base.with_reasoning(self.mode, reasoning, label)

    def grammar(self, view: View) -> Fields:
        """One of the labels, see ``formats.grammar``."""
        return one_of(self.label_texts(view))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """``0`` … ``max``, or the labels, worst first."""
        return self.scale.texts

    def lead(self, view: View) -> str | None:
        """What comes before the grade, see ``base.Choices``; None where the reasoning does."""
        return "" if self.label_first else base.label_lead(self.mode, self.prefill)

    def choices(self, view: View) -> tuple[str, ...]:
        """The grades as they follow ``lead``."""
        return base.after_lead(self.label_texts(view), self.lead(view))

    def slot_spans(self, text: str, view: View, *, prefill: str = "") -> dict[str, tuple[int, int]]:
        """Where in ``text`` the characters of the grade stand, ``(start, end)``, by label."""
        read = self._read(text, prefill)
        if read.grade is None or len(view.docids) != 1:
            return {}
        shift = read.shift - len(prefill)
        start, end = read.grade.start + shift, read.grade.end + shift
        return {view.labels[0]: (start, end)} if start >= 0 else {}

    def _read(self, text: str, prefill: str) -> _Read:
        """Find grade and reasoning, and name what is wrong with them."""
        tagged = self._tagged(text, prefill)
        plain = ascii_form(tagged.answer)
        if self.label_first:
            grade = self.scale.leading(plain)
            head = tagged.answer[: grade.stop] if grade else tagged.answer
            note, found = read_note(tagged.answer[grade.stop :]) if grade else ("", [])
            reasoning = tagged.reasoning or note
        else:
            grade = self.scale.alone(plain, marked=tagged.marked)
            head, reasoning, found = tagged.answer, tagged.reasoning, []
        foreign = [] if ascii_form(head).strip(_BLANK) == head.strip(_BLANK) else ["non_ascii"]
        issues = (*tagged.issues, *foreign, *(grade.issues if grade else ()), *found)
        return _Read(grade=grade, reasoning=reasoning, issues=issues, shift=tagged.start)

    def _tagged(self, text: str, prefill: str) -> Tagged:
        """Reasoning and answer; the empty reasoning of mode answer is no part of the answer."""
        if self.mode == "reason":
            return base.read_tags(text, prefill, "answer" if self.label_first else "reason")
        whole = prefill + text
        begun = len(self.prefill) if whole.startswith(self.prefill) else 0
        tagged = base.read_tags(whole[begun:], "", "answer")
        return replace(tagged, start=tagged.start + begun)

    def _prompt(self, view: View, index: int) -> Prompt:
        named = {"max": self.scale.texts[-1], "labels": self._named}
        task = self.words.fill(self._task, rubric=self.words.fill("rubric", **named), **named)
        shown = base.document(self.words, self.spec, view, index)
        user = self.words.fill("user", document=shown, task=task, **base.question(self.words, view))
        messages = base.chat(self.words.fill("system", **named), user)
        return Prompt(messages=messages, prefill=self.prefill)

    def _only(self, view: View) -> None:
        if len(view.docids) != 1:
            raise RecipeError(
                f"format pointwise asks one document at a time, not {len(view.docids)}",
                where="format.name",
                remedy="use views of one document: strategy by_score with size 1",
            )


def _scale(params: Params) -> Scale:
    """The grades that the parameters name."""
    if params.labels is None:
        if params.values is not None:
            raise RecipeError(
                "values without labels", where="format.params.values", expected="labels as well"
            )
        return Numbers(params.max)
    where = "format.params.labels"
    words = [label.strip() for label in params.labels]
    alike = len({word.lower() for word in words}) < len(words)
    if alike or not all(re.fullmatch(r"\w([^\n\r<>\[\]]*\w)?", word) for word in words):
        raise RecipeError(f"labels {words!r}", where=where, expected="distinct words")
    if "max" in params.model_fields_set:
        raise RecipeError(
            "labels are a scale of their own",
            where="format.params.max",
            remedy="leave max out, or the labels",
        )
    values = params.values or [float(i) for i in range(len(words))]
    if len(values) != len(words) or any(a >= b for a, b in pairwise(values)):
        raise RecipeError(
            f"values {values} for {len(words)} labels",
            where="format.params.values",
            expected="one value a label, each above the one before",
        )
    return Words(words, values)


def _named(texts: Sequence[str]) -> str:
    """The grades as a sentence names them; many numbers as a range."""
    if len(texts) > 11:
        return f"{texts[0]} to {texts[-1]}"
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def _check_rubric(words: wording.Wording, scale: Scale, task: str) -> None:
    """A wording must ask for the grades that exist, and must not name others.

    Raises:
        RecipeError: it does not.
    """
    asked = "\n".join(words.texts[key] for key in ("system", "rubric", task))
    if isinstance(scale, Numbers):
        named = max(map(int, re.findall(r"[0-9]+", words.texts["rubric"])), default=0)
        if named > scale.most:
            raise RecipeError(
                f"max is {scale.most}, but wording {words.version} speaks of grade {named}",
                where="format.params.max",
                expected=f"at least {named}, or another wording",
            )
        fits = named == scale.most or "{max}" in asked or "{labels}" in asked
    else:
        every = all(re.search(rf"(?<!\w){re.escape(x)}(?!\w)", asked) for x in scale.texts)
        fits = every or "{labels}" in asked
    if not fits:
        raise RecipeError(
            f"wording {words.version} does not ask for {_named(scale.texts)}",
            where="format.wording",
            expected="every grade in words, {labels}, or {max} for numbers",
            remedy="use wording words for labels of one's own",
        )
