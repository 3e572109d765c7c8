"""Teacher data that somebody else made, as lessons.

``reasons`` reads ReasonToRank-style records (a permutation with reasons for each passage),
``think_chat`` chat samples with ``<think>`` text (lists, pairs, single documents), ``rankgpt``
RankGPT-style permutations without reasoning. Files are JSON lines or one JSON array.

A record that cannot be used never raises: it is counted under a cause, with one example a cause.
Texts stay as they are; formats make them harmless when they write a prompt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl.data.files import lines, sha256
from rank_rl.data.lessons import Lesson
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, Order, Query, Scores, View
from rank_rl.specs.teach import ImportSpec
from rank_rl.teachers import chats
from rank_rl.teachers.chats import Unusable, text_of

IMPORTS = {
    "rankgpt": "rank_rl.teachers.imports:read_rankgpt",
    "reasons": "rank_rl.teachers.imports:read_reasons",
    "think_chat": "rank_rl.teachers.imports:read_think_chat",
}
KINDS = ("listwise", "pairwise", "pointwise")
# Every import may name the model that answered.
COMMON = ("teacher",)

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import gave.

    Attributes:
        lessons: in file order.
        refused: how many records were refused, by cause.
        examples: for every cause, file and line of the first such record and what it says there.
        files: SHA-256 of every file read, by name.
    """

    lessons: tuple[Lesson, ...]
    refused: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_reasons(spec: ImportSpec) -> Imported:
    """Read ``qid query passages permutation reasons scores``; docids are ``qid-1`` ….

    ``direct_reason`` becomes explicit, ``listwise_reason`` comparison reasoning; ``scores`` are
    grades by people, unknown where all are zero. Causes: ``no_query no_passages no_answer
    labels_unknown not_a_permutation no_reasoning bad_scores``.

    Raises:
        DataError: no such file, or a file without JSON objects.
        RecipeError: an unknown parameter.
    """
    _params(spec)
    return _collect(spec, lambda record: _reasons(spec, record))


def read_think_chat(spec: ImportSpec) -> Imported:
    """Read chat samples whose answers follow ``<think>`` text.

    A query's id is a hash of its text, a docid one of the document's: both are recognised across
    samples. Parameters: ``kinds`` keeps only some of listwise, pairwise and pointwise,
    ``max_reasoning_words`` refuses longer reasoning. Causes beside those of ``chats``:
    ``no_reasoning`` (unless the prompt says ``/no_think``), ``long_reasoning``,
    ``kind_not_wanted``, ``duplicate_documents``.

    Raises:
        DataError: no such file, or a file without JSON objects.
        RecipeError: an unknown parameter or value.
    """
    params = _params(spec, "kinds", "max_reasoning_words")
    kinds = params.get("kinds") or list(KINDS)
    most = params.get("max_reasoning_words")
    if not isinstance(kinds, list) or not all(k in KINDS for k in kinds):
        raise RecipeError(f"{kinds!r}", where=_where(spec, "kinds"), expected=f"some of {KINDS}")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise RecipeError(
            f"{most!r}", where=_where(spec, "max_reasoning_words"), expected="1 or more"
        )
    return _collect(spec, lambda record: _think_chat(spec, record, kinds, most))


def read_rankgpt(spec: ImportSpec) -> Imported:
    """Read permutations: conversations, or ``query``, ``passages`` (or ``hits``), ``permutation``.

    A permutation is ``[3, 1, 2]``, counted from 1, or ``"[3] > [1] > [2]"``. Causes: those of
    ``chats``, and ``duplicate_documents``.

    Raises:
        DataError: no such file, or a file without JSON objects.
        RecipeError: an unknown parameter.
    """
    _params(spec)
    return _collect(spec, lambda record: _rankgpt(spec, record))


