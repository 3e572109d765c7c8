"""The groupwise format: one integer for each document shown, ``{"[1]": 7, "[2]": 0}``.

After GroupRank (2025). Mode ``answer`` is that JSON object alone, in shown order; mode ``reason``
puts it between answer tags behind the reasoning. Issues are those of ``tags`` and ``objects`` and,
when nothing can be read, ``no_scores``. Ties stay ties: what they are worth is a reward's business.

With ``quote``, each score stands behind the first words of its document, ``{"[1] stars make
light": 7}``: a small model then judges what it has just read instead of looking it up by number.
A quotation that is not the document's is the issue ``quote``.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rank_rl.formats import base, wording
from rank_rl.formats.grammar import Fields
from rank_rl.formats.objects import read_scores, spans
from rank_rl.records import Grades, Mode, Outcome, Prompt, Scores, View
from rank_rl.specs import FormatSpec, Spec

RULES: wording.Rules = {
    **base.COMMON_RULES,
    "system": ("", "max"),
    "user": ("query documents instruction task", "count max"),
    "document": ("label hint text", ""),
    "reason": ("max", "example count"),
    "answer": ("max", "example count"),
}


class Params(Spec):
    """``max``: the best score; ``grade_max``: the grade that earns it in ideal answers (when null
    the largest of the view, so that the best documents of every view earn it, whatever their
    grade); ``quote``: how many words of a document are repeated before its score; ``prefill``: how
    the assistant's turn already begins."""

    max: int = Field(default=10, ge=1, le=1000)
    grade_max: int | None = Field(default=None, ge=1)
    quote: int = Field(default=0, ge=0, le=100)
    prefill: str = ""


class ScoresFormat:
    """Groupwise integer scores.

    Example::

        fmt = formats.make(FormatSpec(name="scores", mode="answer", params={"max": 10}))
        fmt.parse('{"[1]": 7, "[2]": 0}', view).answer  # Scores(values={"d1": 7.0, "d2": 0.0})
    """

    def __init__(self, spec: FormatSpec) -> None:
        self.spec = spec
        self.params = base.read_params(Params, spec)
        self.words = wording.load("scores", spec.wording, RULES)
        self.version = self.words.version
        opening = "<think>\n" if spec.mode == "reason" else '{"['
        self.prefill = base.check_prefill(spec, self.params.prefill, opening)
        self._last: tuple[View, dict[str, str]] | None = None

    @property
    def mode(self) -> Mode:
        """``reason`` or ``answer``."""
        return self.spec.mode

    def render(self, view: View) -> Prompt:
        """One chat that shows all documents of the view in its order."""
        numbers = {"count": len(view.labels), "max": self.params.max}
        more = ", …" if len(view.labels) > 2 else ""
        told = " its first words" if self.params.quote else ""
        example = ", ".join(f'"[{label}]{told}": score' for label in view.labels[:2])
        task = self.words.fill(self.mode, example=f"{{{example}{more}}}", **numbers)
        messages = base.list_chat(self.words, self.spec, view, task, max=self.params.max)
        return Prompt(messages=messages, prefill=self.prefill)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The one chat of the view."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """Read the scores; documents without one are left out of the answer."""
        tagged = base.read_tags(text, prefill, self.mode)
        scores, issues = read_scores(tagged.answer, self._keys(view), self.params.max)
        issues = [*tagged.issues, *issues]
        if not scores:
            return base.finish(None, [*issues, "no_scores"], reasoning=tagged.reasoning)
        docids = view.docids
        if tuple(scores) != view.labels:
            by_label = dict(zip(view.labels, view.docids, strict=True))
            docids = tuple(by_label[label] for label in scores)
        values = dict(zip(docids, scores.values(), strict=True))
        return base.finish(Scores(values=values), issues, reasoning=tagged.reasoning)

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """Grades spread over 0 … max as integers, in shown order, behind the reasoning."""
        graded = view.grades(grades)
        top = self.params.grade_max or max(graded.values()) or 1
        scores = [int(self.params.max * min(graded[d], top) / top + 0.5) for d in view.docids]
        return base.with_reasoning(self.mode, reasoning, self.written(view, scores))

    def written(self, view: View, scores: Sequence[int | str]) -> str:
        """The answer that gives these scores, one a document in shown order."""
        pairs = zip(self._keys(view).values(), scores, strict=True)
        listed = ", ".join(f'"{key}": {score}' for key, score in pairs)
        return f"{{{listed}}}"

    def grammar(self, view: View) -> Fields:
        """A score for each document, see ``formats.grammar``."""
        keys = [f'"{key}": ' for key in self._keys(view).values()]
        texts = (f"{{{keys[0]}", *(f", {key}" for key in keys[1:]), "}")
        return Fields(texts=texts, choices=self.label_texts(view))

    def label_texts(self, view: View) -> tuple[str, ...]:
        """``0`` … ``max``, the same for every document."""
        return tuple(str(score) for score in range(self.params.max + 1))

    def slot_spans(self, text: str, view: View, *, prefill: str = "") -> dict[str, tuple[int, int]]:
        """Where in ``text`` the characters of each label's score stand, ``(start, end)``.

        The probability of every admissible text at these slots gives the expected score.
        """
        tagged = base.read_tags(text, prefill, self.mode)
        shift = tagged.start - len(prefill)
        found = spans(tagged.answer, self._keys(view))
        return {
            label: (start + shift, end + shift)
            for label, (start, end) in found.items()
            if start + shift >= 0
        }

    def _keys(self, view: View) -> dict[str, str]:
        """The key of each label in an answer; the answers to a view come one after another."""
        if self._last is not None and self._last[0] is view:
            return self._last[1]
        words = self.params.quote
        pairs = zip(view.labels, view.candidates, strict=True)
        keys = {x: f"[{x}] {c.quote(words)}".rstrip() if words else f"[{x}]" for x, c in pairs}
        self._last = (view, keys)
        return keys
