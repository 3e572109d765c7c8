"""Benchmark metrics by ranx, per query, over all test queries that have anything relevant.

Contract: a query that a run leaves out counts as zero; a query with nothing relevant is left out
for every run and counted. Runs go in with strictly decreasing scores, so no tie is ever broken by
accident; a run read from a file has the order that trec_eval gives it (``rank_rl.data.ties``). The
names of metrics are read by ``metric_names``. Rewards use ``rank_rl.metrics``; a parity test keeps
the two together.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rank_rl.bench.metric_names import Metric, read
from rank_rl.errors import DataError
from rank_rl.records import Ranking, RankingTask

PerQuery = dict[str, dict[str, float]]
Numbered = dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Grades of the queries that count, and how many queries were left out.

    Attributes:
        grades: query id → docid → grade, the positive ones only.
        judged: the same queries with all grades, 0 and negative ones too.
        queries: how many there are, those with nothing relevant included.
        without_relevant: how many have nothing relevant.
        left_out: ids of queries that were left out on request, which count nowhere.
    """

    grades: dict[str, dict[str, int]]
    judged: dict[str, dict[str, int]]
    queries: int
    without_relevant: int
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, tasks: Sequence[RankingTask], *, without: Collection[str] = ()) -> Judgements:
        """Collect the grades of a test split.

        Args:
            tasks: its queries.
            without: ids of queries to leave out, e.g. because training data holds them.

        Raises:
            DataError: no query has a relevant document.
        """
        out = set(without)
        given = {t.query.qid: dict(t.grades or {}) for t in tasks if t.query.qid not in out}
        positive = {q: {d: g for d, g in own.items() if g > 0} for q, own in given.items()}
        kept = {qid: found for qid, found in sorted(positive.items()) if found}
        if not kept:
            raise DataError("no test query has a relevant document", where="test split")
        return cls(
            grades=kept,
            judged={qid: given[qid] for qid in kept},
            queries=len(given),
            without_relevant=len(given) - len(kept),
            left_out=tuple(sorted(t.query.qid for t in tasks if t.query.qid in out)),
        )

    @property
    def only_relevant(self) -> bool:
        """Whether nothing was judged irrelevant: unjudged documents are then taken to be so."""
        return all(len(own) == len(self.grades[qid]) for qid, own in self.judged.items())


def check_metrics(judgements: Judgements, metrics: Sequence[str]) -> None:
    """Refuse names that ``measure`` would, before there are rankings.

    Raises:
        RecipeError: a metric that is not offered.
    """
    for name in metrics:
        read(name)


def measure(
    rankings: Mapping[str, Ranking], judgements: Judgements, metrics: Sequence[str]
) -> PerQuery:
    """Values of every metric by query, in the order of ``judgements``.

    Args:
        rankings: query id → ranking; ids without judgements are ignored, missing ones score 0.
        judgements: the queries that count.
        metrics: names as ``metric_names`` explains them, e.g. ``ndcg@10``, ``mrr@10``, ``map-l2``.

    Raises:
        RecipeError: a metric that is not offered.
    """
    asked = {name: read(name) for name in metrics}
    found = {q: r for q, r in sorted(rankings.items()) if q in judgements.grades and r.docids}
    plain = [name for name, m in asked.items() if m.kind not in _PREPARED]
    values = _plain(found, judgements, {name: asked[name] for name in plain})
    for name, metric in asked.items():
        if metric.kind in _PREPARED:
            values[name] = _PREPARED[metric.kind](found, judgements, metric)
    return {m: {q: values[m].get(q, 0.0) for q in judgements.grades} for m in metrics}


def judged(rankings: Mapping[str, Ranking], judgements: Judgements, k: int) -> float | None:
    """Share of the first ``k`` documents that anybody has judged, whatever the grade.

    The mean over the queries that were ranked; of a list shorter than ``k`` all documents are
    looked at. Where only relevant documents were judged (``Judgements.only_relevant``), the share
    says how many of the first are relevant, not how many are known. None without any ranking.
    """
    shares = []
    for qid, known in judgements.judged.items():
        first = rankings[qid].docids[:k] if qid in rankings else ()
        if first:
            shares.append(sum(docid in known for docid in first) / len(first))
    return sum(shares) / len(shares) if shares else None


