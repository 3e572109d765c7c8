"""Whatever may hold training data or test queries, as samples for the leak check.

A path is a BEIR folder, tasks, lessons, rows of chats, queries in JSON lines or TSV, or
``bundled:NAME``; each is known by its content. ``PATH:SPLIT`` takes one split of a BEIR folder or
of tasks. Ranking is left out: no first stage runs here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rank_rl.data import beir, lessons, splits, tasks
from rank_rl.data.files import identifier, json_lines, lines, text_field
from rank_rl.data.leak_report import Sample
from rank_rl.data.sources import read_queries
from rank_rl.errors import DataError
from rank_rl.records import Candidate, RankingTask

Part = Literal["train", "test"]
BUNDLED = "bundled:"
QUERIES, LESSONS = "queries.jsonl", "lessons.jsonl"
TEST = "test"
KINDS = "tasks, lessons, rows of chats, queries (JSON lines or id<tab>text) or a BEIR folder"
_TURNS, _USER = ("messages", "conversations"), ("user", "human")
_IDS, _QUERY = ("_id", "qid", "id"), ("text", "query")


def samples(name: str, part: Part) -> Iterator[Sample]:
    """Read a file or folder one example after another.

    Args:
        name: a path, or ``bundled:NAME``; with ``:SPLIT`` one split of it alone.
        part: where splits are known and none is named, ``test`` takes the test split (all of it
            where there are no splits), ``train`` all others (or all).

    Raises:
        DataError: no such file, no such split, or a malformed line.
    """
    path, split = located(name)
    if path.is_dir() and (path / QUERIES).is_file():
        return _of_folder(path, split, part)
    if path.is_dir() and not (path / LESSONS).is_file():
        raise DataError(f"no {QUERIES} and no {LESSONS}", where=str(path), expected=KINDS)
    return _of_file(path / LESSONS if path.is_dir() else path, split, part)


def located(name: str) -> tuple[Path, str | None]:
    """The path that a name stands for, and the split it names.

    Raises:
        DataError: no bundled collection of that name.
    """
    bundled = name.startswith(BUNDLED)
    rest = name.removeprefix(BUNDLED)
    for text, split in ((rest, None), (rest.rpartition(":")[0], rest.rpartition(":")[2])):
        path = beir.bundled_folder(text) if bundled else Path(text).expanduser()
        if text and path.exists():
            return path, split
    if bundled:
        raise DataError(
            f"no bundled collection {rest!r}",
            where=name,
            expected=f"one of {', '.join(beir.bundled_names())}",
        )
    raise DataError("no such file or folder", where=name, expected=KINDS)


def file_of(name: str) -> Path | None:
    """The one file whose lines are the examples of ``samples``; None where there are several."""
    path, split = located(name)
    if path.is_dir():
        found = path / LESSONS
        return found if found.is_file() and not (path / QUERIES).is_file() else None
    return None if split else path


def of_tasks(found: Iterable[RankingTask], source: str) -> Iterator[Sample]:
    """Tasks as samples; what was annotated about a query is text that is trained on."""
    for task in found:
        yield Sample(
            source=source,
            where=task.query.qid,
            qid=task.query.qid,
            query=task.query.text,
            texts=tuple(_strings(task.query.metadata)),
            documents=_relevant(task.grades or {}, {c.docid: c.content for c in task.candidates}),
        )


def without(found: Iterable[Sample], held_out: Iterable[RankingTask]) -> Iterator[Sample]:
    """Samples but for those about a query that is held out, as ``lessons.usable`` takes them."""
    queries = [task.query for task in held_out]
    qids, texts = {q.qid for q in queries}, {splits.normalised(q.text) for q in queries}
    for sample in found:
        if sample.qid not in qids and splits.normalised(sample.query) not in texts:
            yield sample


def query_pairs(path: Path) -> list[tuple[str, str]]:
    """Read (id, text) from BEIR queries, tasks or lessons (JSONL), or ``id<tab>text`` lines.

    A folder stands for its ``queries.jsonl``.

    Raises:
        DataError: no such file, a line without id or text, or without tab.
    """
    path = path / QUERIES if path.is_dir() else path
    if not _is_json(path):
        return [_tsv(where, line) for where, line in lines(path)]
    return [(_qid(record, where), _query(record, where)) for where, record in json_lines(path)]


def _of_file(path: Path, split: str | None, part: Part) -> Iterator[Sample]:
    source = str(path)
    if not _is_json(path):
        for where, line in lines(path):
            qid, text = _tsv(where, line)
            yield Sample(source=source, where=where, qid=qid, query=text)
        return
    records = json_lines(path)
    first = next(records)
    records = itertools.chain([first], records)
    kept = _splits(path, split, part) if "candidates" in first[1] else None
    for where, record in records:
        if kept is None or (record.get("split") or splits.UNSPLIT) in kept:
            yield _of_record(record, where, source, part)


def _of_record(record: Mapping[str, Any], where: str, source: str, part: Part) -> Sample:
    if "docids" in record and "order" in record:
        return _of_lesson(record, where, source)
    if "candidates" in record:
        (sample,) = of_tasks([tasks.read_task(record, where)], source)
        return dataclasses.replace(sample, where=where)
    if any(key in record for key in (*_TURNS, "prompt", "completion")):
        sample = _of_chat(record, where, source)
        # As a test it is what was asked that must not be trained on.
        return dataclasses.replace(sample, query=_asked(record)) if part == "test" else sample
    rest = {k: v for k, v in record.items() if k not in (*_IDS, *_QUERY)}
    return Sample(
        source=source,
        where=where,
        qid=_qid(record, where),
        query=_query(record, where),
        texts=tuple(_strings(rest)),
    )


def _of_lesson(record: Mapping[str, Any], where: str, source: str) -> Sample:
    lesson = lessons.read_lesson(record, where)
    contents = {c.docid: c.content for c in lesson.view.candidates}
    # Without people's grades the teacher's first choice is what is learned to be relevant.
    grades = lesson.grades or dict.fromkeys(lesson.order[:1], 1)
    said = (lesson.reasoning, *lesson.notes.values(), *lesson.comparisons.values())
    chat = [record.get("prompt"), record.get("completion")]
    return Sample(
        source=source,
        where=where,
        qid=lesson.view.query.qid,
        query=lesson.view.query.text,
        texts=tuple(filter(None, (*said, *_strings(chat)))),
        documents=_relevant(grades, contents),
    )


def _of_chat(record: Mapping[str, Any], where: str, source: str) -> Sample:
    """A row of a chat: nobody can tell the query from the words around it."""
    found = [record.get(key) for key in (*_TURNS, "prompt", "completion")]
    texts = tuple(_strings(found))
    if not texts:
        raise DataError("no text", where=where, expected="messages, or prompt and completion")
    qid = record.get("qid")
    known = isinstance(qid, str | int) and not isinstance(qid, bool)
    return Sample(source=source, where=where, qid=str(qid) if known else "", texts=texts)


def _asked(record: Mapping[str, Any]) -> str:
    """The user turns of a chat, or its prompt."""
    turns = next((record[key] for key in (*_TURNS, "prompt") if record.get(key)), "")
    if not isinstance(turns, list):
        return "\n".join(_strings(turns))
    asked = [t for t in turns if isinstance(t, dict) and t.get("role", t.get("from")) in _USER]
    return "\n".join(_strings(asked))


def _of_folder(folder: Path, split: str | None, part: Part) -> Iterator[Sample]:
    files = beir.qrels_files(folder)
    chosen = _chosen(files, split, part, str(folder))
    queries = read_queries(folder / QUERIES)
    judged = {name: beir.read_qrels(files[name]) for name in chosen}
    wanted = {d for by in judged.values() for grades in by.values() for d in _relevant(grades, {})}
    contents = _contents(folder / "corpus.jsonl", wanted)
    for name in chosen:
        for qid, grades in judged[name].items():
            if qid not in queries:
                raise DataError(f"unknown query {qid!r}", where=str(files[name]))
            query = queries[qid]
            yield Sample(
                source=folder.name,  # as the collection of a recipe is called
                where=qid,
                qid=qid,
                query=query.text,
                texts=tuple(_strings(query.metadata)),
                documents=_relevant(grades, contents),
            )


def _contents(corpus: Path, wanted: Collection[str]) -> dict[str, str]:
    """Title and text of some documents; a folder of queries alone has none."""
    if not corpus.is_file():
        return {}
    found = {}
    for where, record in json_lines(corpus):
        docid = identifier(record, ("_id", "id", "docid"), where)
        if docid in wanted:
            text = text_field(record, ("text", "contents"), where)
            title = text_field(record, ("title",), where, default="")
            found[docid] = Candidate(docid=docid, text=text, title=title).content
    return found


def _splits(path: Path, split: str | None, part: Part) -> set[str]:
    """The splits of a file of tasks that are meant; the file is read for it."""
    names = {str(record.get("split") or splits.UNSPLIT): None for _, record in json_lines(path)}
    return set(_chosen(names, split, part, str(path)))


def _chosen(
    available: Collection[str], split: str | None, part: Part, where: str
) -> tuple[str, ...]:
    names = sorted(available)
    if split is not None and split not in names:
        raise DataError(f"no split {split!r}", where=where, expected=f"one of {', '.join(names)}")
    if split is not None or len(names) == 1:
        return (split,) if split else tuple(names)
    if part == "train":
        return tuple(name for name in names if name != TEST)
    if TEST not in names:
        raise DataError(
            f"no split {TEST!r} among {', '.join(names)}",
            where=where,
            remedy=f"name one: {where}:{names[0]}",
        )
    return (TEST,)


def _relevant(grades: Mapping[str, int], contents: Mapping[str, str]) -> dict[str, str]:
    return {docid: contents.get(docid, "") for docid, grade in grades.items() if grade > 0}


def _strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value; of turns of a chat what was said, and not by whom."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, Mapping):
        said = ("content", "value", "reasoning_content")
        keys = [key for key in said if key in value] or list(value)
        for key in keys:
            yield from _strings(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _is_json(path: Path) -> bool:
    _, first = next(lines(path))
    return first.lstrip().startswith("{")


def _qid(record: Mapping[str, Any], where: str) -> str:
    return identifier(record, _IDS, where)


def _query(record: Mapping[str, Any], where: str) -> str:
    return text_field(record, _QUERY, where)


def _tsv(where: str, line: str) -> tuple[str, str]:
    name, tab, text = line.partition("\t")
    if not (tab and name.strip() and text.strip()):
        raise DataError("no query", where=where, expected="id<tab>text, or JSON lines")
    return name.strip(), text.strip()
