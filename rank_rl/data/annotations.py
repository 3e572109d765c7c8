"""Reasoning composed from the annotations that people made for a collection.

The source is called "annotations": no language model wrote it ("teacher" where one did: tasks of
``rank-rl teach`` carry a teacher's notes). ``text`` explains a whole view by
its labels, ``each`` judges its documents one by one, ``note`` explains one document. What cannot
be assigned to a document with certainty is left out. Collections without such annotations get
empty reasoning of source "none".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rank_rl.data import hops, proofs
from rank_rl.data.words import shorten
from rank_rl.records import Grades, RankingTask, View

Source = Literal["annotations", "teacher", "none"]
MAX_WORDS = 55
LEAST_WORDS = 7
QUOTED_WORDS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step towards the answer: its number, what it says, and the documents it rests on.

    ``uses`` are earlier steps whose conclusions this one takes.
    """

    number: int
    text: str
    docids: tuple[str, ...] = ()
    uses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """Reasoning about one task: ``steps`` in the annotation's order, ``notes`` by docid."""

    source: Source = "none"
    steps: tuple[Step, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def text(self, view: View) -> str:
        """Explain a view by its labels, in about 50 words; empty when no step concerns it.

        Only steps that rest on a document of the view, or on steps already told, are told. Long
        conclusions are shortened; of a long chain, the first steps are told by labels alone.
        """
        if self.source == "teacher":
            told = (
                (label, self.notes[d]) for label, d in zip(view.labels, view.docids, strict=True)
            )
            return "\n".join(f"[{label}] {note}" for label, note in told if note)
        kept: list[Step] = []
        for step in self.steps:
            known = {s.number for s in kept}
            if any(d in view.docids for d in step.docids) or (
                step.uses and known >= set(step.uses)
            ):
                kept.append(step)
        skipped = 0
        text = _tell(kept, skipped, view)
        while len(text.split()) > MAX_WORDS and len(kept) - skipped > 1:
            skipped += 1
            text = _tell(kept, skipped, view)
        return text

    def each(self, view: View, grades: Grades) -> str:
        """Judge the documents of a view in shown order, one line each.

        A line quotes the document, says whether it is relevant and, of a relevant one, why
        ("explicit reasoning" of ReasoningRank, Ji et al., 2024); empty without annotations.
        """
        if self.source == "none":
            return ""
        lines = []
        for label, candidate in zip(view.labels, view.candidates, strict=True):
            relevant = grades.get(candidate.docid, 0) > 0
            # A teacher says of every document what it lacks; annotations only name what helps.
            told = relevant or self.source == "teacher"
            why = f" {shorten(self.note(candidate.docid), QUOTED_WORDS)}" if told else ""
            verdict = f"Relevant: {'yes' if relevant else 'no'}.{why}"
            lines.append(f"[{label}] {candidate.quote(QUOTED_WORDS)} {verdict}")
        return "\n".join(lines)

    def note(self, docid: str) -> str:
        """Explain one candidate of the task; empty when there are no annotations.

        Raises:
            KeyError: there are annotations, but the document is not among the candidates.
        """
        return "" if self.source == "none" else self.notes[docid]


def reasoning(task: RankingTask) -> Reasoning:
    """Compose reasoning from ``decomposition`` (MuSiQue) or ``proof`` (EntailmentBank) metadata.

    Trivedi et al. (2022) decompose a question into single hops; Dalvi et al. (2021) give a tree
    of facts that entails the answer.
    """
    metadata = task.query.metadata
    if isinstance(known := metadata.get("teacher"), Mapping):
        notes = known.get("explicit") or {}
        if isinstance(notes, Mapping) and notes:
            texts = {d: str(notes.get(d, "")) for d in task.docids}
            return Reasoning(source="teacher", notes=texts)
    if isinstance(text := metadata.get("decomposition"), str):
        return _from_hops(task, text)
    if isinstance(text := metadata.get("proof"), str):
        return _from_proof(task, text, str(metadata.get("hypothesis", "")))
    return Reasoning()


def told(task: RankingTask, view: View, style: str, *, worst: bool = False) -> str:
    """Reasoning before the answer of a whole view.

    Args:
        task: its annotations and grades.
        view: what is shown.
        style: ``annotations`` the steps, ``explicit`` every document, ``scored`` every document
            quoted with its grade, ``none`` nothing.
        worst: the answer will name a document that is not relevant.
    """
    if style == "scored":
        return _scored(view, task.grades or {}, worst)
    known = reasoning(task)
    if style == "explicit":
        return known.each(view, task.grades or {})
    return known.text(view) if style == "annotations" else ""


def _scored(view: View, grades: Grades, worst: bool) -> str:
    """First words and grade of every document, as format scores with ``quote`` writes them.

    The label is repeated behind the grade where the answer may name the document: a model of 135M
    parameters learned to pick what it had just written, not to look a score's label up.
    """
    graded, told = view.grades(grades), []
    for label, candidate in zip(view.labels, view.candidates, strict=True):
        grade = graded[candidate.docid]
        named = f" [{label}]" if (grade == 0) == worst else ""
        told.append(f'"[{label}] {candidate.quote(QUOTED_WORDS)}": {grade}{named}')
    return "{" + ", ".join(told) + "}"


def _from_hops(task: RankingTask, decomposition: str) -> Reasoning:
    parsed = hops.parse(decomposition)
    if not parsed:
        return Reasoning()
    assigned = hops.assign(parsed, task)
    steps = tuple(
        Step(
            number=hop.number,
            text=hop.text,
            docids=tuple(d for d, n in assigned.items() if n == hop.number),
        )
        for hop in parsed
    )
    texts = {hop.number: hop.text for hop in parsed}
    known = {d: f"It answers step {n}: {texts[n]}." for d, n in assigned.items()}
    return Reasoning(source="annotations", steps=steps, notes=_notes(task, known))


def _from_proof(task: RankingTask, proof: str, hypothesis: str) -> Reasoning:
    parsed = proofs.parse(proof, hypothesis)
    if not parsed:
        return Reasoning()
    found = proofs.match(parsed, task)
    steps = tuple(
        Step(number=s.number, text=s.conclusion, docids=found[s.number], uses=s.uses)
        for s in parsed
    )
    known: dict[str, str] = {}
    for step in steps:
        for docid in step.docids:
            known.setdefault(docid, f"It supports: {step.text}.")
    return Reasoning(source="annotations", steps=steps, notes=_notes(task, known))


def _notes(task: RankingTask, known: Mapping[str, str]) -> dict[str, str]:
    """Notes for all candidates: what is known, else only what the grade and the title say."""
    notes: dict[str, str] = {}
    for c in task.candidates:
        relevant = (task.grades or {}).get(c.docid, 0) > 0
        plain = "supports the answer" if relevant else "answers no step"
        subject = f"It is about {c.title} and {plain}." if c.title else f"It {plain}."
        notes[c.docid] = known.get(c.docid, subject)
    return notes


def _tell(steps: Sequence[Step], skipped: int, view: View) -> str:
    """Tell steps as "Step 2: conclusion [3][7] with step 1."; the first ``skipped`` in one phrase.

    What the fixed words leave of the budget is shared, but a conclusion keeps enough words to be
    understood.
    """
    first, rest = steps[:skipped], steps[skipped:]
    cited = _labels([d for s in first for d in s.docids], view)
    name = "Step" if len(first) == 1 else "Steps"
    span = " to ".join(dict.fromkeys(str(s.number) for s in (*first[:1], *first[-1:])))
    opening = f"{name} {span}: {cited}." if cited else ""
    numbers = {s.number for s in rest}
    evidence = []
    for step in rest:
        uses = " and ".join(f"step {n}" for n in step.uses if n in numbers)
        parts = [_labels(step.docids, view), f"with {uses}" if uses else ""]
        evidence.append(" ".join(filter(None, parts)))
    fixed = [opening, *(f"Step 1: {e}" for e in evidence)]
    room = MAX_WORDS - sum(len(f.split()) for f in fixed)
    share = max(LEAST_WORDS, room // max(1, len(rest)))
    if sum(len(s.text.split()) for s in rest) <= room:
        share = room
    told = [
        f"Step {s.number}: {shorten(s.text, share)} {e}".rstrip() + "."
        for s, e in zip(rest, evidence, strict=True)
    ]
    return " ".join(filter(None, [opening, *told]))


def _labels(docids: Sequence[str], view: View) -> str:
    return "".join(f"[{view.label(d)}]" for d in dict.fromkeys(docids) if d in view.docids)
