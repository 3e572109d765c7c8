"""The pointwise format: one document a prompt, graded by a rubric with a whole number, ``2``.

Mode ``answer`` is that number alone; mode ``reason`` puts it between answer tags behind the
reasoning, which is the document's note as well. Issues beyond those of ``tags``: ``non_ascii``,
``grade_spelling`` (more than the number), ``non_integer``, ``out_of_range`` (the number is
clipped), and when nothing can be read ``no_grade`` or ``several_documents``.

A number counts when it is alone on its line or behind a word such as ``Grade:``; a number in prose
never does, and several that differ are no answer.
"""

from __future__ import annotations

import re

from pydantic import Field

from rank_rl.errors import RecipeError
from rank_rl.formats import base, wording
from rank_rl.formats.labels import ascii_form
from rank_rl.records import Grades, Mode, Outcome, Prompt, Scores, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", "max"),
    "user": ("query document instruction task", ""),
    "document": ("hint text", ""),
    "rubric": ("max", ""),
    "reason": ("rubric", "max"),
    "answer": ("rubric", "max"),
}

_BLANK = " \t\r\n"
_STRICT = re.compile(r"[ \t\r\n]*(?P<grade>0|[1-9][0-9]{0,8})[ \t\r\n]*")
_NUMBER = r"(?P<grade>[+-]?[0-9]+(?:\.[0-9]+)?)"
_OUT_OF = r"(?:[ \t]*(?:/|out of)[ \t]*(?P<most>[0-9]{1,9}))?"
_TOLD = r"[ \t]*(?:[:(]|[-–—][ \t])[^\n]*"
_ALONE = re.compile(
    rf"^[ \t*_\"'`(\[]*{_NUMBER}{_OUT_OF}(?:[*_\"'`)\].]*[ \t]*|{_TOLD})$", re.MULTILINE
)
_CALLED = r"(?:(?:grade|score|rating|relevance)[\"'*_`]{0,4}[ \t]*(?:[:=]|\bis\b)|answer[*_]{0,2}:)"
# "a grade: 0 to 3" names a scale, "1.5.2" and "2nd" are no numbers.
_NO_MORE = r"(?![.,]?\d|\w)(?![ \t]*(?:to|or|and|[-–])[ \t]*[0-9])"
_NAMED = re.compile(rf"\b{_CALLED}[ \t*_\"'`(\[]{{0,8}}{_NUMBER}{_NO_MORE}{_OUT_OF}", re.IGNORECASE)


class Params(Spec):
    """``max``: the best grade; ``grade_max``: the judged grade that earns it in ideal answers (when
    null, grades are written as they are, at most ``max``); ``prefill``: how the assistant's turn
    already begins, in mode reason."""

    max: int = Field(default=3, ge=1, le=1000)
    grade_max: int | None = Field(default=None, ge=1)
    prefill: str = ""


