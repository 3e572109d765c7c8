"""Which rows are worth training on, in which order, and how much each document counts.

Pure: measuring pass rates is left to ``training.pass_rates``. A row that is never or always solved
gives groups in which all answers earn the same, and those teach nothing; the share of such rows
falls when they are left out before training. Rows keep their order where they are equally hard.
``sample_weights`` is a curriculum of losses: easy documents first, all alike later.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rank_rl import metrics
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate, Grades, View
from rank_rl.specs.training import PassRateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """Rewards of several answers to one view, beside what copying and the best order earn.

    Attributes:
        key: of the view, see ``view_key``.
        qid: its query.
        totals: reward of each answer.
        copy: reward of the order shown.
        ceiling: reward of the best order.
    """

    key: str
    qid: str
    totals: tuple[float, ...]
    copy: float
    ceiling: float

    @property
    def mean(self) -> float:
        """Mean reward."""
        return fmean(self.totals) if self.totals else 0.0

    def rate(self, threshold: float) -> float:
        """Share of answers that pass, in [0, 1].

        An answer passes when it comes ``threshold`` of the way from copying to the best order:
        rewards have many offsets (a format reward, the nDCG of the order shown), which a share of
        the ceiling alone would count as success. Where the order shown is the best one, only an
        answer as good passes.
        """
        room = self.ceiling - self.copy
        wanted = self.copy + threshold * room if room > 1e-9 else self.ceiling
        passed = sum(total >= wanted - 1e-9 for total in self.totals)
        return passed / len(self.totals) if self.totals else 0.0

    def record(self) -> dict[str, Any]:
        """A JSON record; ``from_record`` is the way back."""
        return {
            "key": self.key,
            "qid": self.qid,
            "mean": round(self.mean, 6),
            "totals": list(self.totals),
            "copy": self.copy,
            "ceiling": self.ceiling,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Rated:
        """Read ``record``; KeyError, TypeError or ValueError when it is none."""
        return cls(
            key=str(record["key"]),
            qid=str(record["qid"]),
            totals=tuple(float(total) for total in record["totals"]),
            copy=float(record["copy"]),
            ceiling=float(record["ceiling"]),
        )


def view_key(view: View) -> str:
    """A name for what a prompt shows: the query and the documents in their order."""
    text = "\x1f".join([view.query.qid, *view.docids])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown_ndcg(view: View, grades: Grades) -> float:
    """nDCG@10 of the order shown, in [0, 1]: how little is left to do."""
    return metrics.ndcg(view.docids, view.grades(grades))


def relevant_share(view: View, grades: Grades) -> float:
    """Share of relevant documents, in [0, 1]: how good an order by chance is."""
    graded = view.grades(grades)
    return sum(g > 0 for g in graded.values()) / len(graded)


def best_rank(view: View, grades: Grades) -> float:
    """1 / place of the first relevant document shown, in [0, 1]; 0 without one."""
    return metrics.reciprocal_rank(view.docids, view.grades(grades), len(view.docids))


# More is easier.
SIGNALS: dict[str, Callable[[View, Grades], float]] = {
    "shown_ndcg": shown_ndcg,
    "relevant_share": relevant_share,
    "best_rank": best_rank,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """Which rows to train on, as indices in the order to train in, and what was left out."""

    kept: tuple[int, ...]
    never: int = 0
    always: int = 0
    rates: Mapping[float, int]

    def line(self) -> str:
        """One line for a log."""
        return (
            f"{len(self.kept)} rows kept, {self.never} too hard and {self.always} too easy left "
            f"out; {distribution(self.rates)}"
        )


def distribution(rates: Mapping[float, int]) -> str:
    """How many rows have which pass rate, in words."""
    told = ", ".join(f"{rate:.2f}: {rates[rate]}" for rate in sorted(rates))
    return f"rows by pass rate {{{told}}}" if told else "no pass rates"


def choose(
    spec: PassRateSpec,
    rows: Sequence[tuple[View, Grades]],
    rated: Sequence[Rated] | None,
) -> Curriculum:
    """Leave out rows by their pass rate and sort the others.

    Args:
        spec: bounds and order.
        rows: view and grades of each row, in the order to keep where nothing else decides.
        rated: what each row's answers earned; None where nothing was asked.

    Raises:
        DataError: no row is left.
    """
    rates = [r.rate(spec.threshold) for r in rated] if rated is not None else []
    hard = {i for i, rate in enumerate(rates) if spec.low is not None and rate <= spec.low}
    easy = {i for i, rate in enumerate(rates) if spec.high is not None and rate >= spec.high}
    kept = [i for i in range(len(rows)) if i not in hard and i not in easy]
    counted = Counter(round(rate, 2) for rate in rates)
    if not kept:
        raise DataError(
            f"no training row is left: {distribution(counted)}",
            where="grpo.pass_rate",
            expected=f"rates between {spec.low} and {spec.high}",
            remedy="widen low and high (null sets no bound), lower threshold, "
            "or train the model with sft first",
        )
    if spec.order != "none":
        ease = _ease(spec, rows, rated or (), rates)
        sign = -1 if spec.order == "easy_first" else 1
        kept.sort(key=lambda i: tuple(sign * value for value in ease(i)))
    return Curriculum(
        kept=tuple(kept), never=len(hard), always=len(easy - hard), rates=dict(counted)
    )


def _ease(
    spec: PassRateSpec,
    rows: Sequence[tuple[View, Grades]],
    rated: Sequence[Rated],
    rates: Sequence[float],
) -> Callable[[int], tuple[float, ...]]:
    """How easy a row is; among equal pass rates the mean reward decides."""
    if spec.order_by == "pass_rate":
        return lambda i: (rates[i], rated[i].mean)
    signal = SIGNALS[spec.order_by]
    return lambda i: (signal(*rows[i]),)


def matched(rows: Sequence[View], known: Mapping[str, Rated], *, where: str) -> list[Rated]:
    """The rates of all rows, in their order.

    Raises:
        DataError: a row has none: the file is of other views (another seed, sampler or data).
    """
    keys = [view_key(view) for view in rows]
    missing = sum(key not in known for key in keys)
    if missing:
        raise DataError(
            f"{missing} of {len(keys)} training rows have no pass rate",
            where=where,
            expected="a file measured on the same data, sampler, format budget and run.seed",
        )
    return [known[key] for key in keys]


def check_order(spec: PassRateSpec, training: Mapping[str, Any]) -> None:
    """An order is kept only by a trainer that does not shuffle.

    Raises:
        RecipeError: the recipe asks for both.
    """
    if spec.order != "none" and training.get("shuffle_dataset"):
        raise RecipeError(
            "value true",
            where="training.shuffle_dataset",
            expected=f"false, or grpo.pass_rate.order: none instead of {spec.order}",
        )


def ease(heuristic: str, candidates: Sequence[Candidate]) -> list[float]:
    """How relevant the first stage finds each candidate of one query, in [0, 1].

    The heuristics of MacAvaney et al. (2020, arXiv 2004.14269). ``reciprocal_rank``: 1 / rank.
    ``normalised_score``: (score - least) / (best - least). ``density``: the distribution function,
    at the score, of a Gaussian kernel density estimate of the query's scores, with Scott's rule
    for the bandwidth (standard deviation times n^-1/5); an outlier does not press the others
    together as it does for normalised scores. Where all scores are the same, 0.5.

    Args:
        heuristic: one of these names.
        candidates: all candidates of the query, with first-stage ranks or scores.

    Raises:
        DataError: a heuristic of scores, and a candidate without one.
    """
    if heuristic == "reciprocal_rank":
        return [1 / c.rank for c in candidates]
    scores = [c.score for c in candidates if c.score is not None]
    if len(scores) < len(candidates):
        raise DataError(
            f"{len(candidates) - len(scores)} candidates of a query have no first-stage score",
            where=f"data.curriculum.heuristic {heuristic!r}",
            expected="scores of the first stage",
            remedy="set heuristic: reciprocal_rank, or first_stage: {name: bm25, pool: true}",
        )
    least, best = min(scores), max(scores)
    if least == best:
        return [0.5] * len(scores)
    if heuristic == "normalised_score":
        return [(score - least) / (best - least) for score in scores]
    width = stdev(scores) * len(scores) ** -0.2 * math.sqrt(2)
    return [fmean((1 + math.erf((s - other) / width)) / 2 for other in scores) for s in scores]


def eased(value: float, relevant: bool, progress: float, end: float) -> float:
    """Weight of a document of a given ease, in [0, 1]: D (1 - p) + p, with p = progress / end.

    D is the ease of a relevant document and 1 - ease of another one; p is at most 1.
    """
    share = min(1.0, progress / end)
    return (value if relevant else 1 - value) * (1 - share) + share


def sample_weights(
    heuristic: str,
    candidates: Sequence[Candidate],
    relevant: Collection[str],
    progress: float,
    end: float,
) -> list[float]:
    """Weight of every candidate of a query in the loss, in [0, 1], in the order given.

    Args:
        heuristic: see ``ease``.
        candidates: all candidates of the query.
        relevant: docids of relevant documents.
        progress: share of the training steps taken, in [0, 1].
        end: share from which on everything weighs 1, above 0.
    """
    return [
        eased(value, c.docid in relevant, progress, end)
        for c, value in zip(candidates, ease(heuristic, candidates), strict=True)
    ]
