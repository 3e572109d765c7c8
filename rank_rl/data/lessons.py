"""Lessons: a teacher's answers about views, as JSONL or Parquet that ``datasets`` can load.

One lesson is one view, what the teacher answered about it, and its reasoning. In a file every
column about documents is a list in shown order, so that Arrow can hold it; ``prompt`` and
``completion`` are the same in a student's format, for other trainers. Reading gives back what was
written. Asking teachers is left to ``rank_rl.teachers``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.data.files import identifier, json_lines, text_field, write_lines
from rank_rl.data.splits import normalised
from rank_rl.errors import DataError
from rank_rl.records import (
    Answer,
    Candidate,
    Order,
    Outcome,
    Pick,
    Query,
    RankingTask,
    Scores,
    View,
)

if TYPE_CHECKING:
    from rank_rl.formats.base import Format

ALIGNED = ("docids", "labels", "texts", "titles", "ranks")
REQUIRED = ("qid", "query", *ALIGNED, "order", "scores")
# What the lists of a file may hold; all but two are aligned with the documents, if not empty.
_NAMES, _TEXTS, _NUMBERS = (str, int), (str, type(None)), (int, float, type(None))
_LISTS: dict[str, tuple[type, ...]] = {
    **{"docids": _NAMES, "labels": _NAMES, "order": _NAMES, "keys": (str,)},
    **{"texts": (str,), "titles": _TEXTS, "explicit": _TEXTS, "comparison": _TEXTS},
    **{"ranks": (int,), "grades": (int,), "scores": _NUMBERS, "first_stage_scores": _NUMBERS},
}
_OTHER = ("order", "keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a teacher said about a view.

    Attributes:
        view: the documents in the order shown, with their whole texts.
        answer: the teacher's order (best first) or scores (higher is better).
        reasoning: what it wrote before the answer.
        notes: explicit reasoning by docid: how a document addresses the query.
        comparisons: comparison reasoning by docid: why it stands above or below others.
        grades: judgements made by people, by docid, where there are any.
        question: name of the question or of the import.
        teacher: name of the model that answered.
        unit: which query and draw it belongs to, e.g. ``q1`` or ``q1#3``.
        keys: under which its completions are stored.
        licence: of the data it was made from.
    """

    view: View
    answer: Answer
    reasoning: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    comparisons: Mapping[str, str] = field(default_factory=dict)
    grades: Mapping[str, int] | None = None
    question: str = ""
    teacher: str = ""
    unit: str = ""
    keys: tuple[str, ...] = ()
    licence: str = ""

    @property
    def order(self) -> tuple[str, ...]:
        """The documents named by the answer, best first; ties in shown order."""
        if isinstance(self.answer, Order):
            return self.answer.docids
        if isinstance(self.answer, Pick):
            return Outcome(status="ok", answer=self.answer).as_order(self.view)
        values = self.answer.values
        return tuple(sorted((d for d in self.view.docids if d in values), key=lambda d: -values[d]))


def target(fmt: Format, lesson: Lesson, view: View | None = None, *, reason: bool = True) -> str:
    """The assistant text of a format that says what the lesson says.

    Args:
        fmt: the student's format.
        lesson: whose answer and reasoning are written.
        view: the lesson's view cut to a budget; its own when None.
        reason: write the reasoning, where the format's mode has a place for it.
    """
    from rank_rl.formats.explain import compose

    shown = view or lesson.view
    reasoning = lesson.reasoning if reason else ""
    has_notes = bool(lesson.notes or lesson.comparisons)
    if reason and has_notes and (fmt.spec.name == "explain" or not reasoning):
        reasoning = compose(shown, lesson.notes, lesson.comparisons, lesson.order)
    write = getattr(fmt, "write", None)
    if write is not None:
        return str(write(shown, lesson.answer, reasoning))
    return fmt.ideal(shown, as_grades(lesson.answer, shown), reasoning)


def as_grades(answer: Answer, view: View) -> dict[str, int]:
    """Integer grades whose order is the answer's; documents it leaves out get 0."""
    if isinstance(answer, Pick):
        return {d: int((d == answer.docid) != answer.worst) for d in view.docids}
    if isinstance(answer, Order):
        count = len(view.docids)
        return {d: count - i for i, d in enumerate(answer.docids)}
    values = sorted(set(answer.values.values()))
    if all(float(v).is_integer() and v >= 0 for v in values):
        return {d: int(v) for d, v in answer.values.items()}
    return {d: values.index(v) for d, v in answer.values.items()}


