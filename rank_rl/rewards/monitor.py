"""The numbers logged beside a reward: parse rates, baselines, flat groups, truncation, its parts.

Used by the adapter for TRL and by any other loop that has judged answers in its hands.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import fmean

from rank_rl.records import Outcome
from rank_rl.rewards.baselines import Baselines
from rank_rl.rewards.compose import Composite, Part, Scored

_SAME = 1e-9  # differences below this are rounding


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
    return [max(t) - min(t) < _SAME for t in totals.values() if len(t) > 1]


def part_statistics(
    judged: Sequence[Judged], composite: Composite, prefix: str = "rewards/"
) -> dict[str, float]:
    """Return what each part of a reward contributes, as ``rewards/<part>/<statistic>``.

    Over the answers to which a part applies: ``low`` and ``high``, the shares at its bounds, and
    ``group_std``, its population standard deviation within a prompt's answers, averaged. Over all
    answers: ``absent``, the share to which it does not apply, and ``share``, its weighted
    covariance with the total as a part of the total's variance, averaged over prompts whose answers
    differ. Shares sum to 1 over the parts: they divide the spread that makes the advantages.
    Statistics without a value are left out. The mean is logged by the trainers.
    """
    groups: dict[Hashable, list[Judged]] = {}
    for j in judged:
        groups.setdefault(j.group, []).append(j)
    centred = [_centred([j.scored.total for j in group]) for group in groups.values()]
    found: dict[str, float] = {}
    for part in composite.parts if judged else ():
        values = [[j.scored.parts[part.name] for j in group] for group in groups.values()]
        for name, value in _of_part(part, values, centred).items():
            found[f"{prefix}{part.name}/{name}"] = value
    return found


def _of_part(
    part: Part, values: Sequence[Sequence[float | None]], centred: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Statistics of one part from its values in every group, and the totals without their mean."""
    paid = [[v for v in group if v is not None] for group in values]
    known = [v for group in paid for v in group]
    low, high = part.reward.bounds[0] + _SAME, part.reward.bounds[1] - _SAME
    found = {"absent": 1 - len(known) / sum(map(len, values))}
    if known:
        found["low"] = len([v for v in known if v <= low]) / len(known)
        found["high"] = len([v for v in known if v >= high]) / len(known)
    own = [_centred(group) for group in paid if len(group) > 1]
    if own:
        found["group_std"] = sum(math.sqrt(_dot(g, g) / len(g)) for g in own) / len(own)
    differing = [(v, c) for v, c in zip(values, centred, strict=True) if max(c) - min(c) >= _SAME]
    if differing:
        shares = [_dot([x or 0.0 for x in v], c) / _dot(c, c) for v, c in differing]
        found["share"] = part.weight * sum(shares) / len(shares)
    return found


def _centred(values: Sequence[float]) -> list[float]:
    """Values without their mean."""
    mean = sum(values) / len(values)
    return [v - mean for v in values]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    """Sum of products."""
    total: float = sum(map(mul, one, other))
    return total
