"""Position bias: how far a ranking depends on the order in which its documents come in.

The same queries are ranked in the order given and in random ones (permutation consistency; Tang et
al., 2023, arXiv 2310.07712, for what averaging such orders gains). Contract: a ranker that does not
look at positions has a consistency of 1, a pull of 0 and no gain anywhere, exactly; one that copies
its input has a pull of 1 and, in the mean, a consistency of 0. What is compared is always a
document with itself, so that good documents in front are not taken for a bias.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rank_rl.bench import stats
from rank_rl.bench.diagnosis.again import Rank, rankings, shuffled, values
from rank_rl.metrics import kendall
from rank_rl.records import Ranking, RankingTask

TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """One query under several input orders, the given one first.

    ``shown`` and ``ranked`` are docids, one tuple a run; places count from 1.
    """

    shown: tuple[tuple[str, ...], ...]
    ranked: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """How many documents there are."""
        return len(self.shown[0])

    def inputs(self) -> list[dict[str, int]]:
        """Input position by docid, run by run."""
        return [_places(order) for order in self.shown]

    def outputs(self) -> list[dict[str, int]]:
        """Output rank by docid, run by run."""
        return [_places(order) for order in self.ranked]


def position(
    rank: Rank,
    tasks: Sequence[RankingTask],
    *,
    shuffles: int,
    seed: int,
    given: Mapping[str, Ranking] | None = None,
    metric: str | None = None,
) -> dict[str, Any]:
    """Rank the same tasks in the order given and in ``shuffles`` random ones, and compare.

    Args:
        rank: what ranks; it is called once an order.
        tasks: which queries; those with a single candidate are left out.
        shuffles: random orders, 1 or more.
        seed: what the orders are drawn with.
        given: rankings of the tasks as they are, by query id, where they are known already.
        metric: a name of ``bench.metrics`` to measure under both kinds of order.

    Returns:
        ``queries``, ``shuffles``; ``consistency`` (mean Kendall tau between the rankings of a
        query, -1 to 1), ``top1_overlap`` and ``top10_overlap`` (mean share of first documents that
        two rankings share) with ``top10_chance`` (that share by chance); ``pull`` (places that a
        document moves for each place it is shown further down, with its interval over queries);
        ``promotion`` and ``top1_share`` by input position, as those functions say; with a metric
        ``quality``. Nothing without tasks.

    Raises:
        ValueError: ``shuffles`` below 1, or a ranking that is not an order of its documents.
    """
    if shuffles < 1:
        raise ValueError("a position bias takes at least one random order")
    kept = [task for task in tasks if len(task.candidates) > 1]
    if not kept:
        return {}
    asked = [[shuffled(t, seed=seed, number=i) for t in kept] for i in range(1, shuffles + 1)]
    found = [rankings(rank, kept, given), *(rankings(rank, order) for order in asked)]
    runs = [
        Orders(
            shown=tuple(order[i].docids for order in [kept, *asked]),
            ranked=tuple(ranked[i].docids for ranked in found),
        )
        for i in range(len(kept))
    ]
    measured = {"quality": _quality(found, kept, metric, seed)} if metric else {}
    return {
        "queries": len(runs),
        "shuffles": shuffles,
        **consistency(runs),
        "pull": pull(runs, seed=seed),
        "promotion": promotion(runs),
        "top1_share": top1_share(runs),
        **{name: value for name, value in measured.items() if value},
    }


def consistency(runs: Sequence[Orders]) -> dict[str, float]:
    """Agreement between all pairs of rankings of a query, mean over queries."""
    tau, first, ten = [], [], []
    for run in runs:
        pairs = list(combinations(run.ranked, 2))
        tau.append(sum(kendall(a, b) for a, b in pairs) / len(pairs))
        first.append(sum(_overlap(a, b, 1) for a, b in pairs) / len(pairs))
        ten.append(sum(_overlap(a, b, TOP) for a, b in pairs) / len(pairs))
    chance = [min(TOP, run.size) / run.size for run in runs]
    found = {"consistency": tau, "top1_overlap": first, "top10_overlap": ten}
    return {n: sum(v) / len(v) for n, v in {**found, "top10_chance": chance}.items()}


def pull(runs: Sequence[Orders], *, seed: int) -> dict[str, float] | None:
    """How strongly output ranks follow input positions: 0 not at all, 1 a copy, -1 a reversal.

    The least-squares slope of a document's output rank on its input position, both less their own
    means over the runs (a fixed effect a document); mean over queries with its bootstrap interval.
    None when every random order happened to be the given one.
    """
    slopes = []
    for run in runs:
        shown, ranked = run.inputs(), run.outputs()
        moved = shared = 0.0
        for docid in run.shown[0]:
            into, out = [s[docid] for s in shown], [r[docid] for r in ranked]
            middle, level = sum(into) / len(into), sum(out) / len(out)
            moved += sum((p - middle) ** 2 for p in into)
            shared += sum((p - middle) * (r - level) for p, r in zip(into, out, strict=True))
        if moved:
            slopes.append(shared / moved)
    return asdict(stats.bootstrap(slopes, seed=seed)) if slopes else None


def promotion(runs: Sequence[Orders]) -> list[dict[str, float]]:
    """Mean places that documents gain by the position in which they were shown.

    A gain is the document's mean output rank over its *other* runs less its rank in this one: its
    mean over all runs holds this run too and would hide a part of the bias. Only random orders are
    counted, in which a position says nothing about the document that stands there.

    Returns:
        ``input_rank``, ``mean_gain`` (places; above 0 where documents rank better than elsewhere)
        and ``n`` (documents counted) of every position.
    """
    gains: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        ranked = run.outputs()
        total = {d: sum(r[d] for r in ranked) for d in run.shown[0]}
        for shown, out in list(zip(run.inputs(), ranked, strict=True))[1:]:
            for docid, place in shown.items():
                elsewhere = (total[docid] - out[docid]) / (len(ranked) - 1)
                gains[place].append(elsewhere - out[docid])
    return [
        {"input_rank": p, "mean_gain": sum(g) / len(g), "n": len(g)}
        for p, g in sorted(gains.items())
    ]


def top1_share(runs: Sequence[Orders]) -> list[dict[str, float]]:
    """How often the document shown in a position comes out first, over random orders.

    Returns:
        ``input_rank``, ``share``, ``chance`` (the share of a ranker that does not look at
        positions) and ``n`` (rankings with such a position).
    """
    won: dict[int, list[bool]] = defaultdict(list)
    chance: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for shown, ranked in list(zip(run.shown, run.ranked, strict=True))[1:]:
            for i, docid in enumerate(shown):
                won[i + 1].append(docid == ranked[0])
                chance[i + 1].append(1 / run.size)
    return [
        {
            "input_rank": p,
            "share": sum(w) / len(w),
            "chance": sum(chance[p]) / len(w),
            "n": len(w),
        }
        for p, w in sorted(won.items())
    ]


def _quality(
    found: Sequence[Sequence[Ranking]], tasks: Sequence[RankingTask], metric: str, seed: int
) -> dict[str, Any]:
    """The metric under the given order and, mean of them, under the random ones."""
    given, *others = [values(ranked, tasks, metric) for ranked in found]
    if not given:
        return {}
    first = list(given.values())
    mean = [sum(other[q] for other in others) / len(others) for q in given]
    difference = stats.difference(first, mean, seed=seed)
    return {
        "metric": metric,
        "given": sum(first) / len(first),
        "shuffled": sum(mean) / len(mean),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
    }


def _places(order: Sequence[str]) -> dict[str, int]:
    return {docid: i + 1 for i, docid in enumerate(order)}


def _overlap(first: Sequence[str], second: Sequence[str], k: int) -> float:
    k = min(k, len(first))
    return len(set(first[:k]) & set(second[:k])) / k
