"""MS MARCO passages (Bajaj et al., 2016), by default the small development set (6980 queries).

A name for collections of ir_datasets; about one judged passage a query, grade 1.
"""

from __future__ import annotations

from rank_rl.data import irds
from rank_rl.data.sources import SourceData, params_of
from rank_rl.specs import DataSpec

PATH = "msmarco-passage/dev/small"
PARAMS = irds.COMMON


def load(spec: DataSpec) -> SourceData:
    """Load ``spec.path``, or the small development set, as ``irds.load`` does.

    Its top 1000 have no scores: a first stage needs ``params.run``, or ``pool: true`` for BM25.

    Raises:
        DataError: as ``irds.load``.
    """
    return irds.load_id(spec.path or PATH, spec, params_of(spec, PARAMS))