class PointwiseFormat:
    """A grade for one document.

    Example::

        fmt = formats.make(FormatSpec(name="pointwise", mode="answer", params={"max": 3}))
        fmt.parse("2", view).answer  # Scores(values={"d1": 2.0})
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.words = wording.load("pointwise", spec.wording, RULES)
        self.version = self.words.version
        _check_rubric(self.words, self.params.max)
        opening = "<think>\n" if spec.mode == "reason" else ""
        self.prefill = base.check_prefill(spec, self.params.prefill, opening)

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
        tagged = base.read_tags(text, prefill, self.mode)
        if len(view.docids) != 1:
            issues = [*tagged.issues, "several_documents"]
            return base.finish(None, issues, reasoning=tagged.reasoning)
        grade, found = _grade(tagged.answer, self.params.max, marked=tagged.marked)
        issues = [*tagged.issues, *found]
        if grade is None:
            return base.finish(None, issues, reasoning=tagged.reasoning)
        docid = view.docids[0]
        return base.finish(
            Scores(values={docid: grade}),
            issues,
            reasoning=tagged.reasoning,
            notes={docid: tagged.reasoning} if tagged.reasoning else {},
        )

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """The document's grade behind the reasoning in its mode.

        Raises:
            RecipeError: the view shows several documents.
        """
        self._only(view)
        grade, most = view.grades(grades)[view.docids[0]], self.params.max
        top = self.params.grade_max or most
        written = int(most * min(grade, top) / top + 0.5)
        return base.with_reasoning(self.mode, reasoning, str(written))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """``0`` … ``max``."""
        return tuple(str(grade) for grade in range(self.params.max + 1))

    def lead(self, view: View) -> str | None:
        """What comes before the grade in mode answer, see ``base.Choices``."""
        return base.label_lead(self.mode, self.prefill)

    def choices(self, view: View) -> tuple[str, ...]:
        """The grades as they follow ``lead``."""
        return base.after_lead(self.label_texts(view), self.lead(view))

    def slot_spans(self, text: str, view: View, *, prefill: str = "") -> dict[str, tuple[int, int]]:
        """Where in ``text`` the characters of the grade stand, ``(start, end)``, by label."""
        tagged = base.read_tags(text, prefill, self.mode)
        match = _find(tagged.answer, self.params.max, marked=tagged.marked)
        if match is None or len(view.docids) != 1:
            return {}
        shift = tagged.start - len(prefill)
        start, end = match.start("grade") + shift, match.end("grade") + shift
        return {view.labels[0]: (start, end)} if start >= 0 else {}

    def _prompt(self, view: View, index: int) -> Prompt:
        most = self.params.max
        task = self.words.fill(self.mode, rubric=self.words.fill("rubric", max=most), max=most)
        shown = base.document(self.words, self.spec, view, index)
        user = self.words.fill("user", document=shown, task=task, **base.question(self.words, view))
        messages = base.chat(self.words.fill("system", max=most), user)
        return Prompt(messages=messages, prefill=self.prefill)

    def _only(self, view: View) -> None:
        if len(view.docids) != 1:
            raise RecipeError(
                f"format pointwise asks one document at a time, not {len(view.docids)}",
                where="format.name",
                remedy="use views of one document: strategy by_score with size 1",
            )


def _grade(answer: str, most: int, *, marked: bool) -> tuple[float | None, list[str]]:
    """The grade that an answer gives, clipped to 0 … ``most``, and what is wrong with it."""
    issues = [] if ascii_form(answer).strip(_BLANK) == answer.strip(_BLANK) else ["non_ascii"]
    match = _find(answer, most, marked=marked)
    if match is None:
        return None, [*issues, "no_grade"]
    if match.re is not _STRICT:
        issues.append("grade_spelling")
    if "." in match["grade"]:
        issues.append("non_integer")
    # A float of many digits is an infinity, which gets clipped; int() would refuse them.
    grade = float(match["grade"])
    if not 0 <= grade <= most:
        issues.append("out_of_range")
    return min(max(grade, 0.0), float(most)), issues


def _find(answer: str, most: int, *, marked: bool) -> re.Match[str] | None:
    """The place of the grade; where not all of the text is answer, only its last line counts."""
    plain = ascii_form(answer)
    strict = _STRICT.fullmatch(plain)
    if strict:
        return strict
    begin = 0 if marked else plain.rstrip(_BLANK).rfind("\n") + 1
    found = [m for p in (_ALONE, _NAMED) for m in p.finditer(plain, begin)]
    found = [m for m in found if m["most"] is None or int(m["most"]) == most]
    return found[-1] if len({float(m["grade"]) for m in found}) == 1 else None


def _check_rubric(words: wording.Wording, most: int) -> None:
    """A rubric must not name grades that do not exist."""
    named = max(map(int, re.findall(r"[0-9]+", words.texts["rubric"])), default=0)
    if named > most:
        raise RecipeError(
            f"max is {most}, but wording {words.version} speaks of grade {named}",
            where="format.params.max",
            expected=f"at least {named}, or another wording",
        )
