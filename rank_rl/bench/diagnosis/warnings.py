"""Sentences about a row of the benchmark that its reader should not overlook.

Contract: every sentence names the number that it rests on; none is a verdict, each says what to
look at. Nothing is computed again: ``Facts`` collects what the row and its neighbours say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_rl.bench import stats

UNREADABLE = 0.05  # of answers or slots
TIED = 0.5  # of scored documents
COPIED = 0.95  # Kendall tau with the input order
KEPT = 0.5  # of the documents' tokens, behind the cut
JUDGED = 0.2  # of the first documents
FEWER = 0.1  # judged documents than in the input order
PULLED = 0.2  # places a document moves for each place it is shown further down
FIRST = 0.3  # rankings whose first document was shown in the same place
LEAST = 10  # such rankings, below which accidents are likely


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What warnings look at; what is None or empty is passed over.

    Attributes:
        metric, mean: the first metric and the row's mean of it.
        from_input: the row less its input order, with its interval.
        from_baseline: the row less the baseline it matters most against.
        random: mean of the random order.
        spread: standard deviation of the metric between seeds.
        statuses, cuts: counts, as the row has them.
        judged: share of the first documents that is judged, by depth; None where the collection
            judges relevant documents only, as the share says nothing then.
        judged_input: the same of the input order.
        diagnosis: the row's, with ``tied`` and ``input_tau`` (``of_answers``).
    """

    metric: str
    mean: float
    from_input: stats.Interval | None = None
    from_baseline: float | None = None
    random: float | None = None
    spread: float | None = None
    statuses: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, int] = field(default_factory=dict)
    judged: Mapping[str, float | None] = field(default_factory=dict)
    judged_input: Mapping[str, float | None] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)


def warnings(facts: Facts, *, fall: float = 0.05) -> list[str]:
    """What stands out, the gravest first.

    Args:
        facts: of one row.
        fall: how far below its input order a system may be.
    """
    found = [
        _fell(facts, fall),
        _below_random(facts),
        _unreadable(facts),
        _copied(facts),
        _tied(facts),
        _pulled(facts),
        _favoured(facts),
        _unjudged(facts),
        _cut(facts),
        _unsteady(facts),
    ]
    return [sentence for sentence in found if sentence]


def _fell(facts: Facts, fall: float) -> str:
    found = facts.from_input
    if found is None or -found.mean < max(fall, 1e-9):
        return ""
    return (
        f"{facts.metric} is {-found.mean:.3f} below that of the input order "
        f"(95 % CI of the difference {found.low:+.3f} to {found.high:+.3f}): check format, labels "
        "and readout before reading anything into it"
    )


def _below_random(facts: Facts) -> str:
    if facts.random is None or facts.mean >= facts.random:
        return ""
    return (
        f"{facts.metric} is {facts.mean:.3f}, below the {facts.random:.3f} of a random order: "
        "scores may count the wrong way round"
    )


def _unreadable(facts: Facts) -> str:
    total = sum(facts.statuses.values())
    failed = facts.statuses.get("failed", 0)
    if not total or failed / total <= UNREADABLE:
        return ""
    return (
        f"{failed / total:.0%} of {total} answers could not be read; where that leaves nothing "
        "else, the input order was kept"
    )


def _copied(facts: Facts) -> str:
    tau = facts.diagnosis.get("input_tau")
    if tau is None or tau < COPIED:
        return ""
    return (
        f"its order is almost the input order (mean Kendall tau {tau:.2f}): it hardly reranks, "
        "and its numbers are those of the first stage"
    )


def _tied(facts: Facts) -> str:
    tied = facts.diagnosis.get("tied")
    if tied is None or tied <= TIED:
        return ""
    return (
        f"{tied:.0%} of its scores are shared with another document of the query, whose order is "
        "then the input's: a finer scale or readout may tell them apart"
    )


def _pulled(facts: Facts) -> str:
    found = facts.diagnosis.get("position") or {}
    pull = found.get("pull")
    if not pull or abs(pull["mean"]) < PULLED or pull["low"] <= 0 <= pull["high"]:
        return ""
    way = "later" if pull["mean"] > 0 else "earlier"
    return (
        f"documents rank {abs(pull['mean']):.2f} places {way} for each place they are shown further"
        f" down (95 % CI {pull['low']:.2f} to {pull['high']:.2f}): its rankings depend on the order"
        " of its input"
    )


def _favoured(facts: Facts) -> str:
    """The place whose document comes out first most often, where that is no accident."""
    rows = (facts.diagnosis.get("position") or {}).get("top1_share") or ()
    enough = [r for r in rows if r["n"] >= LEAST]
    clear = [r for r in enough if r["share"] >= FIRST and r["share"] > _by_accident(r)]
    if not clear:
        return ""
    row = max(clear, key=lambda r: r["share"])
    return (
        f"the document shown in place {row['input_rank']} comes out first in {row['share']:.0%} of "
        f"random input orders ({row['chance']:.0%} by chance): its rankings depend on the order of "
        "its input"
    )


def _by_accident(row: Mapping[str, float]) -> float:
    """Three standard deviations above chance."""
    chance = row["chance"]
    return chance + 3 * math.sqrt(chance * (1 - chance) / row["n"])


def _unjudged(facts: Facts) -> str:
    """At the first depth at which shares are known."""
    for depth, share in facts.judged.items():
        if share is None:
            continue
        before = facts.judged_input.get(depth)
        if before is not None and share < before - FEWER:
            told = f"{share:.0%} of its first {depth} documents are judged, {before:.0%} of the"
            return f"{told} input order's: those it moved up count as not relevant"
        if before is None and share < JUDGED:
            told = f"only {share:.0%} of its first {depth} documents are judged"
            return f"{told}: all others count as not relevant"
    return ""


def _cut(facts: Facts) -> str:
    cuts = facts.cuts
    before, after = cuts.get("tokens_before", 0), cuts.get("tokens_after", 0)
    if not before or after / before >= KEPT:
        return ""
    share = cuts.get("cut_documents", 0) / max(1, cuts.get("documents", 0))
    return (
        f"{share:.0%} of the documents shown were cut, {after / before:.0%} of their tokens kept: "
        "what makes a document relevant may have been cut off (format.doc_tokens)"
    )


def _unsteady(facts: Facts) -> str:
    if facts.spread is None or facts.from_baseline is None:
        return ""
    if facts.spread <= abs(facts.from_baseline):
        return ""
    return (
        f"{facts.metric} differs more between seeds (standard deviation {facts.spread:.3f}) than "
        f"from the baseline ({facts.from_baseline:+.3f}): more seeds are needed to tell them apart"
    )
