"""``rank-rl bench``: every system of a recipe on the held-out queries, compared and written down.

Contract: means are over all test queries that have a relevant document; a query that a system
leaves out counts as zero. ``result.json`` holds everything a table needs, per query, so that no
number is ever typed by hand, and no absolute path of this machine. Computing one system is
``systems``, printing is ``tables``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rank_rl
from rank_rl import data
from rank_rl.bench import stats, tables
from rank_rl.bench.fused import Entry, entries, row_names
from rank_rl.bench.measures import Judgements, PerQuery, check_metrics, measure
from rank_rl.bench.progress import bar
from rank_rl.bench.setting import Models
from rank_rl.bench.systems import Paths, SystemRun, check, compute
from rank_rl.data import Collection
from rank_rl.data.files import write_lines
from rank_rl.errors import DataError, RecipeError
from rank_rl.registry import nearest
from rank_rl.specs import BenchSpec, RecipeSpec

log = logging.getLogger(__name__)
RESULT = "result.json"


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Run the benchmark of a recipe.

    Args:
        spec: a recipe with a ``bench`` section.
        info: hash, versions and git state, copied into the result.

    Returns:
        A summary: the ``table`` (rows for printing), its ``legend``, ``steps``, and the paths of
        ``result``, ``runs`` and ``exchanges``. Other processes than the first return nothing.

    Raises:
        RankRLError: recipe, data, a model or the disk is wrong; finished systems are kept.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    bench = _check(spec)
    out_dir = Path(spec.run.output_dir)
    collection = data.load(spec.data, seed=spec.run.seed)
    if not collection.test:
        raise DataError("no test queries", where=f"data source {spec.data.source!r}")
    judgements = Judgements.of(collection.test)
    check_metrics(judgements, bench.metrics)
    models = Models(spec)
    for system in bench.systems:
        check(system, spec, models, collection.test)
    found: list[Entry] = []
    values: dict[str, PerQuery] = {}
    for system in bench.systems:
        with bar(system.name) as progress:
            done = compute(system, spec, collection, models, out_dir, progress)
        for entry in entries(system, done, collection.test, out_dir):
            found.append(entry)
            values[entry.name] = _measure(entry.run, judgements, bench.metrics)
            shown = ", ".join(f"{m} {_mean(v):.3f}" for m, v in values[entry.name].items())
            log.info("%s: %s", entry.name, shown)
    result = {
        **_facts(spec, info, collection, judgements),
        "systems": [_row(entry, values[entry.name], judgements, spec) for entry in found],
        "comparisons": _comparisons(bench, values, spec.run.seed),
        "steps": _steps(bench, values, spec.run.seed),
        "per_query": values,
    }
    write_lines(out_dir / RESULT, [json.dumps(result, indent=1, ensure_ascii=False)])
    return {
        "table": tables.rows(result),
        "legend": tables.legend(result),
        "steps": tables.step_lines(result),
        "queries": result["queries"],
        "result": str(out_dir / RESULT),
        "runs": str(out_dir / "runs"),
        "exchanges": str(out_dir / "exchanges"),
    }


def _check(spec: RecipeSpec) -> BenchSpec:
    """Refuse what could only fail after the systems have been computed."""
    bench = spec.bench
    if bench is None or not bench.systems:
        raise RecipeError("no systems", where="bench", expected="at least one system")
    names = row_names(bench)
    files = [Paths.of(Path(), name).record for name in names]
    if len(set(files)) != len(files):
        raise RecipeError("two systems share a name", where="bench.systems", expected="distinct")
    for key, asked in (
        ("bench.baselines", bench.baselines),
        ("bench.steps", [name for step in bench.steps for name in step]),
    ):
        for name in asked:
            if name not in names:
                raise RecipeError(
                    f"no system {name!r}",
                    where=key,
                    expected=f"one of {', '.join(names)}",
                    remedy=nearest(name, names, cutoff=0.3),
                )
    for system in bench.systems:
        if system.explain and system.kind != "slots":
            raise RecipeError(
                f"kind {system.kind} cannot explain afterwards",
                where=f"bench.systems {system.name!r}",
                expected="kind slots (a text format with mode reason explains itself)",
            )
    if not bench.metrics:
        raise RecipeError("no metrics", where="bench.metrics", expected="e.g. ndcg@10")
    return bench


def _measure(run: SystemRun, judgements: Judgements, metrics: Sequence[str]) -> PerQuery:
    """Values by metric and query, averaged over the runs of a system that has several."""
    found = [measure(rankings, judgements, metrics) for rankings in run.rankings]
    return {
        m: {q: sum(f[m][q] for f in found) / len(found) for q in judgements.grades} for m in metrics
    }


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _facts(
    spec: RecipeSpec, info: Mapping[str, Any], collection: Collection, judgements: Judgements
) -> dict[str, Any]:
    return {
        "name": spec.run.name,
        "recipe": {
            "path": portable(str(info.get("path", ""))),
            "hash": str(info.get("hash", "")),
        },
        "seed": spec.run.seed,
        "rank_rl": rank_rl.__version__,
        "versions": dict(info.get("versions") or {}),
        "git": info.get("git"),
        "data": portable({"name": collection.name, **collection.provenance}),
        "metrics": list(spec.bench.metrics) if spec.bench else [],
        "queries": len(judgements.grades),
        "queries_without_relevant": judgements.without_relevant,
        "resamples": spec.bench.samples if spec.bench else 0,
    }


def portable(value: Any) -> Any:
    """A JSON value without absolute paths: relative to here, or else their last two parts."""
    if isinstance(value, Mapping):
        return {portable(k): portable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [portable(v) for v in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path, here = Path(value), Path.cwd()
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    return "/".join(path.relative_to(path.anchor).parts[-2:])


def _row(
    entry: Entry, values: PerQuery, judgements: Judgements, spec: RecipeSpec
) -> dict[str, Any]:
    samples = spec.bench.samples if spec.bench else 10000
    run, asked = entry.run, Paths.of(Path(), entry.system.name)
    fusion = entry.system.fusion if entry.name != entry.system.name else None
    return {
        "name": entry.name,
        "kind": entry.system.kind,
        "metrics": {
            m: asdict(stats.bootstrap(list(v.values()), samples=samples, seed=spec.run.seed))
            for m, v in values.items()
        },
        "missing_queries": sum(q not in run.rankings[0] for q in judgements.grades),
        "model": portable(run.model),
        "setting": run.setting,
        "fusion": fusion.model_dump() if fusion else None,
        "statuses": run.statuses,
        "failure_rate": _rate(run.statuses, "failed"),
        "explanations": run.explanations,
        "cuts": run.cuts,
        "costs": _costs(run),
        "run": str(Paths.of(Path(), entry.name).run),
        "exchanges": str(asked.exchanges) if run.model else None,
    }


def _rate(statuses: Mapping[str, int], status: str) -> float | None:
    total = sum(statuses.values())
    return statuses.get(status, 0) / total if total else None


def _costs(run: SystemRun) -> dict[str, float]:
    """Mean cost of a query."""
    names = sorted({name for cost in run.costs.values() for name in cost})
    return {n: sum(c[n] for c in run.costs.values()) / len(run.costs) for n in names}


def _comparisons(
    bench: BenchSpec, values: Mapping[str, PerQuery], seed: int
) -> list[dict[str, Any]]:
    """Every system against every baseline, Holm's correction within metric and baseline."""
    rows: list[dict[str, Any]] = []
    for metric in bench.metrics:
        for baseline in bench.baselines:
            others = [name for name in values if name != baseline]
            found = {o: _compare(values, metric, baseline, o, bench.samples, seed) for o in others}
            adjusted = stats.holm({o: row["p"] for o, row in found.items()})
            rows += [
                {"metric": metric, "baseline": baseline, "system": o, **row, "p_holm": adjusted[o]}
                for o, row in found.items()
            ]
    return rows


def _steps(bench: BenchSpec, values: Mapping[str, PerQuery], seed: int) -> list[dict[str, Any]]:
    """What each stage added: differences of named pairs, uncorrected."""
    return [
        {"metric": m, "from": a, "to": b, **_compare(values, m, a, b, bench.samples, seed)}
        for m in bench.metrics
        for a, b in bench.steps
    ]


def _compare(
    values: Mapping[str, PerQuery], metric: str, first: str, second: str, samples: int, seed: int
) -> dict[str, float]:
    a, b = list(values[first][metric].values()), list(values[second][metric].values())
    difference = stats.difference(a, b, samples=samples, seed=seed)
    return {
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": stats.randomisation_test(a, b, samples=samples, seed=seed),
    }