def _collect(spec: ImportSpec, make: Callable[[Record], Lesson]) -> Imported:
    path = Path(spec.path).expanduser()
    lessons: list[Lesson] = []
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}
    objects = 0
    for where, record in _records(path):
        objects += isinstance(record, dict)
        try:
            if not isinstance(record, dict):
                raise Unusable("not_an_object", str(record))
            lessons.append(make(record))
        except Unusable as error:
            refused[error.cause] += 1
            detail = " ".join(f"{where} {error.detail}".split())
            examples.setdefault(error.cause, detail[: len(where) + 120])
    if not objects:
        raise DataError(
            "no JSON objects", where=str(path), expected="JSON lines, or one array of objects"
        )
    return Imported(
        lessons=tuple(lessons),
        refused=dict(refused),
        examples=examples,
        files={path.name: sha256(path)},
    )


def _records(path: Path) -> Iterator[tuple[str, object]]:
    """The records of a file with their places; of what is not JSON, the text."""
    rows = list(lines(path))
    if rows[0][1].lstrip().startswith("["):
        array = _json("\n".join(line for _, line in rows))
        if isinstance(array, list):
            yield from ((f"{path}:item {i}", item) for i, item in enumerate(array, 1))
            return
    yield from ((where, _json(line)) for where, line in rows)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text[:200]


def _params(spec: ImportSpec, *own: str) -> dict[str, Any]:
    known = (*own, *COMMON)
    for key in spec.params:
        if key not in known:
            raise RecipeError(
                f"unknown key {key!r}",
                where=f"teach.imports: {spec.name}.params",
                expected=f"one of {', '.join(sorted(known))}",
            )
    teacher = spec.params.get("teacher", "")
    if not isinstance(teacher, str):
        raise RecipeError(f"{teacher!r}", where=_where(spec, "teacher"), expected="a name")
    return dict(spec.params)


def _where(spec: ImportSpec, key: str) -> str:
    return f"teach.imports: {spec.name}.params.{key}"


def _reasons(spec: ImportSpec, record: Record) -> Lesson:
    query = _query(record, text_of(record.get("query")))
    texts = _passages(record)
    view = _view(query, [(str(i), f"{query.qid}-{i}", text) for i, text in enumerate(texts, 1)])
    docids = dict(zip(view.labels, view.docids, strict=True))
    chain = _permutation(record)
    answer = chats.ranked(chain, docids)
    items = record.get("reasons")
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    notes = _column(items, "direct_reason", docids)
    comparisons = _column(items, "listwise_reason", docids)
    if not notes and not comparisons:
        raise Unusable("no_reasoning", query.text)
    return _lesson(
        spec,
        view,
        answer,
        notes=notes,
        comparisons=comparisons,
        grades=_scores(record.get("scores"), view),
    )


def _think_chat(spec: ImportSpec, record: Record, kinds: Sequence[str], most: int | None) -> Lesson:
    turns = chats.read_turns(record)
    shown = chats.read_shown(turns.user)
    count = len(shown.documents)
    kind = {1: "pointwise", 2: "pairwise"}.get(count, "listwise")
    if kind not in kinds:
        raise Unusable("kind_not_wanted", kind)
    if not turns.reasoning and not turns.no_think:
        raise Unusable("no_reasoning", turns.answer)
    if most is not None and len(turns.reasoning.split()) > most:
        raise Unusable("long_reasoning", f"{len(turns.reasoning.split())} words")
    view = _view_shown(record, shown)
    if count == 1:
        value = chats.judged(turns.answer)
        if value is None:
            raise Unusable("no_answer", turns.answer)
        answer: Order | Scores = Scores(values={view.docids[0]: value})
    else:
        answer = _chained(turns.answer, view)
    return _lesson(spec, view, answer, reasoning=turns.reasoning, question=kind)


def _rankgpt(spec: ImportSpec, record: Record) -> Lesson:
    if record.get("messages") or record.get("conversations"):
        turns = chats.read_turns(record)
        view = _view_shown(record, chats.read_shown(turns.user))
        answer = _chained(turns.answer, view)
        return _lesson(spec, view, answer, reasoning=turns.reasoning)
    query = _query(record, text_of(record.get("query")))
    texts = _passages(record)
    given = record.get("passages") or record.get("hits")
    ids = [_docid(item, text) for item, text in zip(given or [], texts, strict=True)]
    view = _view(
        query, [(str(i), d, t) for i, (d, t) in enumerate(zip(ids, texts, strict=True), 1)]
    )
    docids = dict(zip(view.labels, view.docids, strict=True))
    return _lesson(spec, view, chats.ranked(_permutation(record), docids))


