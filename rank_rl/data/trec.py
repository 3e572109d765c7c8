"""TREC files: runs (6 columns), qrels (4 columns), and a collection made of them.

A run is read in the order in which trec_eval evaluates it (``ties``): by score, not by the rank
column. It is written with strictly decreasing scores, so that no tool can break ties in its own
way. Runs may also be JSON (``runs``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rank_rl.data import splits
from rank_rl.data.excluded import read_excluded
from rank_rl.data.files import kind, lines, text_field, write_lines
from rank_rl.data.runs import SUFFIXES, Scored, read_json_run
from rank_rl.data.sources import (
    Raw,
    SourceData,
    add_grade,
    add_query,
    build,
    flag,
    params_of,
    read_corpus,
    read_queries,
    required_path,
)
from rank_rl.data.ties import evaluated_order
from rank_rl.errors import DataError
from rank_rl.records import Query, Ranking
from rank_rl.specs import DataSpec

log = logging.getLogger(__name__)
PARAMS = ("run", "qrels", "corpus", "queries", "excluded", "allow_missing")


def load_files(spec: DataSpec) -> SourceData:
    """Load ``params``: corpus (JSONL), queries (JSONL or TSV), qrels and, optionally, a run.

    ``qrels`` is one file, or a mapping from split name to file. Without a run, BM25 retrieves.
    ``excluded`` names documents that must not be ranked for a query.

    Raises:
        DataError: a missing or malformed file.
    """
    params = params_of(spec, PARAMS)
    files = {key: required_path(params.get(key), f"params.{key}") for key in ("corpus", "queries")}
    for key in ("run", "excluded"):
        if params.get(key) is not None:
            files[key] = required_path(params[key], f"params.{key}")
    qrels_files = _qrels_files(params.get("qrels"))
    chosen = {name: qrels_files[name] for name in splits.wanted(spec, list(qrels_files))}
    files |= {f"qrels.{name}": path for name, path in chosen.items()}
    tsv = kind(files["queries"]) in {".tsv", ".txt"}
    raw = Raw(
        name=spec.path or files["corpus"].parent.name or "trec",
        documents=read_corpus(files["corpus"]),
        queries=(read_queries_tsv if tsv else read_queries)(files["queries"]),
        qrels={name: read_qrels(path) for name, path in chosen.items()},
        run=read_run(files["run"]) if "run" in files else None,
        excluded=read_excluded(files["excluded"]) if "excluded" in files else {},
        files=files,
        allow_missing=flag(params, "allow_missing"),
    )
    return build(raw, spec)


def read_run(path: Path) -> dict[str, tuple[tuple[str, float], ...]]:
    """Read a run as query id → ((docid, score), …), best first; .json and .jsonl as ``runs`` says.

    Raises:
        DataError: a line without six columns, a rank or score that is no finite number, or a
            document listed twice for a query.
    """
    if kind(path) in SUFFIXES:
        return read_json_run(path)
    scores: dict[str, dict[str, float]] = {}
    ranks: dict[str, dict[str, int]] = {}
    for where, line in lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise DataError(
                f"{len(cells)} columns", where=where, expected="qid Q0 docid rank score tag"
            )
        qid, _, docid, rank, score, _ = cells
        try:
            value, position = float(score), int(rank)
        except ValueError as error:
            raise DataError(
                f"rank {rank!r}, score {score!r}", where=where, expected="numbers"
            ) from error
        if not math.isfinite(value):
            raise DataError(f"score {score!r}", where=where, expected="a finite number")
        if docid in scores.setdefault(qid, {}):
            raise DataError(f"document {docid!r} of {qid!r} appears twice", where=where)
        scores[qid][docid] = value
        ranks.setdefault(qid, {})[docid] = position
    found = {qid: tuple((d, own[d]) for d in evaluated_order(own)) for qid, own in scores.items()}
    _say_ties(path, found, ranks)
    return found


def _say_ties(
    path: Path, found: Mapping[str, Scored], ranks: Mapping[str, Mapping[str, int]]
) -> None:
    """Tell when the rank column orders equal scores otherwise than trec_eval does."""
    odd = [
        qid
        for qid, pairs in found.items()
        if any(
            a[1] == b[1] and ranks[qid][a[0]] > ranks[qid][b[0]]
            for a, b in zip(pairs, pairs[1:], strict=False)
        )
    ]
    if odd:
        log.warning(
            "%s: equal scores of %d of %d queries are ordered by document id, as trec_eval does; "
            "the rank column says otherwise",
            path, len(odd), len(found),
        )  # fmt: skip


def write_run(path: Path, rankings: Iterable[Ranking], tag: str, *, scores: bool = False) -> None:
    """Write rankings as a TREC run with strictly decreasing scores (the rank from the end).

    With ``scores`` it holds the rankings' own scores, which may be tied: for use as teacher scores.

    Raises:
        DataError: an id or the tag contains white space, which the format cannot hold.
        StorageError: the file cannot be written.
    """
    rows = []
    for ranking in rankings:
        values = [repr(s) for s in ranking.scores] if scores else []
        values = values or [f"{s:g}" for s in ranking.run_scores()]
        for rank, (docid, value) in enumerate(zip(ranking.docids, values, strict=True), 1):
            cells = [ranking.qid, "Q0", docid, str(rank), value, tag]
            if any(cell.split() != [cell] for cell in cells):
                raise DataError(
                    f"white space in {cells!r}", where=str(path), expected="ids without spaces"
                )
            rows.append(" ".join(cells))
    write_lines(path, rows)


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements (qid, iteration, docid, grade) as query id → docid → grade.

    Raises:
        DataError: a line without four columns or a grade that is not an integer.
    """
    grades: dict[str, dict[str, int]] = {}
    for where, line in lines(path):
        cells = line.split()
        if len(cells) != 4:
            raise DataError(f"{len(cells)} columns", where=where, expected="qid 0 docid grade")
        add_grade(grades, cells[0], cells[2], cells[3], where)
    return grades


def read_queries_tsv(path: Path) -> dict[str, Query]:
    """Read queries from lines of ``qid<TAB>text``.

    Raises:
        DataError: a line without a tab, an empty id or text, or a repeated id.
    """
    queries: dict[str, Query] = {}
    for where, line in lines(path):
        qid, _, text = (part.strip() for part in line.partition("\t"))
        if not qid or not text:
            raise DataError("no query", where=where, expected="qid, tab, text")
        query = Query(qid=qid, text=text_field({"text": text}, ("text",), where))
        add_query(queries, query, where)
    return queries


def _qrels_files(value: Any) -> dict[str, Path]:
    if isinstance(value, dict) and value:
        return {str(k): required_path(v, f"params.qrels.{k}") for k, v in value.items()}
    return {splits.UNSPLIT: required_path(value, "params.qrels")}
