"""Ranking metrics in plain Python, for rewards and training logs (microseconds, no ranx).

All take gains in ranked order or an order plus grades, are bounded by 0 and 1, and use linear
gains as ranx's ``ndcg`` does (Järvelin and Kekäläinen, 2002). The benchmark itself uses ranx;
a parity test keeps the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice


def dcg(gains: Sequence[float], k: int = 10) -> float:
    """Discounted cumulative gain of ``gains`` in ranked order, cut at ``k``."""
    cut = gains[:k]
    return sum([g / log for g, log in zip(cut, _discounts(len(cut)), strict=True) if g > 0])


@lru_cache(maxsize=1024)
def _discounts(size: int) -> tuple[float, ...]:
    """What the gains at ranks 1 … ``size`` are divided by."""
    return tuple(math.log2(i + 2) for i in range(size))


def ndcg(order: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """nDCG@k of ``order``; the ideal takes every grade given, also of documents not in ``order``.

    Returns 0 when nothing is relevant. Repeated docids count once, so the value stays within
    0 and 1.
    """
    ideal = dcg(sorted((g for g in grades.values() if g > 0), reverse=True), k)
    if ideal == 0:
        return 0.0
    return dcg([grades.get(d, 0) for d in islice(dict.fromkeys(order), k)], k) / ideal


def expected_ndcg(scores: Mapping[str, float], grades: Mapping[str, int], k: int = 10) -> float:
    """Expected nDCG@k when tied scores are broken uniformly at random (McSherry, Najork, 2008)."""
    ideal = dcg(sorted((g for g in grades.values() if g > 0), reverse=True), k)
    if ideal == 0:
        return 0.0
    tiers: dict[float, list[float]] = {}
    for docid, score in scores.items():
        tiers.setdefault(score, []).append(max(0, grades.get(docid, 0)))
    return dcg(expected_gains([tiers[s] for s in sorted(tiers, reverse=True)], k), k) / ideal


def expected_gains(tiers: Sequence[Sequence[float]], k: int) -> list[float]:
    """Gain expected at each rank down to ``k`` or a little below, given those of tied documents."""
    gains: list[float] = []
    for tier in tiers:
        if len(gains) >= k:
            break
        gains += tier if len(tier) == 1 else [sum(tier) / len(tier)] * len(tier)
    return gains


def reciprocal_rank(order: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """1 / rank of the first relevant document within ``k``, else 0."""
    for i, docid in enumerate(order[:k]):
        if grades.get(docid, 0) > 0:
            return 1 / (i + 1)
    return 0.0


def recall(order: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """Share of the relevant documents of ``grades`` found within the first ``k``; 0 if none."""
    relevant = {d for d, g in grades.items() if g > 0}
    return len(relevant & set(order[:k])) / len(relevant) if relevant else 0.0


def average_precision(order: Sequence[str], grades: Mapping[str, int]) -> float:
    """Mean of precision at the rank of each relevant document; unretrieved ones count 0."""
    total = sum(1 for g in grades.values() if g > 0)
    hits, value = 0, 0.0
    for i, docid in enumerate(dict.fromkeys(order)):
        if grades.get(docid, 0) > 0:
            hits += 1
            value += hits / (i + 1)
    return value / total if total else 0.0


def kendall(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau of two orders over the documents they share, in [-1, 1]; 1 for fewer than 2."""
    place = {d: i for i, d in enumerate(second)}
    shared = [place[d] for d in first if d in place]
    pairs = len(shared) * (len(shared) - 1) // 2
    if not pairs:
        return 1.0
    good = sum(shared[i] < shared[j] for i in range(len(shared)) for j in range(i + 1, len(shared)))
    return 2 * good / pairs - 1


def rbo(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Rank-biased overlap of two full rankings of the same items, extrapolated (Webber, 2010).

    Args:
        first: an order without repetition.
        second: another order of the same items.
        p: persistence, strictly between 0 and 1.

    Raises:
        ValueError: ``p`` outside (0, 1); at 1 the measure is plain overlap, not RBO.
    """
    if not 0 < p < 1:
        raise ValueError("rbo needs 0 < p < 1")
    depth = min(len(first), len(second))
    if depth == 0:
        return 1.0 if not first and not second else 0.0
    seen_a: set[str] = set()
    seen_b: set[str] = set()
    total = overlap = 0.0
    for d in range(1, depth + 1):
        seen_a.add(first[d - 1])
        seen_b.add(second[d - 1])
        overlap = len(seen_a & seen_b) / d
        total += p ** (d - 1) * overlap
    return min(1.0, (1 - p) * total + overlap * p**depth)
