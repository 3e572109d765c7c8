"""The data of the explorer: every query with documents, orders, values and what was answered.

Contract: JSON of one result, texts cut to a length that the caller gives. Documents are numbered
within their query, candidates first in first-stage order, so that an order is a list of numbers.
What is not known is null or absent; the page says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl.bench.diagnosis import describe
from rank_rl.records import Candidate, RankingTask
from rank_rl.report import shape, shown
from rank_rl.report.answered import Answered
from rank_rl.report.reading import Source
from rank_rl.report.safe import shortened

DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How much of a result goes into the page.

    Attributes:
        characters: of each text; None is all of it.
        queries: how many; those on which systems differ most; None is all of them.
    """

    characters: int | None = None
    queries: int | None = None


def data(source: Source, cut: Cut) -> dict[str, Any]:
    """What the explorer of a result shows."""
    systems = source.result["systems"]
    names = [s["name"] for s in systems]
    every = _qids(source)
    kept = _kept(source, every, cut.queries)
    return {
        "label": source.label,
        "metrics": source.result["metrics"],
        "systems": [{"name": s["name"], "asked": bool(s["model"])} for s in systems],
        "baseline": names.index(_baseline(source)),
        "system": names.index(best(source)),
        "characters": cut.characters,
        "of": len(every),
        "notes": source.beside.notes,
        "queries": [_query(source, qid, cut) for qid in kept],
    }


def best(source: Source) -> str:
    """The system that asks a model and has the highest mean, else the last one."""
    asked = [s for s in shape.asked(source.result) if shape.mean(s, source.metric) is not None]
    chosen = max(asked, key=lambda s: shape.mean(s, source.metric) or 0.0, default=None)
    return str((chosen or source.result["systems"][-1])["name"])


def _baseline(source: Source) -> str:
    names = [s["name"] for s in source.result["systems"]]
    named = [n for n in shape.baselines(source.result) if n in names]
    first = shape.first_stage(source.result)
    return named[0] if named else str(first["name"] if first else names[0])


def _qids(source: Source) -> list[str]:
    """All queries, in the order of the tasks."""
    tasks = source.beside.tasks
    found = dict.fromkeys(tasks)
    for by_metric in source.result["per_query"].values():
        for values in by_metric.values():
            found.update(dict.fromkeys(values))
    for system in source.result["systems"] if not found else ():
        found.update(dict.fromkeys(source.beside.orders(system["name"])))
    return list(found)


def _kept(source: Source, qids: Sequence[str], most: int | None) -> Sequence[str]:
    """The queries on which systems differ most, in their order."""
    if most is None or most >= len(qids):
        return qids
    values = [
        by_metric[source.metric]
        for name, by_metric in source.result["per_query"].items()
        if source.metric in by_metric and source.system(name)["model"]
    ]

    def spread(qid: str) -> float:
        found = [v[qid] for v in values if qid in v]
        return max(found) - min(found) if found else 0.0

    chosen = set(sorted(qids, key=lambda q: -spread(q))[:most])
    return [q for q in qids if q in chosen]


def _query(source: Source, qid: str, cut: Cut) -> dict[str, Any]:
    beside = source.beside
    names = [s["name"] for s in source.result["systems"]]
    orders = [beside.orders(name).get(qid) for name in names]
    answers = [beside.answers(name).get(qid) for name in names]
    task = beside.tasks.get(qid)
    documents = _documents(source, qid, orders, answers)
    numbered = {docid: i for i, docid in enumerate(documents)}
    texts = {c.docid: _candidate(c, cut) for c in task.candidates} if task else {}
    slices = source.result["slices"].get(qid) or {}
    found = {
        "id": qid,
        "text": shortened(beside.question(qid), _at_least(cut, 200)),
        "type": str(slices.get("type") or ""),
        "length": str(slices.get("length") or ""),
        "candidates": len(task.candidates) if task else None,
        "judged": bool(task and task.grades is not None),
        "documents": [{**_document(docid, task), **texts.get(docid, {})} for docid in documents],
        "values": [_values(source, name, qid) for name in names],
        "orders": [None if o is None else [numbered[d] for d in o] for o in orders],
        "answers": [None if a is None else _answer(a, numbered, cut) for a in answers],
    }
    if task and task.query.instruction:
        found["instruction"] = shortened(task.query.instruction, cut.characters)
    return found


def _documents(
    source: Source,
    qid: str,
    orders: Iterable[Sequence[str] | None],
    answers: Iterable[Answered | None],
) -> list[str]:
    """Candidates in first-stage order, then what else was ranked or shown."""
    task, first = source.beside.tasks.get(qid), shape.first_stage(source.result)
    known = dict.fromkeys(task.docids if task else ())
    if first is not None:
        known.update(dict.fromkeys(source.beside.orders(first["name"]).get(qid) or ()))
    for order in orders:
        known.update(dict.fromkeys(order or ()))
    for answer in answers:
        known.update(dict.fromkeys(answer.docids if answer else ()))
    return list(known)


def _document(docid: str, task: RankingTask | None) -> dict[str, Any]:
    """A document's id, and its grade if it was judged."""
    found: dict[str, Any] = {"id": shortened(docid, 200)}
    if task is None:
        return found
    if task.grades is not None and docid in task.grades:
        found["grade"] = task.grades[docid]
    return found


def _candidate(candidate: Candidate, cut: Cut) -> dict[str, str]:
    texts = {"text": shortened(candidate.text, cut.characters)}
    if candidate.title:
        texts["title"] = shortened(candidate.title, _at_least(cut, 120))
    return texts


def _values(source: Source, name: str, qid: str) -> list[float | None]:
    """A system's values on a query, one a metric."""
    by_metric = source.result["per_query"].get(name) or {}
    values = [shown.number((by_metric.get(m) or {}).get(qid)) for m in source.result["metrics"]]
    return [None if v is None else round(v, DIGITS) for v in values]


def _answer(answer: Answered, numbered: Mapping[str, int], cut: Cut) -> dict[str, Any]:
    """What was said about a query; empty parts are left out."""

    def texts(by_docid: Mapping[str, str]) -> dict[str, str]:
        return {
            str(numbered[d]): shortened(t, cut.characters)
            for d, t in by_docid.items()
            if d in numbered
        }

    found = {
        "statuses": answer.statuses,
        "issues": {shortened(describe(i), 300): n for i, n in answer.issues.items()},
        "reasoning": [shortened(t, cut.characters) for t in answer.reasoning],
        "notes": texts(answer.notes),
        "comparisons": texts(answer.comparisons),
        "scores": {
            str(numbered[d]): float(f"{v:.4g}") for d, v in answer.scores.items() if d in numbered
        },
        "texts": [shortened(t, cut.characters) for t in answer.texts],
    }
    return {
        **{key: value for key, value in found.items() if value},
        "calls": answer.calls,
        "read": answer.prompt_tokens,
        "written": answer.completion_tokens,
        "seconds": round(answer.seconds, 3),
    }


def _at_least(cut: Cut, least: int) -> int | None:
    """Titles and queries are what a reader finds a query by: they are cut less."""
    return None if cut.characters is None else max(cut.characters, least)
