"""Of several answers to one question, those that are kept.

``consensus`` keeps the one nearest to all others (mean Kendall's tau, as self-consistency does for
answers; Wang et al., 2023), ``best`` the one of highest nDCG by the grades, ``pareto`` every one
that no other beats in quality without being longer (quality is nDCG where there are grades, else
agreement with the other samples). Unreadable answers are kept only where there is nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rank_rl.metrics import kendall, ndcg
from rank_rl.records import Grades

if TYPE_CHECKING:
    from rank_rl.teachers.units import Trail

Trails = Sequence["Trail"]


def choose(name: str, trails: Trails, grades: Grades | None) -> tuple[Trail, ...]:
    """The trails of ``name``'s choice, best first; never none of some.

    Args:
        name: ``first``, ``consensus``, ``best`` or ``pareto``.
        trails: the samples of one question about one unit.
        grades: by docid, where they are known.
    """
    if len(trails) < 2:
        return tuple(trails)
    readable = [t for t in trails if t.readable] or list(trails)
    return _RULES[name](readable, grades)


def agreement(trail: Trail, others: Trails) -> float:
    """Mean Kendall's tau of a trail's order with those of other trails; 1 where there are none."""
    taus = [
        kendall(trail.ranking.docids, other.ranking.docids)
        for other in others
        if other is not trail and other.readable
    ]
    return sum(taus) / len(taus) if taus else 1.0


def quality(trail: Trail, others: Trails, grades: Grades | None) -> float:
    """nDCG@10 by the grades, or agreement with the other samples where nothing is relevant."""
    if any(g > 0 for g in (grades or {}).values()):
        return ndcg(trail.ranking.docids, grades or {})
    return agreement(trail, others)


def _first(trails: Trails, grades: Grades | None) -> tuple[Trail, ...]:
    return (trails[0],)


def _consensus(trails: Trails, grades: Grades | None) -> tuple[Trail, ...]:
    return (min(trails, key=lambda t: (-agreement(t, trails), t.length, t.sample)),)


def _best(trails: Trails, grades: Grades | None) -> tuple[Trail, ...]:
    return (min(trails, key=lambda t: (-quality(t, trails, grades), t.length, t.sample)),)


def _pareto(trails: Trails, grades: Grades | None) -> tuple[Trail, ...]:
    """The front, best quality first; of answers equal in both, the first drawn."""
    ordered = sorted(trails, key=lambda t: (-quality(t, trails, grades), t.length, t.sample))
    front: list[Trail] = []
    for trail in ordered:
        if not front or trail.length < front[-1].length:
            front.append(trail)
    return tuple(front)


_RULES: Mapping[str, Callable[[Trails, Grades | None], tuple[Trail, ...]]] = {
    "first": _first,
    "consensus": _consensus,
    "best": _best,
    "pareto": _pareto,
}
