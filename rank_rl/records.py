"""The typed values that flow through rank_rl; everything else is a function of these.

Contract: frozen, checked on construction, no torch. A label is turned into a docid in exactly one
place, ``View``. An ``Outcome`` is what a parser made of a completion and is never an exception; a
``Ranking`` is total and tie-free. Reading and writing files is left to ``rank_rl.data``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from rank_rl.errors import DataError

Grades = Mapping[str, int]
TeacherScores = Mapping[str, Mapping[str, float]]  # by query id and docid
Mode = Literal["reason", "answer"]
Status = Literal["ok", "repaired", "failed"]
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query with an optional task instruction and free metadata (annotations, answer …)."""

    qid: str
    text: str
    instruction: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document as the first stage returned it; ``rank`` counts from 1."""

    docid: str
    text: str
    title: str = ""
    rank: int = 1
    score: float | None = None

    @property
    def content(self) -> str:
        """Title and text as one string, the form that prompts and BM25 see."""
        return f"{self.title}. {self.text}" if self.title else self.text

    def quote(self, words: int) -> str:
        """The first words as an answer may repeat them: no brackets, quotation marks, colons.

        Nothing of it can be taken for a label, a tag or a token of a chat template.
        """
        plain = "".join(c if c.isalnum() or c in "'-.,%" else " " for c in self.content)
        return " ".join(plain.split()[:words])


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTask:
    """One query, its candidates in first-stage order, and grades where they are known.

    ``grades`` may name documents that were not retrieved: the benchmark's ideal needs them, while
    the ideal of a reward uses only the documents of its view.

    Raises:
        DataError: no candidate, a repeated docid, or a grade that is not an integer.
    """

    query: Query
    candidates: tuple[Candidate, ...]
    grades: Grades | None = None
    source: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        where = f"query {self.query.qid!r}"
        if not self.candidates:
            raise DataError("no candidates", where=where, expected="at least one document")
        seen: set[str] = set()
        for candidate in self.candidates:
            if candidate.docid in seen:
                raise DataError(f"docid {candidate.docid!r} appears twice", where=where)
            seen.add(candidate.docid)
        for docid, grade in (self.grades or {}).items():
            if isinstance(grade, bool) or not isinstance(grade, int):
                raise DataError(f"grade of {docid!r} is {grade!r}", where=where, expected="integer")

    @property
    def docids(self) -> tuple[str, ...]:
        """Docids in first-stage order."""
        return tuple(c.docid for c in self.candidates)


@dataclass(frozen=True, kw_only=True)  # no slots: what rewards ask for per answer is kept
class View:
    """The ordered candidates one prompt shows; the only place where label ↔ docid is resolved.

    Raises:
        DataError: labels and candidates differ in number, or either repeats.
    """

    query: Query
    candidates: tuple[Candidate, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        unique = len(set(self.labels)) == len(self.labels) == len(self.candidates)
        if not unique or len(set(self.docids)) != len(self.docids):
            raise DataError(
                f"{len(self.labels)} labels for {len(self.candidates)} candidates",
                where=f"query {self.query.qid!r}",
                expected="one distinct label for each distinct document",
            )

    @cached_property
    def docids(self) -> tuple[str, ...]:
        """Docids in the order shown."""
        return tuple(c.docid for c in self.candidates)

    def docid(self, label: str) -> str | None:
        """Docid behind a label as the model wrote it, or None when no document bears it."""
        return self._by_label.get(label)

    def behind(self, labels: Iterable[str]) -> list[str | None]:
        """Docids behind labels, as ``docid`` gives them one by one."""
        return list(map(self._by_label.get, labels))

    def label(self, docid: str) -> str:
        """Label under which a document is shown; KeyError when it is not in this view."""
        return self._by_docid[docid]

    def ordered(self, docids: Iterable[str]) -> tuple[str, ...]:
        """All documents of this view: those named, once each, then the others by first stage."""
        named, shown = dict.fromkeys(docids), self._by_docid
        if named.keys() == shown.keys():
            return tuple(named)
        found = [d for d in named if d in shown]
        return (*found, *(d for d in self.by_first_stage() if d not in named))

    def by_first_stage(self) -> tuple[str, ...]:
        """Docids of this view in first-stage order."""
        return self._by_first_stage

    @cached_property
    def _by_label(self) -> dict[str, str]:
        return dict(zip(self.labels, self.docids, strict=True))

    @cached_property
    def _by_docid(self) -> dict[str, str]:
        return dict(zip(self.docids, self.labels, strict=True))

    @cached_property
    def _by_first_stage(self) -> tuple[str, ...]:
        return tuple(c.docid for c in sorted(self.candidates, key=lambda c: (c.rank, c.docid)))

    def grades(self, grades: Grades) -> dict[str, int]:
        """Grade of every document shown, 0 where unjudged or negative."""
        return {d: max(0, grades.get(d, 0)) for d in self.docids}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Chat messages, and text that the assistant's turn already starts with (``prefill``)."""

    messages: tuple[Message, ...]
    prefill: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPrompt:
    """A groupwise prompt with one label slot behind each document (label first, reasoning after).

    Document ``i`` is read as the chat prompt ``head + bodies[i]`` (one user turn) followed by the
    assistant prefill ``lead``; all documents share ``head``, so that a packed pass computes it
    once. At the slot the model says one of ``labels``, each a single token, worth ``values``.
    """

    system: str
    head: str
    bodies: tuple[str, ...]
    lead: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a generator returned for one prompt.

    ``slots`` holds, for a label slot of the answer named by its document label, the
    log-probability of every admissible label text; empty when the generator gives none.
    ``reasoning`` is what a server returned apart from the text (``reasoning_content``);
    ``logprob`` is the sum of the text's token log-probabilities where it was asked for.
    """

    text: str
    finish: Literal["stop", "length", "error"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    slots: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reasoning: str = ""
    logprob: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An answer that lists docids, best first."""

    docids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """An answer that scores docids, higher is better; ties allowed.

    ``unread`` names documents whose own answer could not be read. They keep their first-stage
    positions, whereas a document that an answer merely leaves out comes last.
    """

    values: Mapping[str, float]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """An answer that names one document of those shown: the best one, or the worst.

    It says nothing about the others, which are tied behind a best one, or before a worst one.
    """

    docid: str
    worst: bool = False


