"""T2Ranking (Xie et al., 2023, arXiv 2304.03679): Chinese passages with grades from 0 to 3.

A folder as it is published, all files with tabs, with or without a header line:

    collection.tsv               pid  passage
    queries.SPLIT.tsv            qid  query
    qrels.SPLIT.tsv              qid  0  pid  grade           (judgements for reranking)
    qrels.retrieval.SPLIT.tsv    qid  pid                     (with params.retrieval: grade 1)
    SPLIT.mined.tsv              qid  pid  rank  [score]      (first stage; else SPLIT.bm25.tsv)

Of 2.3 million passages and lists of a thousand a query only what is asked for is kept in memory.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rank_rl.data import splits
from rank_rl.data.files import lines, sha256
from rank_rl.data.sources import (
    Raw,
    Run,
    SourceData,
    add_grade,
    add_query,
    build,
    flag,
    params_of,
    required_path,
)
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
PARAMS = ("run", "retrieval", "allow_missing")
HEADERS = ("qid", "pid", "query-id")
Grades = dict[str, dict[str, int]]


def load_folder(spec: DataSpec) -> SourceData:
    """Load the splits of a folder that the recipe names, e.g. ``train`` and ``dev``.

    ``params.run`` maps a split to its first-stage list; with ``first_stage.pool`` and without a
    list BM25 orders the judged passages. Query ids count from 0 in every split: where an id means
    two different queries, all ids are written ``split:id``.

    Raises:
        DataError: a missing folder or file, a malformed line, or a split without a list.
    """
    folder, params = required_path(spec.path, "path"), params_of(spec, PARAMS)
    kind = "qrels.retrieval" if flag(params, "retrieval") else "qrels"
    found = [
        p.name.removeprefix(f"{kind}.").removesuffix(".tsv") for p in folder.glob(f"{kind}.*.tsv")
    ]
    available = sorted(name for name in found if "." not in name)
    if not available:
        raise DataError(f"no {kind}.SPLIT.tsv", where=str(folder), expected="T2Ranking's files")
    parts = [_split(folder, name, kind, spec, params) for name in splits.wanted(spec, available)]
    needed = {d for part in parts for d in part.needed()}
    documents = _collection(folder / "collection.tsv", needed)
    built = [part.build(documents, spec) for part in _apart(parts)]
    facts = {k: v for data in built for k, v in data.provenance.items() if k != "files"}
    files = {name: sha256(path) for part in parts for name, path in sorted(part.raw.files.items())}
    return SourceData(
        name="t2ranking",
        splits={name: tasks for data in built for name, tasks in data.splits.items()},
        provenance={
            **facts,
            "documents": len(documents),
            "files": {**files, "collection": sha256(folder / "collection.tsv")},
        },
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One split; its passages are read when all parts have said which they need."""

    name: str
    raw: Raw

    def needed(self) -> Iterator[str]:
        """Passages that are judged or listed."""
        for by in self.raw.qrels[self.name].values():
            yield from by
        for pairs in (self.raw.run or {}).values():
            yield from (docid for docid, _ in pairs)

    def build(self, documents: Mapping[str, Candidate], spec: DataSpec) -> SourceData:
        """The tasks of this split."""
        return build(dataclasses.replace(self.raw, documents=documents), spec)

    def renamed(self) -> _Part:
        """The same with ``split:id`` for every query id."""
        raw = self.raw
        new = {q: f"{self.name}:{q}" for q in raw.queries}
        return dataclasses.replace(
            self,
            raw=dataclasses.replace(
                raw,
                queries={
                    new[q]: dataclasses.replace(v, qid=new[q]) for q, v in raw.queries.items()
                },
                qrels={self.name: {new[q]: v for q, v in raw.qrels[self.name].items()}},
                run=None if raw.run is None else {new[q]: v for q, v in raw.run.items()},
                pools=None if raw.pools is None else {new[q]: v for q, v in raw.pools.items()},
            ),
        )


