"""Published collections by name: which metrics they are reported with, and which rank themselves.

The metrics are those of the papers or of the track; ``-l2`` counts grades from 2 on as relevant, in
the spelling of ranx (the level after the cut: ``mrr@10-l2``), while nDCG keeps all grades.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rank_rl.data.sources import flag
from rank_rl.specs import DataSpec

BEIR = ("ndcg@10", "recall@100")
TREC_DL = ("ndcg@10", "map-l2", "recall@100-l2", "mrr@10-l2")
BY_SOURCE = {
    "bright": ("ndcg@10",),
    "r2med": ("ndcg@10",),
    "nano_beir": BEIR,
    "beir_hub": BEIR,
    "litsearch": ("recall@5", "recall@20"),
    "msmarco": ("mrr@10",),
    "trec_dl": TREC_DL,
}
BY_ID = {  # beginnings of ids of ir_datasets, the longer ones first
    r"msmarco-(passage|document)(-v2)?/trec-dl": TREC_DL,
    r"msmarco-(passage|document)(-v2)?/(dev|train|eval)": ("mrr@10",),
    r"(nano-)?beir/": BEIR,
}
RANK_THEMSELVES = ("arguana", "quora")


def default_metrics(spec: DataSpec) -> list[str] | None:
    """The metrics that a collection is reported with, or None where nobody has said.

    LitSearch: recall@5 for specific questions and recall@20 for broad ones; BRIGHT with whole
    pages: recall@1. A recall deeper than ``first_stage.depth`` is left out: reranking cannot
    change it.
    """
    found = BY_SOURCE.get(spec.source, ())
    if spec.source == "ir_datasets":
        kinds = (m for pattern, m in BY_ID.items() if re.match(pattern, spec.path or ""))
        found = next(kinds, ())
    if spec.source == "bright" and spec.params.get("long"):
        found = ("recall@1",)
    if spec.source == "litsearch" and spec.params.get("specificity"):
        found = ("recall@5",) if spec.params["specificity"] == "specific" else ("recall@20",)
    return [m for m in found if _reaches(m, spec)] or None


def excludes_itself(name: str, params: Mapping[str, Any]) -> bool:
    """Whether the document that bears a query's id is taken out of that query's candidates.

    ``params.exclude_same_id`` decides; without it, it is so where queries stand in the corpus
    themselves: in ArguAna and Quora, by the name of the collection.

    Raises:
        DataError: the parameter is not a boolean.
    """
    if params.get("exclude_same_id") is not None:
        return flag(params, "exclude_same_id")
    return any(known in name.lower() for known in RANK_THEMSELVES)


def _reaches(metric: str, spec: DataSpec) -> bool:
    cut = re.fullmatch(r"recall@(\d+)(-l\d+)?", metric)
    return cut is None or spec.first_stage.pool or int(cut[1]) <= spec.first_stage.depth
