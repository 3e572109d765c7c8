"""BEIR folders (Thakur et al., 2021), and the collections bundled with the package.

``corpus.jsonl``, ``queries.jsonl``; judgements in ``qrels/<split>.tsv``, ``qrels.<split>.tsv`` or
one ``qrels.tsv`` without splits, with a header; optionally ``candidates.tsv`` (query-id,
corpus-id: a pool for each query, whose order means nothing) and ``excluded.tsv`` (the same columns:
documents that must not be ranked for a query).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rank_rl.data import splits
from rank_rl.data.excluded import joined, read_excluded, same_ids
from rank_rl.data.files import lines
from rank_rl.data.sources import (
    Raw,
    SourceData,
    add_grade,
    build,
    flag,
    params_of,
    read_corpus,
    read_queries,
    required_path,
)
from rank_rl.data.trec import read_run
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

PARAMS = ("run", "excluded", "exclude_same_id", "allow_missing")
_BUNDLED = resources.files("rank_rl.data") / "bundled"


def load_folder(spec: DataSpec) -> SourceData:
    """Load the folder named by ``spec.path``.

    ``params.run`` is a run of candidates (TREC or JSON); ``params.excluded`` stands for
    ``excluded.tsv`` of the folder, and ``exclude_same_id`` adds the document with a query's id.

    Raises:
        DataError: a missing folder or file, or any malformed line in one.
    """
    return _load(required_path(spec.path, "path"), spec)


def load_bundled(spec: DataSpec) -> SourceData:
    """Load the collection of the package that ``spec.path`` names, e.g. ``musique200``.

    Raises:
        DataError: the package holds no such collection.
    """
    names = bundled_names()
    if spec.path not in names:
        raise DataError(
            f"no bundled collection {spec.path!r}",
            where="data.path",
            expected=f"one of {', '.join(names)}",
        )
    with resources.as_file(_BUNDLED / spec.path) as folder:
        return _load(folder, spec)


def bundled_names() -> list[str]:
    """Names of the collections of the package."""
    return sorted(f.name for f in _BUNDLED.iterdir() if f.is_dir() and not f.name.startswith("_"))


def bundled_folder(name: str) -> Path:
    """The folder of a collection of the package, which may not exist."""
    return Path(str(_BUNDLED / name))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements (query-id, corpus-id, score; tab-separated) as query id → docid → grade.

    The first line is a header unless its third column is an integer.

    Raises:
        DataError: a line without three columns or a grade that is not an integer.
    """
    grades: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(lines(path)):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 3:
            raise DataError(
                f"{len(cells)} columns", where=where, expected="query-id, corpus-id, score (tabs)"
            )
        if number == 0 and not cells[2].lstrip("-").isdigit():
            continue
        add_grade(grades, cells[0], cells[1], cells[2], where)
    if not grades:
        raise DataError("no judgements", where=str(path))
    return grades


def read_pools(path: Path) -> dict[str, tuple[str, ...]]:
    """Read candidates (query-id, corpus-id; tab-separated, with a header) by query id.

    Raises:
        DataError: a line without two columns or a document listed twice for a query.
    """
    pools: dict[str, dict[str, None]] = {}
    for number, (where, line) in enumerate(lines(path)):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2:
            raise DataError(
                f"{len(cells)} columns", where=where, expected="query-id, corpus-id (tab)"
            )
        if number == 0 and cells[0].lower() in {"query-id", "query_id", "qid"}:
            continue
        pool = pools.setdefault(cells[0], {})
        if cells[1] in pool:
            raise DataError(f"candidate {cells[1]!r} of {cells[0]!r} appears twice", where=where)
        pool[cells[1]] = None
    return {qid: tuple(pool) for qid, pool in pools.items()}


def _load(folder: Path, spec: DataSpec) -> SourceData:
    params = params_of(spec, PARAMS)
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), expected="a folder in BEIR layout")
    available = qrels_files(folder)
    chosen = {name: available[name] for name in splits.wanted(spec, list(available))}
    files = {
        "corpus.jsonl": folder / "corpus.jsonl",
        "queries.jsonl": folder / "queries.jsonl",
        **{str(path.relative_to(folder)): path for path in chosen.values()},
    }
    pools, run = None, None
    if (pool_file := folder / "candidates.tsv").is_file():
        files[pool_file.name] = pool_file
        pools = read_pools(pool_file)
    if params.get("run") is not None:
        files["run"] = required_path(params["run"], "params.run")
        run = read_run(files["run"])
    if params.get("excluded") is not None:
        files["excluded"] = required_path(params["excluded"], "params.excluded")
    elif (folder / "excluded.tsv").is_file():
        files["excluded"] = folder / "excluded.tsv"
    queries = read_queries(files["queries.jsonl"])
    excluded = read_excluded(files["excluded"]) if "excluded" in files else {}
    if flag(params, "exclude_same_id"):
        excluded = joined(excluded, same_ids(queries))
    raw = Raw(
        name=folder.name,
        documents=read_corpus(files["corpus.jsonl"]),
        queries=queries,
        qrels={name: read_qrels(path) for name, path in chosen.items()},
        pools=pools,
        run=run,
        excluded=excluded,
        files=files,
        allow_missing=flag(params, "allow_missing"),
    )
    return build(raw, spec)


def qrels_files(folder: Path) -> dict[str, Path]:
    """Files of judgements by the name of their split.

    Raises:
        DataError: there are none.
    """
    found = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    for path in sorted(folder.glob("qrels.*.tsv")):
        found.setdefault(path.name.removeprefix("qrels.").removesuffix(".tsv"), path)
    if not found and (folder / "qrels.tsv").is_file():
        found[splits.UNSPLIT] = folder / "qrels.tsv"
    if not found:
        raise DataError(
            "no judgements",
            where=str(folder),
            expected="qrels/<split>.tsv, qrels.<split>.tsv or qrels.tsv",
        )
    return found