def ceiling(
    tasks: Sequence[RankingTask], judgements: Judgements, metrics: Sequence[str]
) -> dict[str, float]:
    """Mean of every metric for the perfect order of the candidates: no reranker has more.

    Below 1 where the first stage misses relevant documents.

    Raises:
        RecipeError: a metric that is not offered.
    """
    best = {
        t.query.qid: Ranking.from_scores(
            t, {d: float(max(0, (t.grades or {}).get(d, 0))) for d in t.docids}
        )
        for t in tasks
    }
    values = measure(best, judgements, metrics)
    return {m: sum(by.values()) / len(by) for m, by in values.items()}


def kept(
    mean: float, teacher_mean: float, first_stage_mean: float | None = None
) -> dict[str, float | None]:
    """How much of a teacher's quality a system keeps.

    Returns:
        ``share``: mean / teacher's mean, None where the teacher has 0. ``gain``: the same of what
        the teacher gains over the first stage, (s - f) / (t - f), negative for a system that is
        worse than the first stage; None where the teacher gains nothing or ``first_stage_mean`` is
        not known.
    """
    gain = None
    if first_stage_mean is not None and teacher_mean > first_stage_mean:
        gain = (mean - first_stage_mean) / (teacher_mean - first_stage_mean)
    return {"share": mean / teacher_mean if teacher_mean > 0 else None, "gain": gain}


def _plain(
    rankings: Mapping[str, Ranking], judgements: Judgements, asked: Mapping[str, Metric]
) -> dict[str, dict[str, float]]:
    """Metrics that ranx computes from the grades as they are."""
    grades = {qid: judgements.grades[qid] for qid in rankings}
    by_ranx = _ranx(grades, rankings, sorted({m.ranx for m in asked.values()}))
    return {name: by_ranx[metric.ranx] for name, metric in asked.items()}


def _rbp(
    rankings: Mapping[str, Ranking], judgements: Judgements, metric: Metric
) -> dict[str, float]:
    """Relevant or not, as it is defined (Moffat and Zobel, 2008); ranx weighs by grades."""
    relevant = {
        qid: {d: 1 for d, g in judgements.grades[qid].items() if g >= metric.level}
        for qid in rankings
    }
    some = {qid: own for qid, own in relevant.items() if own}
    name = replace(metric, level=1).ranx
    return _ranx(some, rankings, [name])[name]


def _bpref(
    rankings: Mapping[str, Ranking], judgements: Judgements, metric: Metric
) -> dict[str, float]:
    """As trec_eval does it: negative grades count as not judged."""
    some = {}
    for qid in rankings:
        own = {d: g for d, g in judgements.judged[qid].items() if g >= 0}
        if any(g >= metric.level for g in own.values()):
            # With nothing judged irrelevant ranx divides by 0; one that is never found is harmless.
            some[qid] = own if min(own.values()) < metric.level else {**own, "": 0}
    return _ranx(some, rankings, [metric.ranx])[metric.ranx]


_PREPARED = {"rbp": _rbp, "bpref": _bpref}


def _ranx(
    grades: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Ranking], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Values of ranx by its own names and by query, of the queries that have grades."""
    if not grades or not names:
        return {name: {} for name in names}
    from ranx import evaluate

    qrels: Numbered = {}
    runs: Numbered = {}
    for qid, own in grades.items():
        ranking = rankings[qid]
        # ranx hashes ids into floats, where two may meet; numbers of their own cannot.
        number = {d: i for i, d in enumerate(dict.fromkeys((*ranking.docids, *own)), 1)}
        qrels[qid] = {number[d]: g for d, g in own.items()}
        pairs = zip(ranking.docids, ranking.run_scores(), strict=True)
        runs[qid] = {number[d]: s for d, s in pairs}
    # Plain dicts: ranx's own classes compile for half a minute for every width of ids. The
    # repeated name keeps a single metric from taking another path, which fails in 0.3.21.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="unsafe cast")
        found = evaluate(qrels, runs, [*names, names[0]], return_mean=False)
    return {name: dict(zip(qrels, map(float, found[name]), strict=True)) for name in names}
