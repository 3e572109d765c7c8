"""Any collection of ir_datasets (MacAvaney et al., 2021), by its id.

Queries, judgements and, where it has them, scored documents as the recorded first stage. Of the
corpus only what is listed or judged is fetched, unless BM25 has to search it. ir_datasets downloads
what it needs into ``IR_DATASETS_HOME``; files that are there already are used as they are.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rank_rl import registry
from rank_rl.data import splits
from rank_rl.data.excluded import Excluded, Without, joined, read_excluded, same_ids
from rank_rl.data.files import some
from rank_rl.data.hub_collections import text_param
from rank_rl.data.known import excludes_itself
from rank_rl.data.sources import (
    Pools,
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
from rank_rl.data.ties import evaluated_order
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Query
from rank_rl.specs import DataSpec

logger = logging.getLogger(__name__)
COMMON = ("run", "excluded", "instruction", "allow_missing")
PARAMS = ("exclude_same_id", *COMMON)
LARGE = 2_000_000  # documents, from which on BM25 in memory is worth a warning


def load(spec: DataSpec) -> SourceData:
    """Load the collection whose id is ``spec.path``, e.g. ``beir/scifact/test``.

    All of its judged queries are test queries. Candidates are those of ``params.run``, else the
    collection's scored documents, else what BM25 finds. ``exclude_same_id``: see
    ``known.excludes_itself``.

    Raises:
        RecipeError: ir_datasets is not installed.
        DataError: no such id, files that cannot be had, or parts that do not fit together.
    """
    if not spec.path:
        raise DataError("no id", where="data.path", expected="an id of ir_datasets")
    return load_id(spec.path, spec, params_of(spec, PARAMS))


def load_id(name: str, spec: DataSpec, params: Mapping[str, Any]) -> SourceData:
    """Load one collection of ir_datasets; see ``load``.

    Queries of a run that nobody judged are left out and counted. A run is cut to its depth before
    texts are fetched: where one is missing, nothing takes its place.
    """
    dataset = _opened(name)
    instruction = text_param(params, "instruction")
    with _reading(name):
        qrels = _qrels(dataset, name)
        queries = _queries(dataset, name, frozenset(qrels), instruction)
        files = _files(dataset)
        run, pools = _scored(dataset, qrels) if params.get("run") is None else (None, None)
    if params.get("run") is not None:
        files["run"] = required_path(params["run"], "params.run")
        run = read_run(files["run"])
    if pools is not None and not spec.first_stage.pool:
        raise DataError(
            "its scored documents have no scores, so that their order means nothing",
            where=name,
            expected="params.run, or first_stage: {name: bm25, pool: true}",
        )
    out: Excluded = same_ids(queries) if excludes_itself(name, params) else {}
    if params.get("excluded") is not None:
        files["excluded"] = required_path(params["excluded"], "params.excluded")
        out = joined(out, read_excluded(files["excluded"]))
    unjudged = len(set(run or {}) - set(qrels))
    run = None if run is None else _cut({q: by for q, by in run.items() if q in qrels}, out, spec)
    with _reading(name):
        listed = [d for by in (run or {}).values() for d, _ in by]
        listed += [d for by in (pools or {}).values() for d in by]
        documents = _documents(dataset, name, listed, qrels) if listed else _corpus(dataset, name)
    raw = Raw(
        name=name,
        documents=documents,
        queries=queries,
        qrels={splits.UNSPLIT: qrels},
        run=run,
        pools=pools,
        excluded={q: by for q, by in out.items() if q in qrels},
        files=files,
        facts={"dataset": {"ir_datasets": name, "version": _version()}, "unjudged": unjudged},
        allow_missing=flag(params, "allow_missing"),
    )
    return build(raw, spec)


def _opened(name: str) -> Any:
    library = registry.need("ir_datasets", "collections")
    try:
        dataset = library.load(name)
    except KeyError as error:
        near = registry.nearest(name, list(library.registry))
        raise DataError(
            f"no collection {name!r} in ir_datasets", where="data.path", remedy=near
        ) from error
    for kind in ("docs", "queries", "qrels"):
        if not dataset.has(kind):
            more = [n for n in library.registry if n.startswith(f"{name}/")]
            raise DataError(
                f"has no {kind}",
                where=name,
                expected=f"{some(more)}" if more else f"one with {kind}",
            )
    return dataset


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Make one line of whatever a download or a parser of ir_datasets raises."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of requests, tarfile, its parsers …: the files cannot be had
        first = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        said = (first.strip() or "no message").splitlines()[0]
        raise DataError(
            f"cannot be had: {type(error).__name__}: {said[:200]}",
            where=f"ir_datasets {name}",
            remedy="load it once where there is a network, and bring the folder of ir_datasets "
            "along: IR_DATASETS_HOME names it",
        ) from error


def _qrels(dataset: Any, name: str) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for row in dataset.qrels_iter():
        add_grade(grades, row.query_id, row.doc_id, str(row.relevance), name)
    return grades


def _queries(
    dataset: Any, name: str, judged: frozenset[str], instruction: str | None
) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for row in dataset.queries_iter():
        if row.query_id in judged:
            text = row.default_text()
            add_query(queries, Query(qid=row.query_id, text=text, instruction=instruction), name)
    return queries


def _scored(dataset: Any, qrels: Mapping[str, Any]) -> tuple[Run | None, Pools | None]:
    """The collection's own candidates: with an order, or, where no score differs, without."""
    if not dataset.has("scoreddocs"):
        return None, None
    found: dict[str, dict[str, float]] = {}
    for row in dataset.scoreddocs_iter():
        if row.query_id in qrels:
            found.setdefault(row.query_id, {})[row.doc_id] = float(row.score)
    lists = [set(by.values()) for by in found.values() if len(by) > 1]
    if lists and all(len(scores) == 1 for scores in lists):
        return None, {q: tuple(by) for q, by in found.items()}
    return {q: tuple((d, by[d]) for d in evaluated_order(by)) for q, by in found.items()}, None


def _cut(run: Run, excluded: Excluded, spec: DataSpec) -> Run:
    """The first documents of each query, before their texts are fetched."""
    kept = Without(excluded).run(run)
    depth = None if spec.first_stage.pool else spec.first_stage.depth
    return {qid: by[:depth] for qid, by in kept.items()}


def _documents(
    dataset: Any, name: str, listed: Iterable[str], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, Candidate]:
    wanted = dict.fromkeys(listed) | dict.fromkeys(d for by in qrels.values() for d in by)
    logger.info("%s: %d documents are looked up", name, len(wanted))
    found = dataset.docs_store().get_many(list(wanted))
    return {docid: _candidate(doc) for docid, doc in found.items()}


def _corpus(dataset: Any, name: str) -> dict[str, Candidate]:
    if (count := dataset.docs_count() or 0) >= LARGE:
        logger.warning("%s: BM25 searches %d documents in memory; params.run saves it", name, count)
    return {doc.doc_id: _candidate(doc) for doc in dataset.docs_iter()}


def _candidate(doc: Any) -> Candidate:
    """A document, its title apart where it has both; else what ir_datasets takes as its text."""
    if "text" in doc._fields:
        return Candidate(docid=doc.doc_id, text=doc.text, title=getattr(doc, "title", None) or "")
    return Candidate(docid=doc.doc_id, text=doc.default_text())


def _files(dataset: Any) -> dict[str, Path]:
    """The file of judgements, where there is one and it is kept."""
    path = getattr(dataset, "qrels_path", None)
    found = Path(path()) if path else None
    return {"qrels": found} if found and found.is_file() else {}


def _version() -> str:
    return importlib.metadata.version("ir_datasets")
