"""What a ranking should not depend on and may: the order of its input, how documents are written.

Contract: measured by ``bench.diagnosis``; shown here. What a result does not have is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rank_rl.report import shown
from rank_rl.report.charts import Axis, Chart, Figure, Point, Series, figure
from rank_rl.report.differences import bounds, difference
from rank_rl.report.parts import Found, Part, each
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Table, names, numbers, text


def position(source: Source) -> Part | None:
    """How far rankings follow the order of their input."""
    found, copies = each(source, "position"), _copies(source)
    tables = [t for t in (_agreement(source, found), copies) if t is not None]
    if not tables:
        return None
    drawn = _gains(source, found)
    words = (
        "The same queries were ranked again with their candidates in random orders. Consistency is "
        "the mean Kendall tau between the rankings of one query (1: the order shown does not "
        "matter). Pull is how many places a document moves for each place it is shown further "
        "down (0: it does not look, 1: it copies). "
        if found
        else ""
    )
    words += (
        "The tau with the input order and the share of tied scores, whose order is the input's, "
        "are of all queries as they were ranked."
        if copies
        else ""
    )
    return Part(
        title="The order of the input",
        words=words.strip(),
        figures=(drawn,) if drawn else (),
        tables=tuple(tables),
    )


def formatting(source: Source) -> Part | None:
    """How far rankings follow the way in which documents are written."""
    found = {
        name: {v["name"]: v for v in measured.get("variants") or [] if _measured(v)}
        for name, measured in each(source, "formatting")
    }
    variants = dict.fromkeys(v for by_name in found.values() for v in by_name)
    if not variants:
        return None
    axis = bounds([v for by_name in found.values() for v in by_name.values()])
    gaps, taus = [], []
    for variant in variants:
        row = [by_name.get(variant) for by_name in found.values()]
        said = text(variant.replace("_", " "))
        gaps.append((said, *(Cell() if v is None else _gap(v, axis) for v in row)))
        numbers_of = [None if v is None else shown.number(v.get("tau")) for v in row]
        taus.append((said, *(Cell(text=shown.score(t), value=t) for t in numbers_of)))
    columns = (*names("documents"), *numbers(*found))
    about = "with documents written in other ways"
    captions = (
        f"Difference in {source.metric} {about}, {source.label}",
        f"Kendall tau with the usual ranking {about}, {source.label}",
    )
    return Part(
        title="How documents are written",
        words="The same queries were ranked again with their documents written in other ways that "
        "keep the words; a ranking should not depend on that.",
        tables=tuple(
            Table(caption=caption, columns=columns, rows=tuple(rows))
            for caption, rows in zip(captions, (gaps, taus), strict=True)
        ),
    )


def _measured(variant: Mapping[str, Any]) -> bool:
    return shown.number(variant.get("difference")) is not None


def _gap(variant: Mapping[str, Any], axis: tuple[float, float]) -> Cell:
    said, drawn = difference(variant, axis)
    return replace(said, plot=drawn.plot)


def _gains(source: Source, found: Found) -> Figure | None:
    """Places gained by position in the input, one line a system."""
    series = tuple(
        Series(
            name=name,
            points=tuple(
                Point(x=p["input_rank"], y=p["mean_gain"]) for p in position.get("promotion") or []
            ),
            style=number,
        )
        for number, (name, position) in enumerate(found)
    )
    if not any(s.points for s in series):
        return None
    words = "; ".join(f"{n}: consistency {shown.score(p.get('consistency'))}" for n, p in found)
    chart = Chart(
        title=f"Places gained by position in the input, {source.label}",
        description=f"A system that does not look at positions is flat at zero. {words}.",
        x=Axis(title="position in the input", whole=True),
        y=Axis(title="places gained on average"),
        series=tuple(s for s in series if s.points),
        references=(("no gain", 0.0),),
    )
    return figure(f"{source.slug}-position", chart, _promotions(source, found), large=True)


def _agreement(source: Source, found: Found) -> Table | None:
    if not found:
        return None
    columns = (
        *names("system"),
        *numbers(
            "consistency (tau)", "same first document", "first ten in common", "by chance", "pull",
            f"{source.metric} given", "shuffled", "queries", "shuffles",
        ),
    )  # fmt: skip
    rows = []
    for name, position in found:
        shares = [shown.number(position.get(k)) for k in
                  ("top1_overlap", "top10_overlap", "top10_chance")]  # fmt: skip
        tau, quality = shown.number(position.get("consistency")), position.get("quality") or {}
        pull = position.get("pull") or {}
        counts = [shown.number(position.get(k)) for k in ("queries", "shuffles")]
        rows.append(
            (
                text(name),
                Cell(text=shown.score(tau), value=tau),
                *(Cell(text=shown.percent(v), value=v) for v in shares),
                Cell(
                    text=shown.signed(shown.number(pull.get("mean"))),
                    value=shown.number(pull.get("mean")),
                    detail=shown.from_to(pull.get("low"), pull.get("high")),
                ),
                *_quality(quality),
                *(Cell(text=shown.count(v), value=v) for v in counts),
            )
        )
    caption = f"Rankings of the same queries under other input orders, {source.label}"
    return Table(caption=caption, columns=columns, rows=tuple(rows)).filled()


def _quality(quality: Mapping[str, Any]) -> tuple[Cell, Cell]:
    given, other = shown.number(quality.get("given")), shown.number(quality.get("shuffled"))
    gap = shown.from_to(quality.get("low"), quality.get("high"))
    return (
        Cell(text=shown.score(given), value=given),
        Cell(text=shown.score(other), value=other, detail=f"difference {gap}" if gap else ""),
    )


def _copies(source: Source) -> Table | None:
    """Kendall tau with the input order, and tied scores."""
    rows = []
    for system in source.result["systems"]:
        tau = shown.number(system["diagnosis"].get("input_tau"))
        tied = shown.number(system["diagnosis"].get("tied"))
        if tau is not None or tied is not None:
            cells = (
                Cell(text=shown.score(tau), value=tau),
                Cell(text=shown.percent(tied), value=tied),
            )
            rows.append((text(system["name"]), *cells))
    if not rows:
        return None
    columns = (*names("system"), *numbers("tau with the input order", "tied scores"))
    caption = f"How near rankings are to their input, {source.label}"
    return Table(caption=caption, columns=columns, rows=tuple(rows)).filled()


def _promotions(source: Source, found: Found) -> Table:
    by_rank: dict[int, dict[str, float]] = {}
    shares: dict[str, dict[int, float]] = {}
    for name, position in found:
        for point in position.get("promotion") or []:
            by_rank.setdefault(int(point["input_rank"]), {})[name] = point["mean_gain"]
        shares[name] = {
            int(p["input_rank"]): p["share"] for p in position.get("top1_share") or []
        }  # fmt: skip
    titles = [t for name, _ in found for t in (f"{name}: gain", f"{name}: put first")]
    rows = tuple(
        (
            Cell(text=str(rank), value=float(rank)),
            *(
                cell
                for name, _ in found
                for cell in (
                    Cell(text=shown.signed(gains.get(name)), value=gains.get(name)),
                    Cell(text=shown.percent(shares[name].get(rank)), value=shares[name].get(rank)),
                )
            ),
        )
        for rank, gains in sorted(by_rank.items())
    )
    caption = f"Places gained, and share put first, by position in the input, {source.label}"
    return Table(caption=caption, columns=numbers("position", *titles), rows=rows).filled()
