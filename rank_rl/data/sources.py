"""What a source reads, checked, and made into ranking tasks with a first-stage order.

``Raw`` holds the parts of a collection as the readers find them; ``build`` takes out what must not
be ranked, checks that the parts fit together and applies the first stage. Splitting is left to
``splits``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl.data import first_stage
from rank_rl.data.excluded import Excluded, Without
from rank_rl.data.files import identifier, json_lines, sha256, some, text_field
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
Qrels = Mapping[str, Mapping[str, int]]
Pools = Mapping[str, tuple[str, ...]]
Run = Mapping[str, tuple[tuple[str, float], ...]]
# Parameters that no source reads but every one allows: for splitting.
COMMON_PARAMS = ("test_share",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceData:
    """Tasks by split name as a source found them, and JSON-safe facts about the files.

    ``validation_split`` is the split that the source's own parameters give for validation.
    """

    name: str
    splits: Mapping[str, tuple[RankingTask, ...]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    validation_split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A collection's parts: documents, queries, judgements by split, and given candidates.

    ``pools`` are candidates without an order, ``run`` are candidates in first-stage order.
    ``excluded`` are documents that must not be ranked for a query (BRIGHT: those that the query
    was made of): they take no place of the first stage and are neither relevant nor unjudged.
    ``files`` maps the name under which a file is reported to its path; ``facts`` are further
    JSON-safe entries of the provenance.
    """

    name: str
    documents: Mapping[str, Candidate]
    queries: Mapping[str, Query]
    qrels: Mapping[str, Qrels]
    pools: Pools | None = None
    run: Run | None = None
    excluded: Excluded = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    allow_missing: bool = False


def build(raw: Raw, spec: DataSpec) -> SourceData:
    """Check that the parts fit together and order each query's candidates by the first stage.

    Raises:
        DataError: judgements or candidates of unknown queries or documents, a query without
            candidates, or a first stage that lacks what it needs.
    """
    raw = _without_excluded(raw)
    missing = _check(raw)
    qids = [qid for qrels in raw.qrels.values() for qid in qrels]
    ordered, description = first_stage.order(
        spec.first_stage,
        documents=raw.documents,
        queries={qid: raw.queries[qid].text for qid in qids},
        pools=_known(raw.pools, raw.documents),
        run=_known_run(raw.run, raw.documents),
        excluded=raw.excluded,
    )
    if raw.excluded:
        description += ", after the excluded documents were taken out"
    if empty := [qid for qid in ordered if not ordered[qid]]:
        raise DataError(
            f"{len(empty)} queries without candidates: {some(empty)}",
            where=raw.name,
            expected="at least one candidate for every judged query",
        )
    tasks = {
        split: tuple(_task(raw, split, qid, ordered[qid]) for qid in qrels)
        for split, qrels in raw.qrels.items()
    }
    provenance = {
        "files": {name: sha256(path) for name, path in sorted(raw.files.items())},
        "documents": len(raw.documents),
        "first_stage": description,
        **missing,
        **raw.facts,
    }
    return SourceData(name=raw.name, splits=tasks, provenance=provenance)


def read_corpus(path: Path) -> dict[str, Candidate]:
    """Read documents from JSONL: ``_id`` (or id, docid), ``text`` (or contents), ``title``.

    Raises:
        DataError: a malformed line or a repeated docid.
    """
    documents: dict[str, Candidate] = {}
    for where, record in json_lines(path):
        docid = identifier(record, ("_id", "id", "docid"), where)
        if docid in documents:
            raise DataError(
                f"docid {docid!r} appears twice", where=where, expected="one line a document"
            )
        documents[docid] = Candidate(
            docid=docid,
            text=text_field(record, ("text", "contents"), where),
            title=text_field(record, ("title",), where, default=""),
        )
    return documents


def read_queries(path: Path) -> dict[str, Query]:
    """Read queries from JSONL: ``_id`` (or id, qid), ``text``, ``instruction``, ``metadata``.

    Raises:
        DataError: a malformed line or a repeated query id.
    """
    queries: dict[str, Query] = {}
    for where, record in json_lines(path):
        qid = identifier(record, ("_id", "id", "qid"), where)
        metadata = record.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise DataError("metadata is not an object", where=where, expected="{…}")
        add_query(
            queries,
            Query(
                qid=qid,
                text=text_field(record, ("text",), where),
                instruction=text_field(record, ("instruction",), where, default="") or None,
                metadata=metadata,
            ),
            where,
        )
    return queries


def add_query(queries: dict[str, Query], query: Query, where: str) -> None:
    """Add a query to ``queries``.

    Raises:
        DataError: its id is already there.
    """
    if query.qid in queries:
        raise DataError(f"query id {query.qid!r} appears twice", where=where)
    queries[query.qid] = query


