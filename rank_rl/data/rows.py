"""Views as rows for trainers: plain values that Arrow can hold, and the way back.

``group_rows`` are prompts for RL, ``sft_rows`` and ``slot_rows`` add the ideal answer. Every row
carries the whole view and its grades, so that a reward can rebuild both with ``view_of``. Only the
query's metadata does not travel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rank_rl import seeds
from rank_rl.data.annotations import Reasoning, told
from rank_rl.data.lessons import Lesson, as_grades, target, view_columns
from rank_rl.errors import DataError
from rank_rl.formats.base import picks_worst
from rank_rl.records import Candidate, Grades, Message, Order, Pick, Query, RankingTask, View

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.formats.slots import SlotFormat

Row = dict[str, Any]


def group_rows(task: RankingTask, views: Sequence[View], fmt: Format) -> list[Row]:
    """One row a view: ``prompt`` (messages), ``prefill``, ``format`` and the view's columns.

    ``prefill`` is what the assistant's turn begins with; whoever generates must put it there.

    Raises:
        DataError: the task has no grades.
    """
    grades = _grades(task)
    rows = []
    for view in views:
        prompt = fmt.render(view)
        rows.append(_row(view, grades, fmt.version, prompt.messages, prompt.prefill))
    return rows


def sft_rows(
    task: RankingTask, views: Sequence[View], fmt: Format, style: str = "none"
) -> list[Row]:
    """``group_rows`` with ``completion``: the ideal answer, prefill included, as one message.

    Args:
        task: where grades and annotations come from.
        views: one row each.
        fmt: renders the prompt and writes the answer.
        style: the reasoning of mode ``reason``, see ``annotations.told``.

    Raises:
        DataError: the task has no grades.
    """
    rows = group_rows(task, views, fmt)
    for row, view in zip(rows, views, strict=True):
        text = told(task, view, style, worst=picks_worst(fmt)) if fmt.mode == "reason" else ""
        row["completion"] = _assistant(fmt.ideal(view, _grades(task), text), row["prefill"])
    return rows


def slot_rows(
    task: RankingTask,
    views: Sequence[View],
    fmt: SlotFormat,
    reasoning: Reasoning | None = None,
    *,
    seed: int = 0,
    negatives_per_positive: float | None = None,
) -> list[Row]:
    """One row a document: its prompt, and lead, label and note as ``completion``.

    Args:
        task: where the grades come from.
        views: each row's view is one document of these, under its label there.
        fmt: the label-first format.
        reasoning: its notes follow the labels in mode ``reason``.
        seed: run seed; it chooses among the documents that are not relevant.
        negatives_per_positive: most of those for each relevant document of a view (rounded up, at
            least one a view); None keeps all.

    Raises:
        DataError: the task has no grades.
    """
    grades = _grades(task)
    rows = []
    for number, view in enumerate(views):
        lead = fmt.slots(view).lead
        for index in _balanced(view, grades, seed, number, negatives_per_positive):
            one = View(
                query=view.query,
                candidates=(view.candidates[index],),
                labels=(view.labels[index],),
            )
            docid = one.docids[0]
            note = reasoning.note(docid) if reasoning and fmt.mode == "reason" else ""
            row = _row(one, grades, fmt.version, fmt.slot_messages(view, index), lead)
            answer = lead + fmt.ideal_slot(view.grades(grades)[docid], note)
            rows.append({**row, "completion": _assistant(answer, lead)})
    return rows


def lesson_rows(lesson: Lesson, view: View, fmt: Format, *, reason: bool = True) -> list[Row]:
    """What a teacher said about a view, as rows: one, or one a document for label slots.

    Args:
        lesson: answer and reasoning.
        view: the lesson's view, cut to the format's budget.
        fmt: the student's format.
        reason: write the reasoning where the mode has a place for it.
    """
    grades = as_grades(lesson.answer, view)
    if hasattr(fmt, "slot_messages"):
        notes = lesson.notes if reason else {}
        known = Reasoning(source="teacher", notes={d: notes.get(d, "") for d in view.docids})
        task = RankingTask(query=view.query, candidates=view.candidates, grades=grades)
        slots = slot_rows(task, [view], cast("SlotFormat", fmt), known)
        # A document that the teacher did not judge must not be learned as irrelevant.
        return [row for row in slots if row["docids"][0] in _judged(lesson)]
    prompt = fmt.render(view)
    row = _row(view, grades, fmt.version, prompt.messages, prompt.prefill)
    text = target(fmt, lesson, view, reason=reason)
    return [{**row, "completion": _assistant(text, row["prefill"])}]


def _judged(lesson: Lesson) -> Collection[str]:
    answer = lesson.answer
    if isinstance(answer, Pick):
        return lesson.view.docids
    return answer.docids if isinstance(answer, Order) else answer.values


def view_of(row: Mapping[str, Any]) -> tuple[View, dict[str, int]]:
    """Rebuild the view of a row and the grades of its documents.

    Args:
        row: the columns written by this module, as they are or after a stay in Arrow.
    """
    columns = zip(
        row["docids"], row["texts"], row["titles"], row["ranks"], row["scores"], strict=True
    )
    candidates = tuple(
        Candidate(docid=d, text=text, title=title, rank=rank, score=score)
        for d, text, title, rank, score in columns
    )
    query = Query(qid=row["qid"], text=row["query"], instruction=row["instruction"])
    view = View(query=query, candidates=candidates, labels=tuple(row["labels"]))
    return view, dict(zip(row["docids"], row["grades"], strict=True))


def _row(
    view: View, grades: Grades, version: str, messages: Sequence[Message], prefill: str
) -> Row:
    shown = view.grades(grades)
    return {
        "prompt": [dict(message) for message in messages],
        "prefill": prefill,
        "format": version,
        **view_columns(view),
        "scores": [c.score for c in view.candidates],
        "grades": [shown[d] for d in view.docids],
    }


def _assistant(text: str, prefill: str) -> list[dict[str, str]]:
    # Trainers template prompt and completion together, so the completion starts with the prefill.
    whole = text if text.startswith(prefill) else prefill + text
    return [{"role": "assistant", "content": whole}]


def _balanced(view: View, grades: Grades, seed: int, number: int, ratio: float | None) -> list[int]:
    """Indices of the documents to keep, in shown order."""
    shown = view.grades(grades)
    positive = [i for i, d in enumerate(view.docids) if shown[d] > 0]
    negative = [i for i, d in enumerate(view.docids) if shown[d] == 0]
    if ratio is not None:
        most = min(len(negative), max(1, math.ceil(ratio * len(positive))))
        rng = seeds.rng(seed, "negatives", view.query.qid, number)
        negative = rng.sample(negative, most)
    return sorted(positive + negative)


def _grades(task: RankingTask) -> Grades:
    if task.grades is None:
        raise DataError(
            "the task has no grades",
            where=f"query {task.query.qid!r}",
            expected="grades to train on",
        )
    return task.grades