def fits(fmt: Format, view: View) -> bool:
    """Whether a format can show so many documents at once (or asks for each by itself)."""
    count = {"pointwise": 1, "pair": 2}.get(fmt.spec.name)
    if count is not None:
        return len(view.docids) == count
    return len(view.docids) > 1 or hasattr(fmt, "slots")


def view_columns(view: View) -> dict[str, Any]:
    """What a view shows, as plain values; columns about documents are lists in shown order."""
    return {
        "qid": view.query.qid,
        "query": view.query.text,
        "instruction": view.query.instruction,
        "docids": list(view.docids),
        "labels": list(view.labels),
        "texts": [c.text for c in view.candidates],
        "titles": [c.title for c in view.candidates],
        "ranks": [c.rank for c in view.candidates],
    }


def as_record(lesson: Lesson, **columns: Any) -> dict[str, Any]:
    """A lesson as a JSON object; ``columns`` (prompt, completion) are added."""
    view = lesson.view
    scores: Mapping[str, float] = {}
    if not isinstance(lesson.answer, Order):  # a pick is told by scores of 1 and 0
        answer = lesson.answer
        scores = answer.values if isinstance(answer, Scores) else as_grades(answer, view)
    return {
        **view_columns(view),
        "first_stage_scores": [c.score for c in view.candidates],
        "order": list(lesson.order),
        "scores": [scores.get(d) for d in view.docids] if scores else [],
        "reasoning": lesson.reasoning,
        "explicit": [lesson.notes.get(d, "") for d in view.docids],
        "comparison": [lesson.comparisons.get(d, "") for d in view.docids],
        "grades": [lesson.grades.get(d, 0) for d in view.docids] if lesson.grades else [],
        "question": lesson.question,
        "teacher": lesson.teacher,
        "unit": lesson.unit,
        "keys": list(lesson.keys),
        "licence": lesson.licence,
        **columns,
    }


