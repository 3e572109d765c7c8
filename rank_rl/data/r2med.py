"""R2MED (Li et al., 2025, arXiv 2505.14558): medical retrieval that needs reasoning.

One data set a task (``R2MED/Biology``, ``R2MED/PMC-Clinical`` …) with the configurations ``corpus``
and ``query`` (id, text) and ``qrels`` (q_id, p_id, score), each of one split of the same name.
"""

from __future__ import annotations

from rank_rl.data import splits
from rank_rl.data.hub_collections import (
    COMMON,
    Found,
    collected,
    judgements,
    opened,
    text_param,
)
from rank_rl.data.hub_tables import Columns, queries
from rank_rl.data.sources import SourceData, params_of
from rank_rl.specs import DataSpec

PARAMS = COMMON
COLUMNS = Columns(key="id")


def load(spec: DataSpec) -> SourceData:
    """Load the task that ``spec.path`` names; all of its queries are test queries.

    Raises:
        DataError: no such data set, or a table or file that is missing or malformed.
    """
    params = params_of(spec, PARAMS)
    tables = opened(spec, params)
    read = tables.rows("query", "query", ["id", "text"])
    found = Found(
        name=f"r2med-{tables.name.lower()}",
        tables=tables,
        corpus=("corpus", "corpus"),
        columns=COLUMNS,
        queries=queries(read, COLUMNS, text_param(params, "instruction")),
        qrels={
            splits.UNSPLIT: judgements(
                tables.rows("qrels", "qrels", ["q_id", "p_id", "score"]), "q_id", "p_id"
            )
        },
    )
    return collected(found, spec, params)
