"""What the collections on the Hub have in common: parameters, candidates, documents, provenance.

A source reads its queries and judgements into ``Found``; ``collected`` adds the recorded run, keeps
of the corpus what is needed, and builds the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl.data import excluded
from rank_rl.data.excluded import Excluded
from rank_rl.data.hub_tables import (
    Columns,
    HubTables,
    Rows,
    as_id,
    as_ids,
    documents,
    grade,
    hub_id,
)
from rank_rl.data.sources import (
    Qrels,
    Raw,
    Run,
    SourceData,
    add_grade,
    build,
    flag,
    required_path,
)
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.records import Query
from rank_rl.specs import DataSpec

COMMON = ("run", "excluded", "instruction", "revision", "allow_missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Queries, judgements and where the corpus is: ``corpus`` names its configuration and split.

    ``run`` is a recorded run that the data set itself has; ``others`` are further data sets that
    were read, by what they gave.
    """

    name: str
    tables: HubTables
    corpus: tuple[str, str]
    columns: Columns
    queries: Mapping[str, Query]
    qrels: Mapping[str, Qrels]
    excluded: Excluded = field(default_factory=dict)
    run: Run | None = None
    others: Mapping[str, HubTables] = field(default_factory=dict)


def opened(spec: DataSpec, params: Mapping[str, Any], default: str | None = None) -> HubTables:
    """The data set that a recipe names, or ``default``.

    Raises:
        DataError: it names none and there is no default, or the path is none.
    """
    path = spec.path or default
    if not path:
        raise DataError(
            "no data set", where="data.path", expected="owner/name on the Hub, or a folder"
        )
    return HubTables(path, text_param(params, "revision"))


def collected(found: Found, spec: DataSpec, params: Mapping[str, Any]) -> SourceData:
    """Add candidates and documents to what a source found, and build its tasks.

    ``params.run`` goes before a run of the data set. Without either, BM25 reads the corpus.

    Raises:
        DataError: a missing or malformed file or table, or parts that do not fit together.
    """
    files: dict[str, Path] = {}
    run, out = found.run, found.excluded
    if params.get("run") is not None:
        files["run"] = required_path(params["run"], "params.run")
        run = as_ids(read_run(files["run"]))
    if params.get("excluded") is not None:
        files["excluded"] = required_path(params["excluded"], "params.excluded")
        named = excluded.read_excluded(files["excluded"])
        out = excluded.joined(out, {as_id(q): frozenset(map(as_id, by)) for q, by in named.items()})
    columns = found.columns
    rows = found.tables.rows(*found.corpus, [columns.key, columns.text], [columns.title])
    texts = documents(rows, columns, _wanted(run, found.qrels, spec))
    data_sets = {"dataset": found.tables, **found.others}
    raw = Raw(
        name=found.name,
        documents=texts,
        queries=found.queries,
        qrels=found.qrels,
        run=run,
        excluded=out,
        files={**files, **{k: p for t in data_sets.values() for k, p in t.files.items()}},
        facts={name: tables.facts() for name, tables in data_sets.items()},
        allow_missing=flag(params, "allow_missing"),
    )
    return build(raw, spec)


def judgements(
    rows: Rows, query: str = "query-id", document: str = "corpus-id"
) -> dict[str, dict[str, int]]:
    """Grades from rows of query id, docid and, where there is one, ``score``; 1 without.

    Raises:
        DataError: a row without ids, a grade that is no integer, or two for one pair.
    """
    grades: dict[str, dict[str, int]] = {}
    for where, row in rows:
        value = grade(row.get("score", 1), where)
        add_grade(grades, hub_id(row, query, where), hub_id(row, document, where), value, where)
    return grades


def text_param(params: Mapping[str, Any], key: str) -> str | None:
    """A parameter that is text, or None where it is absent.

    Raises:
        DataError: another kind of value.
    """
    value = params.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise DataError(f"{value!r}", where=f"data.params.{key}", expected="text")
    return value


def _wanted(run: Run | None, qrels: Mapping[str, Qrels], spec: DataSpec) -> frozenset[str] | None:
    """Documents that are needed; None where BM25 takes its statistics from the whole corpus."""
    if run is None or (spec.first_stage.name == "bm25" and spec.first_stage.pool):
        return None
    listed = {docid for by in run.values() for docid, _ in by}
    return frozenset(listed | {d for of in qrels.values() for by in of.values() for d in by})
