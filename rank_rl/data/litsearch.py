"""LitSearch (Ajith et al., 2024, arXiv 2407.18940): questions that papers answer.

Configurations ``query`` (query_set, query, specificity, quality, corpusids) and ``corpus_clean``
(corpusid, title, abstract, …), each of one split ``full``. Title and abstract are a document.
Queries have no ids: theirs are the numbers of their rows, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rank_rl.data import splits
from rank_rl.data.files import text_field
from rank_rl.data.hub_collections import COMMON, Found, collected, opened, text_param
from rank_rl.data.hub_tables import Columns, as_id
from rank_rl.data.sources import SourceData, params_of
from rank_rl.errors import DataError
from rank_rl.records import Query
from rank_rl.specs import DataSpec

PATH = "princeton-nlp/LitSearch"
PARAMS = ("specificity", *COMMON)
SPECIFICITY = ("broad", "specific")  # 0 and 1 in the table


def load(spec: DataSpec) -> SourceData:
    """Load all queries, or those of one ``specificity``: broad or specific. All are test queries.

    ``metadata`` of a query holds query_set, specificity (broad or specific), quality and ``type``,
    by which results can be divided: the set and the specificity together.

    Raises:
        DataError: another specificity, or a table or file that is missing or malformed.
    """
    params = params_of(spec, PARAMS)
    kept = text_param(params, "specificity")
    if kept is not None and kept not in SPECIFICITY:
        raise DataError(
            f"{kept!r}", where="data.params.specificity", expected=" or ".join(SPECIFICITY)
        )
    tables, instruction = opened(spec, params, PATH), text_param(params, "instruction")
    queries: dict[str, Query] = {}
    grades: dict[str, dict[str, int]] = {}
    columns = ["query_set", "query", "specificity", "quality", "corpusids"]
    for number, (where, row) in enumerate(tables.rows("query", "full", columns)):
        metadata = _metadata(row, where)
        if kept not in (None, metadata["specificity"]):
            continue
        qid, text = str(number), text_field(row, ("query",), where)
        queries[qid] = Query(qid=qid, text=text, instruction=instruction, metadata=metadata)
        grades[qid] = dict.fromkeys(map(as_id, row["corpusids"] or ()), 1)
    found = Found(
        name="litsearch" if kept is None else f"litsearch-{kept}",
        tables=tables,
        corpus=("corpus_clean", "full"),
        columns=Columns(key="corpusid", text="abstract"),
        queries=queries,
        qrels={splits.UNSPLIT: grades},
    )
    return collected(found, spec, params)


def _metadata(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    value, name = row["specificity"], text_field(row, ("query_set",), where)
    if value not in (0, 1):
        raise DataError(f"specificity {value!r}", where=where, expected="0 or 1")
    words = SPECIFICITY[value]
    return {
        "query_set": name,
        "specificity": words,
        "quality": row["quality"],
        "type": f"{name}, {words}",
    }
