"""Calibration: whether documents that a model calls relevant to 80 % are so in 80 % of cases.

Read from exchange records, the lines of ``exchanges/*.jsonl``; nothing is asked. Contract: where
label probabilities were read they count, else the scores of the answers; answers that only say
which document is better than others (orders, picks, preferences) have no calibration. A document
is relevant from grade 1 on, and not relevant when nobody has judged it, as for the metrics.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from rank_rl.records import RankingTask

Record: TypeAlias = Mapping[str, Any]
Pair: TypeAlias = tuple[str, str]  # query id, docid

PROBABILITY = "label probability"
EXPECTED = "expected label value"
SCALED = "scores scaled 0..1"
OBSERVED = "scores scaled 0..1 by the range observed"


def worths(fmt: object) -> tuple[float, ...]:
    """What the answers of a format are worth, worst first, where they are fixed; else nothing.

    The labels' values of slots and graded answers, every score from 0 to the best of format
    ``scores``.
    """
    values = getattr(fmt, "values", None)
    most = getattr(getattr(fmt, "params", None), "max", None)
    if values is None and hasattr(fmt, "slot_spans") and isinstance(most, int):
        values = range(most + 1)
    return tuple(float(value) for value in values or ())


def grades_of(tasks: Sequence[RankingTask]) -> dict[str, dict[str, int]]:
    """Grades by query id and docid, of the queries that anybody has judged."""
    return {task.query.qid: dict(task.grades) for task in tasks if task.grades}


def calibration(
    records: Iterable[Record],
    grades: Mapping[str, Mapping[str, int]],
    *,
    bins: int = 10,
    values: Sequence[float] = (),
    mass: bool = False,
) -> dict[str, Any] | None:
    """Expected calibration error of a system's answers, with its bins.

    Args:
        records: exchanges.
        grades: by query id and docid; queries that are not in it do not count.
        bins: how many, 1 or more.
        values: what labels or scores are worth, worst first (``worths``); without them labels
            count 0, 1, … and scores are scaled by the range observed.
        mass: bins of about equally many documents instead of bins of equal width. Equal
            confidences stay together, so that there may be fewer.

    Returns:
        ``ece`` (0 to 1; Naeini et al., 2015), ``bins`` that are not empty (``low``, ``high``,
        ``n``, mean ``confidence``, share ``relevant``), ``basis``, and how many ``documents`` with
        which share ``relevant``. None where answers give no scores, or all the same one.
    """
    if bins < 1:
        raise ValueError("a calibration takes at least one bin")
    found, basis = confidences(records, values)
    pairs = [(c, grades[q].get(d, 0) > 0) for (q, d), c in sorted(found.items()) if q in grades]
    if not pairs:
        return None
    confidence = np.asarray([c for c, _ in pairs])
    relevant = np.asarray([float(r) for _, r in pairs])
    edges = np.linspace(0.0, 1.0, bins + 1)
    if mass:
        edges = np.unique(np.quantile(confidence, edges))
    inner = edges[1:-1]
    place = np.digitize(confidence, inner)
    rows = [
        _bin(edges, i, confidence[place == i], relevant[place == i])
        for i in range(len(inner) + 1)
        if (place == i).any()
    ]
    gaps = sum(row["n"] * abs(row["confidence"] - row["relevant"]) for row in rows)
    return {
        "ece": gaps / len(pairs),
        "bins": rows,
        "basis": basis,
        "documents": len(pairs),
        "relevant": float(relevant.mean()),
    }


def _bin(
    edges: np.ndarray[Any, Any],
    index: int,
    confidence: np.ndarray[Any, Any],
    relevant: np.ndarray[Any, Any],
) -> dict[str, float]:
    high = edges[min(index + 1, len(edges) - 1)]
    return {
        "low": float(edges[index]),
        "high": float(high),
        "n": len(confidence),
        "confidence": float(confidence.mean()),
        "relevant": float(relevant.mean()),
    }


def confidences(
    records: Iterable[Record], values: Sequence[float] = ()
) -> tuple[dict[Pair, float], str]:
    """How sure a system is of every document, from 0 to 1, and what that is made of.

    A document that was asked about several times has the mean.
    """
    kept = [record for record in records if "outcome" in record]
    said = _mean(_by_label(kept, values))
    if said:
        graded = any(len(row) > 2 for r in kept for row in r["completion"]["slots"].values())
        return said, EXPECTED if graded else PROBABILITY
    scored = _mean(_scored(kept))
    if not scored:
        return {}, ""
    least, most = min(scored.values()), max(scored.values())
    low, high, basis = least, most, OBSERVED
    if values and min(values) <= least and most <= max(values):
        low, high, basis = min(values), max(values), SCALED
    elif least >= 0 and most <= 1:
        low, high, basis = 0.0, 1.0, SCALED
    if least == most:
        return {}, ""
    return {pair: (score - low) / (high - low) for pair, score in scored.items()}, basis


def scores(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """Scores by query id and docid that answers gave to documents, mean of several."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (qid, docid), score in _mean(_scored(r for r in records if "outcome" in r)).items():
        found[qid][docid] = score
    return dict(found)


def tied(records: Iterable[Record]) -> float | None:
    """Share of scored documents whose score another one of their query has too.

    Their order is the input's, not the model's. None where fewer than two documents have scores.
    """
    alike = total = 0
    for own in scores(records).values():
        if len(own) > 1:
            counts: dict[float, int] = defaultdict(int)
            for score in own.values():
                counts[score] += 1
            alike += sum(n for n in counts.values() if n > 1)
            total += len(own)
    return alike / total if total else None


def _by_label(records: Sequence[Record], values: Sequence[float]) -> Iterable[tuple[Pair, float]]:
    """Expected worth of the labels at every document's slot, 0 for the worst and 1 for the best.

    Of two labels that is the probability of the better one; other tokens than labels do not count.
    """
    for record in records:
        docids = dict(zip(record["labels"], record["docids"], strict=True))
        for label, logprobs in record["completion"]["slots"].items():
            worth = values if len(values) == len(logprobs) else range(len(logprobs))
            least, most = min(worth, default=0.0), max(worth, default=0.0)
            weights = [math.exp(lp) for lp in logprobs.values()]
            total = sum(weights)
            if label in docids and total > 0 and most > least:
                mean = sum(v * w for v, w in zip(worth, weights, strict=True)) / total
                yield (record["qid"], docids[label]), (mean - least) / (most - least)


def _scored(records: Iterable[Record]) -> Iterable[tuple[Pair, float]]:
    """Finite scores of documents; not those that a choice among several documents gave them."""
    for record in records:
        answer = record["outcome"]["answer"] or {}
        chosen = set(record["completion"]["slots"]) - set(record["labels"])
        if chosen:
            continue
        for docid, score in answer.get("values", {}).items():
            if docid not in answer.get("unread", ()) and math.isfinite(score):
                yield (record["qid"], docid), float(score)


def _mean(found: Iterable[tuple[Pair, float]]) -> dict[Pair, float]:
    values: dict[Pair, list[float]] = defaultdict(list)
    for pair, value in found:
        values[pair].append(value)
    return {pair: sum(each) / len(each) for pair, each in values.items()}