def _lesson(spec: ImportSpec, view: View, answer: Order | Scores, **more: Any) -> Lesson:
    return Lesson(
        view=view,
        answer=answer,
        teacher=spec.params.get("teacher", ""),
        unit=view.query.qid,
        licence=spec.licence,
        **{"question": spec.name, **more},
    )


def _query(record: Record, text: str) -> Query:
    """A query with the record's own id, or one made of its text."""
    if not text:
        raise Unusable("no_query")
    return Query(qid=_identifier(record.get("qid")) or _hash(text), text=text)


def _view_shown(record: Record, shown: chats.Shown) -> View:
    return _view(
        _query(record, shown.query), [(k, _hash(text), text) for k, text in shown.documents.items()]
    )


def _view(query: Query, documents: Sequence[tuple[str, str, str]]) -> View:
    """The view of documents given as label, docid and text."""
    if len({docid for _, docid, _ in documents}) < len(documents):
        raise Unusable("duplicate_documents", query.text)
    return View(
        query=query,
        candidates=tuple(
            Candidate(docid=docid, text=text, rank=rank)
            for rank, (_, docid, text) in enumerate(documents, 1)
        ),
        labels=tuple(label for label, _, _ in documents),
    )


def _passages(record: Record) -> list[str]:
    items = record.get("passages") or record.get("hits")
    if not isinstance(items, list) or not items:
        raise Unusable("no_passages")
    texts = [_passage(item) for item in items]
    if not all(texts):
        raise Unusable("no_passages", f"passage {texts.index('') + 1} has no text")
    return texts


def _passage(item: object) -> str:
    if isinstance(item, dict):
        return text_of(item.get("content")) or text_of(item.get("text"))
    return text_of(item)


def _docid(item: object, text: str) -> str:
    given = _identifier(item.get("docid")) if isinstance(item, dict) else ""
    return given or _hash(text)


def _identifier(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(value)


def _permutation(record: Record) -> chats.Chain:
    """The record's permutation, a list of numbers from 1 or a chain."""
    value = record.get("permutation")
    if isinstance(value, list) and value:
        labels = [_number(item) for item in value]
        return chats.Chain(groups=tuple((str(label),) for label in labels))
    chain = chats.read_chain(text_of(value))
    if chain is None:
        raise Unusable("no_answer", str(value))
    return chain


def _chained(answer: str, view: View) -> Order | Scores:
    chain = chats.read_chain(answer)
    if chain is None:
        raise Unusable("no_answer", answer)
    return chats.ranked(chain, dict(zip(view.labels, view.docids, strict=True)))


def _column(items: Sequence[Record], key: str, docids: Mapping[str, str]) -> dict[str, str]:
    """What ``items`` say under ``key``, by docid."""
    column: dict[str, str] = {}
    for item in items:
        label = str(_number(item.get("identifier")))
        if label not in docids:
            raise Unusable("labels_unknown", f"a reason for {label} of {len(docids)} documents")
        if text := text_of(item.get(key)):
            column[docids[label]] = text
    return column


def _scores(value: object, view: View) -> dict[str, int] | None:
    """Grades by people, aligned with the passages; None where all are zero or there are none."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != len(view.docids):
        raise Unusable("bad_scores", f"{len(view.docids)} passages, scores {value}")
    grades = [_number(item) for item in value]
    if None in grades:
        raise Unusable("bad_scores", str(value))
    return dict(zip(view.docids, (g or 0 for g in grades), strict=True)) if any(grades) else None


def _number(value: object) -> int | None:
    """A whole number written as one, as ``"2"``, ``"[2]"`` or ``2.0``; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    match = (
        re.fullmatch(r"\s*\[?(-?\d{1,6})(?:\.0)?\]?\s*", value) if isinstance(value, str) else None
    )
    return int(match[1]) if match else None


def _hash(text: str) -> str:
    """The first 12 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
