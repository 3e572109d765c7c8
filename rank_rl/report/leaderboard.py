"""The leaderboard of a result: every system with intervals, tests, spread, share and costs.

Contract: numbers are those of the result file; nothing is tested again. What stands far below its
input order is warned about, by the result's own diagnosis or, where an old result has none, by the
same rule here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rank_rl.report import shape, shown, sparks
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Column, Mark, Table, text

FALL = 0.05  # as bench.diagnosis.fall by default
System = Mapping[str, Any]
Made = tuple[Column, Callable[[System], Cell]]


def leaderboard(source: Source) -> Table:
    """One row a system, in the order of the recipe; columns that nobody fills are left out."""
    result = source.result
    columns: list[Made] = [
        (Column(title="system", numeric=False), _named(source)),
        (Column(title="interval", drawn=True), _drawn(source)),
        *(_metric(source, m) for m in result["metrics"]),
        *_tests(source),
        *_seeds(source),
        *_judged(source),
        (Column(title="kind", numeric=False), lambda s: text(kind(s))),
        *_answers(),
        *_costs(source),
    ]
    rows = tuple(tuple(make(s) for _, make in columns) for s in result["systems"])
    table = Table(
        caption=f"Leaderboard of {source.label}: means over {shown.count(result['queries'])} "
        "queries with 95 % intervals",
        columns=tuple(c for c, _ in columns),
        rows=rows,
        kinds=tuple(kind(s) for s in result["systems"]),
    )
    return table.filled()


def kind(system: System) -> str:
    """What a row is, in words."""
    named = shape.KINDS.get(system["kind"], str(system["kind"]))
    return f"{named}, fused" if system["fusion"] else named


def legend(source: Source) -> list[Mark]:
    """One mark for each baseline that systems were tested against."""
    named = shape.baselines(source.result)
    return [Mark(letter=letter, baseline=name, better=True) for name, letter in named.items()]


def marks(source: Source) -> dict[tuple[str, str], tuple[Mark, ...]]:
    """(metric, system) → marks of significant differences, by Holm's p."""
    letters = shape.baselines(source.result)
    found: dict[tuple[str, str], tuple[Mark, ...]] = {}
    for c in source.result["comparisons"]:
        if c.get("p_holm", 1.0) < shown.LEVEL:
            name = c["baseline"]
            mark = Mark(letter=letters[name], baseline=name, better=c["difference"] > 0)
            place = c["metric"], c["system"]
            found[place] = (*found.get(place, ()), mark)
    return found


def warnings(source: Source) -> dict[str, list[str]]:
    """System → what is wrong with it, in words."""
    found: dict[str, list[str]] = {}
    first = shape.first_stage(source.result)
    start = shape.mean(first, source.metric) if first else None
    old = not source.result.get("schema")
    for system in source.result["systems"]:
        said = [str(w) for w in system["diagnosis"].get("warnings") or []]
        value = shape.mean(system, source.metric)
        fell = start is not None and value is not None and value < start - FALL
        if old and fell and system["model"]:
            said.append(
                f"{source.metric} {shown.score(value)} is far below the input order, which has "
                f"{shown.score(start)}"
            )
        if missing := system["missing_queries"]:
            said.append(f"{missing:,} queries are missing from its run and count as zero")
        if said:
            found[system["name"]] = said
    return found


def bounds(source: Source) -> tuple[float, float]:
    """The axis on which all intervals of the main metric are drawn."""
    found = [s["metrics"].get(source.metric) for s in source.result["systems"]]
    return (
        min([0.0, *(f["low"] for f in found if f)]),
        max([1.0, *(f["high"] for f in found if f)]),
    )


def _named(source: Source) -> Callable[[System], Cell]:
    warned = warnings(source)
    return lambda s: Cell(
        text=s["name"], value=s["name"].casefold(), warn="; ".join(warned.get(s["name"], []))
    )


def _drawn(source: Source) -> Callable[[System], Cell]:
    axis, first = bounds(source), shape.first_stage(source.result)
    reference = shape.mean(first, source.metric) if first else None

    def cell(system: System) -> Cell:
        found = system["metrics"].get(source.metric)
        if found is None:
            return Cell()
        spread = sparks.Spread(mean=found["mean"], low=found["low"], high=found["high"])
        asks = "" if system["model"] else "given"
        return Cell(plot=sparks.interval(spread, axis, reference=reference, style=asks))

    return cell


def _metric(source: Source, metric: str) -> Made:
    found = marks(source)

    def cell(system: System) -> Cell:
        measured = system["metrics"].get(metric)
        if measured is None:
            return Cell()
        return Cell(
            text=shown.score(measured["mean"]),
            value=measured["mean"],
            detail=shown.between(measured["low"], measured["high"]),
            marks=found.get((metric, system["name"]), ()),
        )

    return Column(title=metric, help="mean with 95 % interval; marks as below the table"), cell


