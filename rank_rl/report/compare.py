"""Two systems side by side: paired differences, wins and losses, and what changed most.

Contract: a side is a system, a checkpoint or a result; values are paired by query over the queries
that both have. Intervals and tests are those of ``bench.stats``. Nothing is shown here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rank_rl.bench import stats
from rank_rl.errors import DataError, RecipeError
from rank_rl.registry import nearest
from rank_rl.report import reading, shape
from rank_rl.report.diagnosis import TIE
from rank_rl.report.reading import Source
from rank_rl.report.safe import shortened

SAMPLES = 10_000
CHANGES = 5  # queries shown each way
DEPTH = 10  # documents shown of an order
BEGINNING = 90  # characters shown of a document
APART = "::"
Named = tuple[Source, str]  # a result and the name of a system, "" for any


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A system of a result."""

    source: Source
    system: str

    def values(self, metric: str) -> dict[str, float]:
        """Values by query."""
        return dict(self.source.result["per_query"].get(self.system, {}).get(metric) or {})


Pair = tuple[Side, Side]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One metric of both: means, ``second - first`` with its interval and p, and queries won."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A document in an order; ``judged`` says whether grades are known, None is unjudged then."""

    docid: str
    text: str
    grade: int | None
    judged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A query on which the two differ, with the first documents of both orders."""

    qid: str
    query: str
    first: float
    second: float
    before: tuple[Ranked, ...]
    after: tuple[Ranked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two systems over the queries that both have.

    Attributes:
        first, second: their names, with the result's where the results differ.
        queries, apart: paired queries, and those that only one of them has.
        measured: the metrics that both have, the main one first.
        gains, falls: where the second is most above and below the first, in the main metric.
        warnings: why the two might not be comparable.
    """

    first: str
    second: str
    queries: int
    apart: int
    measured: tuple[Measured, ...]
    gains: tuple[Change, ...]
    falls: tuple[Change, ...]
    warnings: tuple[str, ...] = ()


def compared(sources: Sequence[Source], first: str, second: str) -> list[Comparison]:
    """Compare two sides in every result, or pair of results, that has both.

    Args:
        sources: the results of the page.
        first, second: each the name of a system, a checkpoint that a row names, or a result file
            or folder, with ``::NAME`` for one of its systems. Of two results without names every
            system that both have and that asks a model is compared.

    Raises:
        RecipeError: no such system.
        DataError: a result cannot be read, or the sides share no query.
    """
    one, other = _side(sources, first), _side(sources, second)
    if one is None and other is None:
        pairs = _in_each(sources, first, second)
    else:
        pairs = _across(
            one or [(s, first) for s in sources], other or [(s, second) for s in sources]
        )
    return [comparison(a, b) for a, b in pairs]


def comparison(first: Side, second: Side) -> Comparison:
    """Compare two sides.

    Raises:
        DataError: they share no metric or no query.
    """
    theirs = second.source.result["metrics"]
    shared = [m for m in first.source.result["metrics"] if m in theirs]
    measured = [m for name in shared if (m := _measured(first, second, name)) is not None]
    if not measured:
        raise DataError(
            f"{first.system!r} and {second.system!r} share no query with values",
            where="--compare",
            expected="two systems measured on the same queries",
        )
    one, other = first.values(measured[0].metric), second.values(measured[0].metric)
    gaps = {q: other[q] - one[q] for q in one if q in other}
    ordered = sorted(gaps, key=lambda q: gaps[q])
    gained = [q for q in reversed(ordered) if gaps[q] > TIE][:CHANGES]
    fallen = [q for q in ordered if gaps[q] < -TIE][:CHANGES]
    names = _names(first, second)
    return Comparison(
        first=names[0],
        second=names[1],
        queries=len(gaps),
        apart=len(one.keys() ^ other.keys()),
        measured=tuple(measured),
        gains=tuple(_change(first, second, q, one[q], other[q]) for q in gained),
        falls=tuple(_change(first, second, q, one[q], other[q]) for q in fallen),
        warnings=tuple(_warnings(first.source, second.source)),
    )


def _side(sources: Sequence[Source], given: str) -> list[Named] | None:
    """Results that a side names, each with a system ("" for any); None when it names a system."""
    place, _, system = given.partition(APART)
    named = any(_system(source, given) for source in sources)
    if named or not reading.holds_results(Path(place)):
        return None
    return [(source, system) for source in reading.sources([Path(place)], sources[0].metric)]


def _in_each(sources: Sequence[Source], first: str, second: str) -> list[Pair]:
    """Both in every result that has both; else each where it is."""
    found = []
    for source in sources:
        a, b = _system(source, first), _system(source, second)
        if a and b:
            found.append((Side(source=source, system=a), Side(source=source, system=b)))
    return found or _across([(s, first) for s in sources], [(s, second) for s in sources])


