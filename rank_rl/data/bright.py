"""BRIGHT (Su et al., 2024, arXiv 2407.12883): retrieval that needs reasoning, in twelve tasks.

Configurations ``examples`` (query, reasoning, id, excluded_ids, gold_ids_long, gold_ids,
gold_answer), ``documents`` and ``long_documents`` (id, content), one split a task. ``N/A`` in a
list means none. Documents in ``excluded_ids`` must not be ranked for a query. Reasoning and answers
that people wrote are not read: a query is what stands in ``query``.
"""

from __future__ import annotations

from rank_rl.data import splits
from rank_rl.data.files import text_field
from rank_rl.data.hub_collections import COMMON, Found, collected, opened, text_param
from rank_rl.data.hub_tables import Columns, as_id, hub_id
from rank_rl.data.sources import SourceData, add_query, flag, params_of
from rank_rl.errors import DataError
from rank_rl.records import Query
from rank_rl.specs import DataSpec

PATH = "xlangai/BRIGHT"
PARAMS = ("task", "long", "examples", *COMMON)
NONE = "N/A"


def load(spec: DataSpec) -> SourceData:
    """Load ``params.task``, e.g. ``biology``; all of its queries are test queries.

    ``long`` takes the whole pages as documents, for the tasks that have them. ``examples`` is the
    configuration of the queries: ``gpt4_reason`` and others hold what a model wrote instead of the
    query, for first stages that were made with it.

    Raises:
        DataError: no such task, or a table or file that is missing or malformed.
    """
    params = params_of(spec, PARAMS)
    tables, task = opened(spec, params, PATH), text_param(params, "task")
    config, whole = text_param(params, "examples") or "examples", flag(params, "long")
    if task is None:
        raise DataError(
            "no task",
            where="data.params.task",
            expected=f"one of {', '.join(tables.splits(config))}",
        )
    gold = "gold_ids_long" if whole else "gold_ids"
    queries: dict[str, Query] = {}
    grades: dict[str, dict[str, int]] = {}
    excluded: dict[str, frozenset[str]] = {}
    instruction = text_param(params, "instruction")
    columns = ["id", "query", "excluded_ids", gold]
    for where, row in tables.rows(config, task, columns):
        qid = hub_id(row, "id", where)
        text = text_field(row, ("query",), where)
        add_query(queries, Query(qid=qid, text=text, instruction=instruction), where)
        grades[qid] = dict.fromkeys(_ids(row[gold], where), 1)
        excluded[qid] = frozenset(_ids(row["excluded_ids"], where))
    found = Found(
        name=f"bright-{task}{'-long' if whole else ''}",
        tables=tables,
        corpus=("long_documents" if whole else "documents", task),
        columns=Columns(key="id", text="content"),
        queries=queries,
        qrels={splits.UNSPLIT: grades},
        excluded={qid: docids for qid, docids in excluded.items() if docids},
    )
    return collected(found, spec, params)


def _ids(value: object, where: str) -> list[str]:
    if value is not None and not isinstance(value, list):
        raise DataError(f"ids {value!r}", where=where, expected="a list")
    return [as_id(docid) for docid in value or () if docid != NONE]