Answer = Order | Scores | Pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A parsed completion. ``status`` is ``ok`` only when the text kept every rule of its format.

    ``notes`` holds reasoning about single documents by docid where the format has it (explicit
    reasoning), ``comparisons`` why a document stands where it does (comparison reasoning).
    """

    status: Status
    answer: Answer | None = None
    reasoning: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    comparisons: Mapping[str, str] = field(default_factory=dict)
    issues: tuple[str, ...] = ()

    def as_order(self, view: View) -> tuple[str, ...]:
        """Total order of exactly the documents shown.

        The one completion policy: documents the answer leaves out follow in first-stage order,
        unread ones keep their first-stage positions, tied scores are broken by first-stage rank,
        a picked document stands first (or last) and the others in first-stage order, a failed
        outcome is the first-stage order (the caller counts it).
        """
        if isinstance(self.answer, Order):
            return view.ordered(self.answer.docids)
        base = view.by_first_stage()
        if isinstance(self.answer, Pick) and self.answer.docid in base:
            others = tuple(d for d in base if d != self.answer.docid)
            picked = (self.answer.docid,)
            return (*others, *picked) if self.answer.worst else (*picked, *others)
        if isinstance(self.answer, Scores):
            values, unread = self.answer.values, set(self.answer.unread)
            floor = float("-inf")
            read = [d for d in base if d not in unread]
            following = iter(sorted(read, key=lambda d: -values.get(d, floor)))
            return tuple(d if d in unread else next(following) for d in base)
        return base


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """A total, tie-free order of a task's documents.

    ``scores`` follow the order; ``run_scores`` is the strictly decreasing form for a TREC run.
    """

    qid: str
    docids: tuple[str, ...]
    scores: tuple[float, ...] = ()

    def run_scores(self) -> tuple[float, ...]:
        """Strictly decreasing scores: the rank counted from the end, exact in any file format."""
        return tuple(float(len(self.docids) - i) for i in range(len(self.docids)))

    @classmethod
    def from_scores(cls, task: RankingTask, scores: Mapping[str, float]) -> Ranking:
        """Sort a task's documents by score, ties by first-stage rank."""
        ordered = sorted(task.candidates, key=lambda c: (-scores[c.docid], c.rank))
        return cls(
            qid=task.query.qid,
            docids=tuple(c.docid for c in ordered),
            scores=tuple(float(scores[c.docid]) for c in ordered),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question to a model and what became of it: the record of every trace file."""

    qid: str
    view: View
    prompt: Prompt
    completion: Completion
    outcome: Outcome
    provenance: Mapping[str, Any] = field(default_factory=dict)


def numbered(query: Query, candidates: Sequence[Candidate]) -> View:
    """A view that labels its candidates 1 … n in the order given."""
    labels = tuple(str(i + 1) for i in range(len(candidates)))
    return View(query=query, candidates=tuple(candidates), labels=labels)