def add_grade(
    grades: dict[str, dict[str, int]], qid: str, docid: str, grade: str, where: str
) -> None:
    """Add one judgement to ``grades`` (query id → docid → grade).

    Raises:
        DataError: a grade that is no integer, or a second, different grade for the same pair.
    """
    try:
        value = int(grade)
    except ValueError as error:
        raise DataError(f"grade {grade!r}", where=where, expected="an integer") from error
    if grades.setdefault(qid, {}).setdefault(docid, value) != value:
        raise DataError(f"{qid!r} and {docid!r} are judged twice, differently", where=where)


def params_of(spec: DataSpec, allowed: Iterable[str]) -> dict[str, Any]:
    """Return the parameters of a source.

    Raises:
        DataError: a key that the source does not know.
    """
    names = sorted({*allowed, *COMMON_PARAMS})
    for key in spec.params:
        if key not in names:
            raise DataError(
                f"unknown key {key!r}", where="data.params", expected=f"one of {', '.join(names)}"
            )
    return dict(spec.params)


def flag(params: Mapping[str, Any], key: str) -> bool:
    """Return a boolean parameter, false when it is absent.

    Raises:
        DataError: the value is not a boolean.
    """
    value = params.get(key, False)
    if not isinstance(value, bool):
        raise DataError(f"{value!r}", where=f"data.params.{key}", expected="true or false")
    return value


def required_path(value: object, key: str) -> Path:
    """Return a path that a recipe must name.

    Raises:
        DataError: the key is absent or its value is not text.
    """
    if not isinstance(value, str) or not value:
        raise DataError(f"{value!r}", where=f"data.{key}", expected="the path of a file or folder")
    return Path(value).expanduser()


def _without_excluded(raw: Raw) -> Raw:
    """The same without excluded documents among candidates and judgements, which are counted."""
    if not raw.excluded:
        return raw
    if unknown := sorted(set(raw.excluded) - set(raw.queries)):
        raise DataError(
            f"documents are excluded for {len(unknown)} queries that are not in the queries file: "
            f"{some(unknown)}",
            where=raw.name,
        )
    found = Without(raw.excluded)
    pools = None if raw.pools is None else found.pools(raw.pools)
    if raw.run is not None:  # the candidates are these, and are counted alone
        found = Without(raw.excluded)
    run = None if raw.run is None else found.run(raw.run)
    candidates = found.taken
    qrels = {split: found.qrels(judged) for split, judged in raw.qrels.items()}
    counts = {
        "queries": sum(bool(docids) for docids in raw.excluded.values()),
        "documents": sum(map(len, raw.excluded.values())),
        "candidates": candidates,
        "judgements": found.taken - candidates,
    }
    facts = {**raw.facts, "excluded": counts}
    return dataclasses.replace(raw, pools=pools, run=run, qrels=qrels, facts=facts)


def _check(raw: Raw) -> dict[str, int]:
    """Refuse references to unknown queries, and to unknown documents unless they are allowed."""
    judged = [(q, d) for qrels in raw.qrels.values() for q, by in qrels.items() for d in by]
    given = [(q, d) for q, docids in (raw.pools or {}).items() for d in docids]
    given += [(q, d) for q, pairs in (raw.run or {}).items() for d, _ in pairs]
    for kind, pairs in (("qrels", judged), ("candidates", given)):
        unknown = sorted({q for q, _ in pairs} - set(raw.queries))
        if unknown:
            raise DataError(
                f"{kind} name {len(unknown)} queries that are not in the queries file: "
                f"{some(unknown)}",
                where=raw.name,
            )
    return {
        "missing_judged_documents": _absent(raw, "qrels", judged),
        "missing_candidates": _absent(raw, "candidates", given),
    }


def _absent(raw: Raw, kind: str, pairs: Collection[tuple[str, str]]) -> int:
    absent = sorted({d for _, d in pairs if d not in raw.documents})
    message = f"{kind} name {len(absent)} documents that are not in the corpus: {some(absent)}"
    if absent and not raw.allow_missing:
        raise DataError(
            message, where=raw.name, remedy="data.params.allow_missing: true counts and goes on"
        )
    if absent:
        logger.warning("%s: %s", raw.name, message)
    return len(absent)


def _known(pools: Pools | None, documents: Collection[str]) -> Pools | None:
    if pools is None:
        return None
    return {qid: tuple(d for d in docids if d in documents) for qid, docids in pools.items()}


def _known_run(run: Run | None, documents: Collection[str]) -> Run | None:
    if run is None:
        return None
    return {qid: tuple(p for p in pairs if p[0] in documents) for qid, pairs in run.items()}


def _task(raw: Raw, split: str, qid: str, pairs: Iterable[tuple[str, float]]) -> RankingTask:
    return RankingTask(
        query=raw.queries[qid],
        candidates=tuple(
            dataclasses.replace(raw.documents[docid], rank=rank, score=score)
            for rank, (docid, score) in enumerate(pairs, 1)
        ),
        grades=dict(raw.qrels[split][qid]),
        source=raw.name,
        split=split,
    )
