"""Names of metrics as recipes write them, and what they mean.

    ndcg@10   mrr@10-l2   recall@100   precision@5   f1@5   map   map@100-l2   hit_rate@1
    success@1   r-precision   bpref   rbp.95   ndcg_burges@10

``@k`` cuts the list (left out: the whole list), ``-lN`` counts grades from N on as relevant (nDCG:
gains below N are 0), ``rbp.95`` has persistence 0.95. Only metrics are offered that a test holds
against pytrec_eval and ir_measures; computing them is ``measures``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rank_rl.errors import RecipeError
from rank_rl.registry import nearest

OFFERED = {  # name → what it is called in ranx
    "ndcg": "ndcg",
    "ndcg_burges": "ndcg_burges",
    "mrr": "mrr",
    "map": "map",
    "recall": "recall",
    "precision": "precision",
    "f1": "f1",
    "hit_rate": "hit_rate",
    "success": "hit_rate",
    "r-precision": "r-precision",
    "bpref": "bpref",
    "rbp": "rbp",
}
WHOLE_LIST = ("r-precision", "bpref", "rbp")  # these have no cut
OTHER_NAMES = {  # what other tools call them, for the error's hint
    "ap": "map",
    "map_cut": "map",
    "rr": "mrr",
    "recip_rank": "mrr",
    "ndcg_cut": "ndcg",
    "ndcg_exp": "ndcg_burges",
    "r": "recall",
    "p": "precision",
    "rprec": "r-precision",
    "hit": "hit_rate",
    "hits": "hit_rate",
}
PATTERN = re.compile(
    r"(?P<kind>[a-z_]+|r-precision|f1)(\.(?P<digits>\d+)|@(?P<cut>\d+))?(-l(?P<level>\d+))?"
)
EXPECTED = (
    "e.g. ndcg@10, mrr@10-l2, map; offered are bpref, f1, hit_rate, map, mrr, ndcg, ndcg_burges, "
    "precision, r-precision, rbp, recall, success"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric's name in parts.

    Attributes:
        kind: a key of ``OFFERED``.
        cut: how many documents count; None for the whole list.
        level: the lowest grade that is relevant, from 1.
        persistence: of rank-biased precision, the decimals after ``0.``; else empty.
    """

    kind: str
    cut: int | None = None
    level: int = 1
    persistence: str = ""

    @property
    def ranx(self) -> str:
        """The name that ranx understands."""
        cut = "" if self.cut is None else f"@{self.cut}"
        tail = f".{self.persistence}" if self.persistence else cut
        return f"{OFFERED[self.kind]}{tail}" + (f"-l{self.level}" if self.level > 1 else "")


def read(name: str) -> Metric:
    """The metric that a recipe calls ``name``.

    Raises:
        RecipeError: no such metric; those like it are named.
    """
    found = PATTERN.fullmatch(name)
    kind = found["kind"] if found else ""
    if not found or kind not in OFFERED:
        raise _unknown(name)
    cut, level = int(found["cut"] or 0), int(found["level"] or 1)
    given = (found["cut"] is None or cut > 0) and level > 0
    whole = kind not in WHOLE_LIST or found["cut"] is None
    persistent = (kind == "rbp") == bool((found["digits"] or "").strip("0"))
    if not (given and whole and persistent):
        raise _unknown(name)
    return Metric(kind=kind, cut=cut or None, level=level, persistence=found["digits"] or "")


def _unknown(name: str) -> RecipeError:
    """The error for a name, with offered ones that are like it and have its cut and level."""
    asked = name.strip().lower()
    level = re.search(r"-l[1-9]\d*", asked)
    tail = level[0] if level else ""
    bare = re.sub(r"-l\d+", "", asked)
    base = re.match(r"(.*?)(?:[@._-]*(\d+)?)?$", re.split(r"[@.]", bare)[0] or bare)
    kind = base[1] if base and base[1] != "f" else "f1"
    digits = re.search(r"[1-9]\d*", bare[len(kind) :])

    def written(offered: str) -> str:
        if offered == "rbp":
            return f"rbp.95{tail}"
        uncut = offered in WHOLE_LIST or (offered == "map" and not digits)
        cut = digits[0] if digits else "10"
        return f"{offered}{tail}" if uncut else f"{offered}@{cut}{tail}"

    likely = OTHER_NAMES.get(kind, kind)
    near = nearest(asked, map(written, OFFERED), cutoff=0.5)
    return RecipeError(
        f"unknown metric {name!r}",
        where="bench.metrics",
        expected=EXPECTED,
        remedy=f"nearest: {written(likely)}" if likely in OFFERED else near,
    )
