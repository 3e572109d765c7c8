"""Queries with candidates out of files: a TREC run, a BEIR folder, or one query a line.

Contract: ranking tasks in the order of the file, each query once, candidates in first-stage order.
Where a file only lists documents, whether that list is an order is for the reranker to say
(``ordered``). Judgements are not needed and not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rank_rl.data import beir, trec
from rank_rl.data.excluded import read_excluded
from rank_rl.data.files import identifier, json_lines, kind, text_field
from rank_rl.data.first_stage import reorder
from rank_rl.data.given import candidate, check_first_stage
from rank_rl.data.sources import Raw, build, read_corpus, read_queries
from rank_rl.data.tasks import read_task
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import DataSpec, FirstStageSpec

QIDS = ("qid", "query_id", "_id", "id")
EVERY = 10**9  # of a run: all that it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a file holds.

    Attributes:
        tasks: what to rank.
        listed: ids of the queries whose documents are only listed, in no known order.
    """

    tasks: tuple[RankingTask, ...]
    listed: frozenset[str] = frozenset()


def read_run_tasks(
    run: Path, corpus: Path, queries: Path, *, depth: int | None
) -> list[RankingTask]:
    """Ranking tasks of a TREC run: its top ``depth`` documents in its order.

    Raises:
        DataError: a missing or malformed file, or a run that names unknown queries or documents.
    """
    known = read_corpus(corpus)
    tsv = kind(queries) in {".tsv", ".txt"}
    asked = (trec.read_queries_tsv if tsv else read_queries)(queries)
    tasks = []
    for qid, pairs in trec.read_run(run).items():
        if qid not in asked:
            raise DataError(f"query {qid!r} is not in {queries}", where=str(run))
        absent = [docid for docid, _ in pairs if docid not in known]
        if absent:
            raise DataError(f"document {absent[0]!r} is not in {corpus}", where=str(run))
        candidates = tuple(
            replace(known[docid], rank=rank, score=score)
            for rank, (docid, score) in enumerate(pairs[:depth], 1)
        )
        tasks.append(RankingTask(query=asked[qid], candidates=candidates, source=str(run)))
    return tasks


def read_beir_tasks(
    folder: Path, *, run: Path | None = None, split: str | None = None, depth: int | None = None
) -> list[RankingTask]:
    """Ranking tasks of a folder in BEIR layout.

    Args:
        folder: ``corpus.jsonl``, ``queries.jsonl``; ``excluded.tsv`` where documents must not be
            ranked for a query.
        run: candidates in their order; without one BM25 orders those of ``candidates.tsv``, or
            retrieves from the corpus where there is no such file.
        split: only the queries that ``qrels/<split>.tsv`` judges; None takes all, of a run those
            that it has.
        depth: the first so many candidates; None is all of a run or of a pool, and 20 of BM25.

    Raises:
        DataError: a missing or malformed file, no such split, or a run that names unknown queries
            or documents.
    """
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), expected="a folder in BEIR layout")
    queries = read_queries(folder / "queries.jsonl")
    found = trec.read_run(run) if run is not None else None
    pool = folder / "candidates.tsv"
    pools = beir.read_pools(pool) if found is None and pool.is_file() else None
    wanted = list(_judged(folder, split) if split is not None else queries)
    if found is not None:
        wanted = [qid for qid in wanted if qid in found]
    if not wanted:
        raise DataError("no queries", where=str(run or folder), expected="at least one query")
    excluded = folder / "excluded.tsv"
    raw = Raw(
        name=str(folder),
        documents=read_corpus(folder / "corpus.jsonl"),
        queries=queries,
        qrels={"": {qid: {} for qid in wanted}},
        pools=pools,
        run=found,
        excluded=read_excluded(excluded) if excluded.is_file() else {},
    )
    most = FirstStageSpec().depth if found is None else EVERY
    first = FirstStageSpec(pool=pools is not None, depth=depth or most)
    built = build(raw, DataSpec(source="beir", first_stage=first))
    return cut((replace(task, grades=None) for task in built.splits[""]), depth)


def read_listed_tasks(path: Path) -> Read:
    """One query a line, with ``documents`` (or ``candidates``: a line of ``data.tasks``).

    ``documents`` are texts or objects with ``text`` (or ``contents``) and optionally ``id``,
    ``title`` and ``score``; ``qid`` (absent: the number of the line) and ``instruction`` may stand
    beside ``query``. Other keys, such as grades, are not read.

    Raises:
        DataError: a malformed line, a query without documents, or a query id that appears twice.
    """
    tasks: dict[str, RankingTask] = {}
    listed = set()
    for where, record in json_lines(path):
        whole = "candidates" in record and "documents" not in record
        task = read_task(record, where) if whole else _listed(record, where)
        qid = task.query.qid
        if qid in tasks:
            raise DataError(f"query id {qid!r} appears twice", where=where)
        tasks[qid] = replace(task, grades=None)
        if not whole:
            listed.add(qid)
    return Read(tasks=tuple(tasks.values()), listed=frozenset(listed))


def ordered(
    read: Read, first_stage: str, misleads: Callable[[Sequence[Candidate]], bool]
) -> list[RankingTask]:
    """The tasks with their candidates in first-stage order.

    Args:
        read: what a file holds.
        first_stage: ``given`` or ``bm25`` for all tasks; ``auto`` is bm25 for those whose documents
            are only listed, where that would mislead the model.
        misleads: whether the order in which documents are listed would mislead it
            (``Ranker.orders``).

    Raises:
        RecipeError: no such first stage.
    """
    check_first_stage(first_stage)

    def bm25(task: RankingTask) -> bool:
        if first_stage != "auto":
            return first_stage == "bm25"
        return task.query.qid in read.listed and misleads(task.candidates)

    pool = FirstStageSpec(pool=True)
    return [reorder([task], pool)[0][0] if bm25(task) else task for task in read.tasks]


def cut(tasks: Any, depth: int | None) -> list[RankingTask]:
    """The tasks with their first ``depth`` candidates; all of them when it is None."""
    return [replace(task, candidates=task.candidates[:depth]) for task in tasks]


def _judged(folder: Path, split: str) -> list[str]:
    files = beir.qrels_files(folder)
    if split not in files:
        raise DataError(
            f"no split {split!r}", where=str(folder), expected=f"one of {', '.join(files)}"
        )
    return list(beir.read_qrels(files[split]))


def _listed(record: Mapping[str, Any], where: str) -> RankingTask:
    documents = record.get("documents")
    if not isinstance(documents, list) or not documents:
        raise DataError("no documents", where=where, expected="a list under 'documents'")
    named = any(record.get(key) is not None for key in QIDS)
    query = Query(
        qid=identifier(record, QIDS, where) if named else where.rpartition(":")[2],
        text=text_field(record, ("query",), where),
        instruction=text_field(record, ("instruction",), where, default="") or None,
    )
    found = tuple(_document(d, i, where) for i, d in enumerate(documents, 1))
    try:
        return RankingTask(query=query, candidates=found)
    except DataError as error:
        raise DataError(
            error.what, where=f"{where}, {error.where}", expected=error.expected
        ) from error


def _document(document: Any, number: int, where: str) -> Candidate:
    at = f"{where}, document {number}"
    if not isinstance(document, str | dict):
        raise DataError(f"is {document!r}", where=at, expected="a text or an object")
    record = {"text": document} if isinstance(document, str) else document
    text = text_field(record, ("text", "contents"), at)
    title = text_field(record, ("title",), at, default="")
    try:
        return candidate({**record, "text": text, "title": title}, number)
    except DataError as error:
        raise DataError(error.what, where=at, expected=error.expected) from error
