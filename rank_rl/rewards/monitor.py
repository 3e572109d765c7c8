"""The numbers logged beside a reward: parse-status rates, baselines, flat groups, truncation.

Used by the adapter for TRL and by any other loop that has judged answers in its hands.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rank_rl.records import Outcome
from rank_rl.rewards.baselines import Baselines
from rank_rl.rewards.compose import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer with its reward; ``group`` is shared by the answers to one prompt.

    ``truncated`` is None where the end of the text is not known.
    """

    group: Hashable
    outcome: Outcome
    scored: Scored
    baselines: Baselines
    truncated: bool | None = None


def summary(judged: Sequence[Judged], prefix: str = "ranking/") -> dict[str, float]:
    """Return rates in [0, 1] and mean totals by metric name; empty for no answers.

    ``parse_ok``, ``parse_repaired`` and ``parse_failed`` sum to 1; ``flat_groups`` is the share of
    prompts whose answers all earn the same and so teach nothing, over prompts with at least two
    answers; ``<reward>_<event>`` are the shares of special values.
    """
    if not judged:
        return {}
    values = {
        "reward": fmean(j.scored.total for j in judged),
        "copy": fmean(j.baselines.copy for j in judged),
        "ceiling": fmean(j.baselines.ceiling for j in judged),
    }
    for status in ("ok", "repaired", "failed"):
        values[f"parse_{status}"] = fmean(j.outcome.status == status for j in judged)
    for event in sorted({e for j in judged for e in j.scored.events}):
        values[event] = fmean(event in j.scored.events for j in judged)
    known = [j.truncated for j in judged if j.truncated is not None]
    if known:
        values["truncated"] = fmean(known)
    flat = _flat(judged)
    if flat:
        values["flat_groups"] = fmean(flat)
    return {prefix + name: value for name, value in values.items()}


def _flat(judged: Sequence[Judged]) -> list[bool]:
    """For each group of at least two answers, whether all earn the same."""
    totals: dict[Hashable, list[float]] = {}
    for j in judged:
        totals.setdefault(j.group, []).append(j.scored.total)
    return [max(t) - min(t) < 1e-9 for t in totals.values() if len(t) > 1]