def features() -> dict[str, Any]:
    """Types of the columns of ``as_record`` with prompt and completion, for ``datasets``.

    A list that is empty in every row has no type in JSON.
    """
    from datasets import Value

    text, number, whole = Value("string"), Value("float64"), Value("int64")
    record = as_record(Lesson(view=View(query=Query(qid="", text=""), candidates=(), labels=()),
                              answer=Order(docids=())), prompt=[], completion=[])  # fmt: skip
    kinds: dict[str, Any] = {
        name: [text] if value == [] else text for name, value in record.items()
    }
    kinds |= {"ranks": [whole], "grades": [whole], "scores": [number]}
    message = [{"role": text, "content": text}]
    return kinds | {"first_stage_scores": [number], "prompt": message, "completion": message}


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records of lessons, one a line.

    Raises:
        StorageError: the file cannot be written.
    """
    write_lines(path, (json.dumps(record, ensure_ascii=False) for record in records))


def read(path: Path) -> list[Lesson]:
    """Read lessons from JSONL in file order; columns that are not ours are ignored.

    Raises:
        DataError: no such file, a missing column, or columns of different lengths.
    """
    return [read_lesson(record, where) for where, record in json_lines(lesson_file(path))]


def read_lesson(record: Mapping[str, Any], where: str) -> Lesson:
    """Read one lesson from a JSON object; ``where`` is named in errors.

    Raises:
        DataError: a missing column, or columns of different lengths.
    """
    _check(record, where)
    view = _view(record, where)
    unknown = set(map(str, record["order"])) - set(view.docids)
    if unknown:
        raise DataError(
            f"order names {sorted(unknown)[0]!r}", where=where, expected="a docid shown"
        )
    return Lesson(
        view=view,
        answer=_answer(record, view),
        reasoning=record.get("reasoning") or "",
        notes=_by_docid(record, "explicit", view),
        comparisons=_by_docid(record, "comparison", view),
        grades=dict(zip(view.docids, record["grades"], strict=True))
        if record.get("grades")
        else None,
        question=record.get("question") or "",
        teacher=record.get("teacher") or "",
        unit=record.get("unit") or "",
        keys=tuple(record.get("keys") or ()),
        licence=record.get("licence") or "",
    )


def lesson_file(path: Path) -> Path:
    """The file that holds the lessons of a folder, or the file itself.

    Raises:
        DataError: there is no such file.
    """
    found = path / "lessons.jsonl" if path.is_dir() else path
    if not found.is_file():
        raise DataError("no such file", where=str(found), expected="lessons of `rank-rl teach`")
    return found


def usable(
    lessons: Sequence[Lesson],
    fmt: Format,
    held_out: Sequence[RankingTask],
    leaking: Collection[str] = (),
) -> tuple[list[Lesson], dict[str, int]]:
    """Lessons that a format can show and whose query is not held out, and counts of the others.

    ``leaking``: further queries to leave out, ``normalised``; those of ``Collection.leaking``.
    """
    qids = {t.query.qid for t in held_out}
    texts = {normalised(t.query.text) for t in held_out}
    kept, report = [], {"read": len(lessons), "held_out": 0, "not_in_format": 0}
    report |= {"leaking": 0} if leaking else {}
    for lesson in lessons:
        query = lesson.view.query
        if query.qid in qids or normalised(query.text) in texts:
            report["held_out"] += 1
        elif normalised(query.text) in leaking:
            report["leaking"] += 1
        elif not fits(fmt, lesson.view) or not _labels(fmt, lesson):
            report["not_in_format"] += 1
        else:
            kept.append(lesson)
    return kept, report


def _labels(fmt: Format, lesson: Lesson) -> bool:
    """Label slots judge each document by itself, which an order of several does not."""
    return isinstance(lesson.answer, Scores) or not hasattr(fmt, "slots")


def _check(record: Mapping[str, Any], where: str) -> None:
    """Refuse columns that are not there, hold something else, or are of different lengths."""
    for key in REQUIRED:
        if key not in record:
            raise DataError(f"no column {key!r}", where=where, expected=", ".join(REQUIRED))
    for key, kinds in _LISTS.items():
        column = [] if record.get(key) is None and key not in REQUIRED else record[key]
        right = isinstance(column, list) and all(
            isinstance(value, kinds) and not isinstance(value, bool) for value in column
        )
        if not right:
            names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            raise DataError(
                f"column {key!r} is not a list of {names}", where=where, expected="lessons"
            )
    count = len(record["docids"])
    if not count:
        raise DataError("column 'docids' is empty", where=where, expected="documents")
    for key in (k for k in _LISTS if k not in _OTHER):
        size = len(record.get(key) or ())
        if size != count and (size or key in ALIGNED):
            raise DataError(f"column {key!r} does not fit {count} documents", where=where)
    for key in ("reasoning", "question", "teacher", "unit", "licence"):
        if not isinstance(record.get(key) or "", str):
            raise DataError(f"column {key!r} is {record[key]!r}", where=where, expected="text")


def _view(record: Mapping[str, Any], where: str) -> View:
    instruction = text_field(record, ("instruction",), where, default="") or None
    query = Query(
        qid=identifier(record, ("qid",), where),
        text=text_field(record, ("query",), where),
        instruction=instruction,
    )
    labels = tuple(map(str, record["labels"]))
    try:
        return View(query=query, candidates=_candidates(record), labels=labels)
    except DataError as error:
        raise DataError(
            error.what, where=f"{where}, {error.where}", expected=error.expected
        ) from error


def _candidates(record: Mapping[str, Any]) -> tuple[Candidate, ...]:
    scores = record.get("first_stage_scores") or [None] * len(record["docids"])
    columns = zip(
        record["docids"], record["texts"], record["titles"], record["ranks"], scores, strict=True
    )
    return tuple(
        Candidate(docid=str(d), text=text, title=title or "", rank=rank, score=score)
        for d, text, title, rank, score in columns
    )


def _answer(record: Mapping[str, Any], view: View) -> Order | Scores:
    if not record["scores"]:
        return Order(docids=tuple(map(str, record["order"])))
    pairs: Sequence[tuple[str, float | None]] = list(
        zip(view.docids, record["scores"], strict=True)
    )
    return Scores(values={d: float(s) for d, s in pairs if s is not None})


def _by_docid(record: Mapping[str, Any], key: str, view: View) -> dict[str, str]:
    column = record.get(key) or []
    return {d: text for d, text in zip(view.docids, column, strict=False) if text}
