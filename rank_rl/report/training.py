"""Training logs: which stages made the checkpoints of a result, and their curves.

Contract: a log is found beside the checkpoint that a row names (relative to here, or to a folder
above the result), or in the folders that the user names; a stage appears once. Long curves are
thinned to ``MOST`` points, evenly, the first and the last kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rank_rl.data.files import json_lines
from rank_rl.errors import DataError
from rank_rl.report import shown
from rank_rl.report.charts import Axis, Chart, Figure, Point, Series, figure
from rank_rl.report.reading import Source
from rank_rl.report.tables import Cell, Table, numbers

LOG = "training_log.jsonl"
MOST = 200
SHARES = {"ok", "repaired", "failed", "truncated", "flat groups"}
Curve = list[tuple[float, float]]  # step, value
_MEAN = re.compile(r"^rewards/(?P<name>.+)/mean$")
# Title, unit and the curves of a panel, by the names of the log; the first that exists begins it.
_PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Loss", (("loss", "loss"),)),
    ("Reward and what copying the input earns",
     (("ranking/reward", "reward"), ("reward", "reward"), ("ranking/copy", "copy of the input"),
      ("ranking/ceiling", "best answer"))),
    ("Share of the reward's spread", ()),
    ("Answers by how they parse",
     (("ranking/parse_ok", "ok"), ("ranking/parse_repaired", "repaired"),
      ("ranking/parse_failed", "failed"), ("ranking/truncated", "truncated"))),
    ("Groups whose answers all earn the same", (("ranking/flat_groups", "flat groups"),)),
    ("Entropy", (("entropy", "entropy"),)),
    ("Length of answers in tokens", (("completions/mean_length", "mean length"),)),
    ("Learning rate", (("learning_rate", "learning rate"),)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A training stage: its name, its curves as figures, and the alarms that it raised."""

    name: str
    folder: Path
    figures: tuple[Figure, ...]
    alarms: tuple[str, ...]
    thinned: bool


def stages(sources: Sequence[Source], folders: Sequence[Path] = ()) -> list[Stage]:
    """Stages of the folders named, and of the checkpoints of all results.

    Raises:
        DataError: a folder that the user names has no training log, or the log is malformed.
    """
    logs: dict[Path, str] = {}
    for folder in folders:
        found = _log(folder)
        if found is None:
            raise DataError(f"no {LOG}", where=str(folder), expected="output folder of a stage")
        logs.setdefault(found.resolve(), folder.name or str(folder))
    for source in sources:
        for system in source.result["systems"]:
            if found := _of_checkpoint(str(system["model"].get("name") or ""), source.path.parent):
                logs.setdefault(found.resolve(), str(system["name"]))
    return [
        stage
        for number, (path, name) in enumerate(logs.items(), start=1)
        if (stage := _stage(path, name, f"t{number}")) is not None
    ]


def _of_checkpoint(name: str, folder: Path) -> Path | None:
    """The log of the stage whose checkpoint ``<stage>/final`` is."""
    if not name or name.startswith("pip:"):
        return None
    given = Path(name)
    if given.is_absolute() or ".." in given.parts:
        return _log(given.parent)
    for start in (Path(), *(folder.resolve(), *folder.resolve().parents)):
        if (start / given).is_dir() and (found := _log((start / given).parent)):
            return found
    return None


def _log(folder: Path) -> Path | None:
    """The log in a folder, or beside it when it is a checkpoint."""
    for place in (folder, folder.parent):
        if (place / LOG).is_file():
            return place / LOG
    return None


def _stage(path: Path, name: str, slug: str) -> Stage | None:
    curves, alarms = _read(path)
    title = f"{path.parent.name} ({name})" if path.parent.name != name else name
    made = [_validation(curves, slug, title), *_panels(curves, slug, title)]
    figures = tuple(f for f in made if f is not None)
    if not figures:
        return None
    longest = max(len(c) for c in curves.values())
    return Stage(
        name=title, folder=path.parent, figures=figures, alarms=alarms, thinned=longest > MOST
    )