def _tests(source: Source) -> list[Made]:
    """Differences from each baseline in the main metric, with Holm's p."""
    made: list[Made] = []
    for baseline, letter in shape.baselines(source.result).items():
        rows = {
            c["system"]: c
            for c in source.result["comparisons"]
            if c["baseline"] == baseline and c["metric"] == source.metric
        }

        def difference(system: System, rows: Mapping[str, Any] = rows) -> Cell:
            found = rows.get(system["name"])
            if found is None:
                return Cell()
            return Cell(
                text=shown.signed(found["difference"]),
                value=found["difference"],
                detail=f"p {shown.probability(found.get('p_holm'))}",
            )

        told = f"difference in {source.metric} from {baseline}, with Holm's p"
        made.append((Column(title=f"vs {baseline} ({letter})", help=told), difference))
    return made


def _seeds(source: Source) -> list[Made]:
    metric, teacher = source.metric, source.result["teacher"]

    def spread(system: System) -> Cell:
        value, measured = shown.number(system["spread"].get(metric)), len(system["seeds"])
        detail = f"{measured} seeds" if value is not None and measured else ""
        return Cell(text=shown.score(value), value=value, detail=detail)

    def share(system: System) -> Cell:
        found = system["kept"].get(metric)
        found = found if isinstance(found, dict) else {"share": found}
        value, gain = shown.number(found.get("share")), shown.number(found.get("gain"))
        detail = f"gain {shown.percent(gain)}" if gain is not None else ""
        return Cell(text=shown.percent(value), value=value, detail=detail)

    return [
        (Column(title="± seeds", help=f"standard deviation of {metric} between seeds"), spread),
        (Column(title="of teacher", help=_shared(teacher, metric)), share),
    ]


def _shared(teacher: str | None, metric: str) -> str:
    return (
        f"share of {teacher}'s {metric}; gain: the share of what {teacher} gains over the "
        "first stage"
    )


def _judged(source: Source) -> list[Made]:
    depths = dict.fromkeys(d for s in source.result["systems"] for d in s["judged"])

    def made(depth: str) -> Made:
        def cell(system: System) -> Cell:
            value = shown.number(system["judged"].get(depth))
            return Cell(text=shown.percent(value), value=value)

        told = f"share of the first {depth} documents that somebody has judged"
        return Column(title=f"judged@{depth}", help=told), cell

    return [made(str(depth)) for depth in depths]


def _answers() -> list[Made]:
    def readout(system: System) -> Cell:
        setting = system["setting"]
        said = ", ".join(str(setting[k]) for k in ("format", "readout") if setting.get(k))
        return text(said)

    def failed(system: System) -> Cell:
        value = shown.number(system["failure_rate"])
        return Cell(text=shown.percent(value), value=value)

    def malformed(system: System) -> Cell:
        notes = system["explanations"]
        value = notes["malformed"] / notes["written"] if notes.get("written") else None
        return Cell(text=shown.percent(value), value=value)

    return [
        (Column(title="asked as", help="prompt format and readout", numeric=False), readout),
        (Column(title="unreadable", help="share of answers (or slots) nobody could read"), failed),
        (Column(title="bad notes", help="share of explanations that are malformed"), malformed),
    ]


def _costs(source: Source) -> list[Made]:
    def mean(key: str) -> Callable[[System], Cell]:
        def cell(system: System) -> Cell:
            value = shown.number(system["costs"].get(key))
            return Cell(text=shown.amount(value), value=value)

        return cell

    def within(key: str, inner: str) -> Callable[[System], Cell]:
        def cell(system: System) -> Cell:
            value = shown.number((system[key] or {}).get(inner))
            detail = str((system[key] or {}).get("mode" if key == "latency" else "basis") or "")
            return Cell(text=shown.amount(value), value=value, detail=detail if value else "")

        return cell

    currency = source.result["currency"]
    return [
        (Column(title="calls", help="questions a query"), mean("calls")),
        (Column(title="tokens in", help="tokens read a query"), mean("prompt_tokens")),
        (Column(title="tokens out", help="tokens written a query"), mean("completion_tokens")),
        (Column(title="s / query", help="seconds a query"), mean("seconds")),
        (Column(title="p50 s", help="median seconds a query"), within("latency", "p50")),
        (Column(title="p95 s", help="95th percentile of seconds"), within("latency", "p95")),
        (Column(title=f"{currency} / 1000", help="price of 1000 queries"),
         within("price", "per_1000_queries")),
        (Column(title="kWh / 1000", help="energy of 1000 queries"),
         within("energy", "kwh_per_1000_queries")),
    ]  # fmt: skip