def _split(folder: Path, name: str, kind: str, spec: DataSpec, params: Mapping[str, Any]) -> _Part:
    files = {
        f"queries.{name}": folder / f"queries.{name}.tsv",
        f"qrels.{name}": folder / f"{kind}.{name}.tsv",
    }
    texts = _queries(files[f"queries.{name}"])
    grades = _grades(files[f"qrels.{name}"])
    if unknown := sorted(set(grades) - set(texts)):
        raise DataError(
            f"judges query {unknown[0]!r}, which has no text", where=str(files[f"qrels.{name}"])
        )
    queries = {qid: texts[qid] for qid in grades}
    run: Run | None = None
    if (path := _list_file(folder, name, params)) is not None:
        files[f"run.{name}"] = path
        depth = None if spec.first_stage.pool else spec.first_stage.depth
        run = _ranked(path, grades, depth)
    elif not spec.first_stage.pool:
        raise DataError(
            f"no first-stage list for split {name!r}",
            where=str(folder),
            expected=f"{name}.mined.tsv, {name}.bm25.tsv or data.params.run.{name}",
            remedy="data.first_stage.pool: true orders the judged passages",
        )
    raw = Raw(
        name="t2ranking",
        documents={},
        queries=queries,
        qrels={name: grades},
        run=run,
        pools=None if run is not None else {q: tuple(by) for q, by in grades.items()},
        files=files,
        allow_missing=flag(params, "allow_missing"),
    )
    return _Part(name=name, raw=raw)


def _list_file(folder: Path, split: str, params: Mapping[str, Any]) -> Path | None:
    named = params.get("run") or {}
    if not isinstance(named, dict):
        raise DataError(f"{named!r}", where="data.params.run", expected="a file for each split")
    if named.get(split) is not None:
        return required_path(named[split], f"params.run.{split}")
    known = (folder / f"{split}.{kind}.tsv" for kind in ("mined", "bm25"))
    return next((path for path in known if path.is_file()), None)


def _apart(parts: list[_Part]) -> list[_Part]:
    """The parts, with ids of their own where one id means two queries."""
    seen: dict[str, str] = {}
    for part in parts:
        for qid, query in part.raw.queries.items():
            if seen.setdefault(qid, query.text) != query.text:
                logger.info("query ids are written split:id, %r means two queries", qid)
                return [p.renamed() for p in parts]
    return parts


def _rows(path: Path, least: int, most: int, expected: str) -> Iterator[tuple[str, list[str]]]:
    """Cells of every line but a header."""
    for number, (where, line) in enumerate(lines(path)):
        cells = line.split("\t")
        if not number and cells[0].strip().lower() in HEADERS:
            continue
        if not least <= len(cells) <= most or not cells[0].strip():
            raise DataError(f"{len(cells)} columns", where=where, expected=expected)
        yield where, cells


def _queries(path: Path) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for where, (qid, text) in _rows(path, 2, 2, "qid, tab, query"):
        add_query(queries, Query(qid=qid, text=text), where)
    return queries


def _grades(path: Path) -> Grades:
    grades: Grades = {}
    for where, cells in _rows(path, 2, 4, "qid, 0, pid, grade, or qid, pid"):
        if len(cells) == 3:
            raise DataError("3 columns", where=where, expected="qid, 0, pid, grade, or qid, pid")
        docid, grade = (cells[1], "1") if len(cells) == 2 else (cells[2], cells[3])
        add_grade(grades, cells[0], docid, grade, where)
    return grades


def _collection(path: Path, needed: set[str]) -> dict[str, Candidate]:
    documents: dict[str, Candidate] = {}
    for where, cells in _rows(path, 2, 2**31, "pid, tab, passage"):
        docid, text = cells[0], " ".join(cells[1:])  # passages may hold tabs
        if docid in needed:
            if docid in documents:
                raise DataError(f"passage {docid!r} appears twice", where=where)
            documents[docid] = Candidate(docid=docid, text=text)
    return documents


def _ranked(path: Path, queries: Mapping[str, Any], depth: int | None) -> Run:
    """The first ``depth`` passages of each query, by rank; ranks count from 0 or from 1."""
    found: dict[str, dict[str, tuple[int, float]]] = {qid: {} for qid in queries}
    for where, cells in _rows(path, 3, 4, "qid, pid, rank, and a score or none"):
        try:
            rank = int(cells[2])
            score = float(cells[3]) if len(cells) == 4 else -float(rank)
        except ValueError as error:
            raise DataError(f"{cells[2:]!r}", where=where, expected="rank and score") from error
        if not math.isfinite(score):
            raise DataError(f"score {cells[3]!r}", where=where, expected="a finite number")
        if cells[0] in found and (depth is None or rank <= depth):
            if cells[1] in found[cells[0]]:
                raise DataError(f"passage {cells[1]!r} is listed twice", where=where)
            found[cells[0]][cells[1]] = (rank, score)
    ranked = {q: sorted(by, key=lambda d: (by[d][0], d)) for q, by in found.items()}
    return {q: tuple((d, found[q][d][1]) for d in by[:depth]) for q, by in ranked.items()}
