"""NanoBEIR: the collections of BEIR cut to 50 queries and some thousand documents.

``sentence-transformers/NanoBEIR-en`` has the configurations ``corpus`` and ``queries`` (_id, text),
``qrels`` (query-id, corpus-id) and ``bm25`` (query-id, corpus-ids: a recorded first stage), each
with one split a task (``NanoMSMARCO`` …); its translations have the same.
``zeta-alpha-ai/NanoMSMARCO`` and its like are one task each, in one split ``train``, without a
first stage.
"""

from __future__ import annotations

from rank_rl.data import excluded, splits
from rank_rl.data.hub_collections import (
    COMMON,
    Found,
    collected,
    judgements,
    opened,
    text_param,
)
from rank_rl.data.hub_tables import Columns, HubTables, as_id, hub_id, queries
from rank_rl.data.known import excludes_itself
from rank_rl.data.sources import Run, SourceData, params_of
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

PATH = "sentence-transformers/NanoBEIR-en"
PARAMS = ("task", "candidates", "exclude_same_id", *COMMON)
ALONE = "train"


def load(spec: DataSpec) -> SourceData:
    """Load ``params.task``, e.g. ``NanoMSMARCO`` or ``msmarco``; all queries are test queries.

    A data set of one task needs no ``task``. ``candidates`` names the configuration of the recorded
    first stage: ``bm25`` where there are tasks, none otherwise; null reads none.
    ``exclude_same_id``: see ``known.excludes_itself``.

    Raises:
        DataError: no such task, or a table or file that is missing or malformed.
    """
    params = params_of(spec, PARAMS)
    tables = opened(spec, params, PATH)
    split = _split(tables, text_param(params, "task"))
    columns = Columns()
    read = tables.rows("queries", split, ["_id", "text"])
    asked = queries(read, columns, text_param(params, "instruction"))
    name = tables.name if split == ALONE else split
    config = text_param({"candidates": None if split == ALONE else "bm25", **params}, "candidates")
    found = Found(
        name=name,
        tables=tables,
        corpus=("corpus", split),
        columns=columns,
        queries=asked,
        qrels={splits.UNSPLIT: judgements(tables.rows("qrels", split, ["query-id", "corpus-id"]))},
        excluded=excluded.same_ids(asked) if excludes_itself(name, params) else {},
        run=_listed(tables, config, split) if config and params.get("run") is None else None,
    )
    return collected(found, spec, params)


def _split(tables: HubTables, task: str | None) -> str:
    """The split of a task, whose name may be written in small letters and without Nano."""
    known = tables.splits("queries")
    if task is None and ALONE in known:
        return ALONE
    plain = {name.lower().removeprefix("nano"): name for name in known}
    found = plain.get((task or "").lower().removeprefix("nano"))
    if found is None:
        raise DataError(
            f"no task {task!r}" if task else "no task",
            where="data.params.task",
            expected=f"one of {', '.join(known)}",
        )
    return found


def _listed(tables: HubTables, config: str, split: str) -> Run:
    """A recorded first stage: documents best first, without scores, which their ranks stand for."""
    run: dict[str, tuple[tuple[str, float], ...]] = {}
    for where, row in tables.rows(config, split, ["query-id", "corpus-ids"]):
        docids = row["corpus-ids"]
        if not isinstance(docids, list):
            raise DataError(f"corpus-ids {docids!r}", where=where, expected="a list")
        qid = hub_id(row, "query-id", where)
        run[qid] = tuple((as_id(d), -float(rank)) for rank, d in enumerate(docids, 1))
    return run
