"""BEIR (Thakur et al., 2021) as it is published on the Hub, and data sets of the same form.

``BeIR/scifact`` has the configurations ``corpus`` and ``queries`` (_id, title, text), each of one
split of the same name. Judgements are a data set of their own, ``BeIR/scifact-qrels`` (query-id,
corpus-id, score), whose splits are the collection's; in ``mteb/scifact`` and its like they are the
configuration ``default``.
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
from rank_rl.data.hub_tables import Columns, HubTables, queries
from rank_rl.data.known import excludes_itself
from rank_rl.data.sources import SourceData, params_of
from rank_rl.specs import DataSpec

PARAMS = ("qrels", "qrels_config", "exclude_same_id", *COMMON)
OWNER = "BeIR/"


def load(spec: DataSpec) -> SourceData:
    """Load the splits that the recipe names, e.g. ``train`` and ``test``.

    ``qrels`` is the data set with the judgements: of ``BeIR/NAME`` it is ``BeIR/NAME-qrels``, else
    the same one. ``qrels_config`` is their configuration there: ``default`` of the same one, else
    the only one. ``exclude_same_id``: see ``known.excludes_itself``.

    Raises:
        DataError: no such data set or split, or a table or file that is missing or malformed.
    """
    params = params_of(spec, PARAMS)
    tables = opened(spec, params)
    judged = _judged(tables, text_param(params, "qrels"))
    config = text_param(params, "qrels_config")
    if judged is tables and config is None:
        config = "default"
    columns = Columns()
    read = tables.rows("queries", "queries", ["_id", "text"])
    asked = queries(read, columns, text_param(params, "instruction"))
    pair = ["query-id", "corpus-id"]
    found = Found(
        name=tables.name,
        tables=tables,
        corpus=("corpus", "corpus"),
        columns=columns,
        queries=asked,
        qrels={
            split: judgements(judged.rows(config, split, pair, ["score"]))
            for split in splits.wanted(spec, judged.splits(config))
        },
        excluded=excluded.same_ids(asked) if excludes_itself(tables.name, params) else {},
        others={} if judged is tables else {"judgements": judged},
    )
    return collected(found, spec, params)


def _judged(tables: HubTables, named: str | None) -> HubTables:
    """The data set with the judgements; a revision belongs to the texts alone."""
    if named is not None:
        return HubTables(named)
    if not tables.local and tables.path.startswith(OWNER):
        return HubTables(f"{tables.path}-qrels")
    return tables