def _across(firsts: Sequence[Named], seconds: Sequence[Named]) -> list[Pair]:
    """Pairs of results of the same collection, or the only ones; systems by name or as shared."""
    _known(firsts)
    _known(seconds)
    only = len(firsts) == len(seconds) == 1
    found = [
        (Side(source=one, system=x), Side(source=other, system=y))
        for one, a in firsts
        for other, b in seconds
        if only or _collection(one) == _collection(other)
        for x, y in _systems(one, a, other, b)
    ]
    if not found:
        raise RecipeError(
            "the two sides have no system and collection in common",
            where="--compare",
            expected="results of the same collection; name a system with FOLDER::SYSTEM",
        )
    return found


def _known(side: Sequence[Named]) -> None:
    """Refuse a name that none of the results knows."""
    for _, name in side:
        if name and not any(_system(source, name) for source, _ in side):
            known = dict.fromkeys(s["name"] for source, _ in side for s in source.result["systems"])
            raise RecipeError(
                f"no system {name!r}",
                where="--compare",
                expected=f"one of {', '.join(known)}, a checkpoint of theirs, or a result folder",
                remedy=nearest(name, known),
            )


def _systems(one: Source, a: str, other: Source, b: str) -> list[tuple[str, str]]:
    """Which systems of two results are compared."""
    if not a and not b:
        theirs = {s["name"] for s in shape.asked(other.result)}
        return [(s["name"], s["name"]) for s in shape.asked(one.result) if s["name"] in theirs]
    x = _system(one, a or b)
    y = _system(other, b or a)
    return [(x, y)] if x and y else []


def _system(source: Source, given: str) -> str | None:
    """The row of that name, or the one whose checkpoint it is."""
    systems = source.result["systems"]
    if any(s["name"] == given for s in systems):
        return given
    wanted = given.rstrip("/")
    for system in systems:
        model = str(system["model"].get("name") or "").rstrip("/")
        if model and (model == wanted or Path(wanted).resolve() == Path(model).resolve()):
            return str(system["name"])
    return None


def _measured(first: Side, second: Side, metric: str) -> Measured | None:
    one, other = first.values(metric), second.values(metric)
    shared = [q for q in one if q in other]
    if not shared:
        return None
    a, b = [one[q] for q in shared], [other[q] for q in shared]
    result = first.source.result
    seed, samples = int(result.get("seed") or 0), int(result["resamples"]) or SAMPLES
    found = stats.difference(a, b, samples=samples, seed=seed)
    gaps = [y - x for x, y in zip(a, b, strict=True)]
    wins, losses = sum(g > TIE for g in gaps), sum(g < -TIE for g in gaps)
    return Measured(
        metric=metric,
        first=sum(a) / len(a),
        second=sum(b) / len(b),
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=stats.randomisation_test(a, b, samples=samples, seed=seed),
        wins=wins,
        ties=len(gaps) - wins - losses,
        losses=losses,
    )


def _change(first: Side, second: Side, qid: str, one: float, other: float) -> Change:
    return Change(
        qid=qid,
        query=first.source.beside.question(qid),
        first=one,
        second=other,
        before=_order(first, qid),
        after=_order(second, qid),
    )


def _order(side: Side, qid: str) -> tuple[Ranked, ...]:
    task = side.source.beside.tasks.get(qid)
    texts = {c.docid: c.content for c in task.candidates} if task else {}
    grades = task.grades if task else None
    docids = side.source.beside.orders(side.system).get(qid) or ()
    return tuple(
        Ranked(
            docid=d,
            text=shortened(" ".join(texts.get(d, "").split()), BEGINNING),
            grade=(grades or {}).get(d),
            judged=grades is not None,
        )
        for d in docids[:DEPTH]
    )


def _names(first: Side, second: Side) -> tuple[str, str]:
    one, other = first.source.path, second.source.path
    if one == other:
        return first.system, second.system
    # From the end, the first part of the two paths in which they differ tells them apart.
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    a, b = next(((x, y) for x, y in pairs if x != y), (str(one), str(other)))
    return f"{first.system} ({a})", f"{second.system} ({b})"


def _collection(source: Source) -> str:
    return str(source.result["collection"]["name"])


def _warnings(one: Source, other: Source) -> list[str]:
    if one.path == other.path:
        return []
    pairs = [(key, one.result["collection"].get(key), other.result["collection"].get(key))
             for key in ("name", "judgements", "candidates", "first_stage", "depth")]  # fmt: skip
    return [
        f"The two results differ in their {key.replace('_', ' ')}: differences may come from that."
        for key, a, b in pairs
        if a is not None and b is not None and a != b
    ]