def _read(path: Path) -> tuple[dict[str, Curve], tuple[str, ...]]:
    """Curves by name, and alarms in words."""
    curves: dict[str, Curve] = {}
    alarms = []
    for _, record in json_lines(path):
        step = shown.number(record.get("step"))
        if "alarm" in record:
            alarms.append(f"Step {shown.word(step)}, {record['alarm']}: {record.get('text', '')}")
        elif step is not None:
            for name, value in record.items():
                if (found := shown.number(value)) is not None and abs(found) != float("inf"):
                    curves.setdefault(name, []).append((step, found))
    return curves, tuple(alarms)


def _validation(curves: Mapping[str, Curve], slug: str, title: str) -> Figure | None:
    """The validation metric, with the first stage and the perfect order as lines."""
    beside = {"first_stage", "perfect", "selection", "queries", "seconds", "loss", "runtime"}
    names = [n for n in curves if n.startswith("eval_") and n.removeprefix("eval_") not in beside]
    chosen = [n for n in names if "parse" not in n and "_per_second" not in n][:3]
    if not chosen:
        return None
    references = tuple(
        (said, curves[key][-1][1])
        for key, said in (("eval_first_stage", "first stage"), ("eval_perfect", "perfect order"))
        if key in curves
    )
    named = {n: f"validation {n.removeprefix('eval_')}" for n in chosen}
    return _figure(f"{slug}-validation", f"{title}: validation", named, curves, references)


def _panels(curves: Mapping[str, Curve], slug: str, title: str) -> Iterable[Figure | None]:
    parts = {n: m["name"] for n in curves if (m := _MEAN.match(n))}
    yield _figure(f"{slug}-rewards", f"{title}: mean of each reward", parts, curves)
    for number, (panel, listed) in enumerate(_PANELS):
        named: dict[str, str] = {}
        if panel.startswith("Share"):
            named = {n.replace("/mean", "/share"): said for n, said in parts.items()}
            named = {n: said for n, said in named.items() if n in curves}
        for key, said in listed:
            if key in curves and said not in named.values():
                named[key] = said
        yield _figure(f"{slug}-{number}", f"{title}: {panel[:1].lower()}{panel[1:]}", named, curves)


def _figure(
    slug: str,
    title: str,
    named: Mapping[str, str],
    curves: Mapping[str, Curve],
    references: tuple[tuple[str, float], ...] = (),
) -> Figure | None:
    """One panel; nothing without a curve of it."""
    kept = {said: _thinned(curves[name]) for name, said in named.items() if curves.get(name)}
    if not kept:
        return None
    series = tuple(
        Series(name=said, points=tuple(Point(x=s, y=v) for s, v in curve), style=i)
        for i, (said, curve) in enumerate(kept.items())
    )
    last = "; ".join(f"{n} {shown.amount(c[0][1])} to {shown.amount(c[-1][1])}"
                     for n, c in kept.items())  # fmt: skip
    chart = Chart(
        title=title,
        description=f"By training step, from first to last: {last}.",
        x=Axis(title="step", whole=True),
        y=Axis(title=next(iter(kept)) if len(kept) == 1 else "value", bounds=_bounds(kept)),
        series=series,
        references=references,
    )
    return figure(slug, chart, _table(title, kept))


def _bounds(curves: Mapping[str, Curve]) -> tuple[float, float] | None:
    """From 0 to 1 for shares, so that a flat line is not blown up; else by the values."""
    return (-0.03, 1.03) if set(curves) <= SHARES else None


def _table(title: str, curves: Mapping[str, Curve]) -> Table:
    by_step: dict[float, dict[str, float]] = {}
    for name, curve in curves.items():
        for step, value in curve:
            by_step.setdefault(step, {})[name] = value
    rows = tuple(
        (Cell(text=f"{step:g}", value=step), *(_cell(values.get(name)) for name in curves))
        for step, values in sorted(by_step.items())
    )
    return Table(caption=title, columns=numbers("step", *curves), rows=rows)


def _cell(value: float | None) -> Cell:
    return Cell() if value is None else Cell(text=f"{value:.4g}", value=value)


def _thinned(curve: Curve) -> Curve:
    """One value a step (the last one logged), and at most ``MOST`` of them."""
    values = sorted(dict(curve).items())
    if len(values) <= MOST:
        return values
    last = len(values) - 1
    return [values[round(i * last / (MOST - 1))] for i in range(MOST)]
