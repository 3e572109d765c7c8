"""TREC Deep Learning tracks, passages (Craswell et al., 2020 to 2024): 2019 to 2023.

A name for collections of ir_datasets, those of the judged queries. Grades are 0 to 3, and what is
binary counts 2 and 3 as relevant. 2019 and 2020 search MS MARCO, later years its second version.
"""

from __future__ import annotations

from rank_rl.data import irds
from rank_rl.data.sources import SourceData, params_of
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

PARAMS = ("year", *irds.COMMON)
IDS = {
    2019: "msmarco-passage/trec-dl-2019/judged",
    2020: "msmarco-passage/trec-dl-2020/judged",
    2021: "msmarco-passage-v2/trec-dl-2021/judged",
    2022: "msmarco-passage-v2/trec-dl-2022/judged",
    2023: "msmarco-passage-v2/trec-dl-2023/judged",
}


def load(spec: DataSpec) -> SourceData:
    """Load the queries of ``params.year`` that have judgements, as ``irds.load`` does.

    Raises:
        DataError: no such year, or as ``irds.load``.
    """
    params = params_of(spec, PARAMS)
    year = params.get("year")
    if isinstance(year, bool) or year not in IDS:
        raise DataError(
            f"{year!r}", where="data.params.year", expected=f"one of {', '.join(map(str, IDS))}"
        )
    return irds.load_id(IDS[year], spec, params)
