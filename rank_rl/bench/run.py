"""``rank-rl bench``: every system of a recipe on the held-out queries, compared and written down.

Contract: means are over all test queries that have a relevant document; a query that a system
leaves out counts as zero. Each system, collection and seed has a document, ``result.json`` is made
of these alone and holds everything a table needs, per query, so that no number is ever typed by
hand, and no absolute path of this machine. Computing one system is ``systems``, comparing is
``merge``, printing is ``tables``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rank_rl
from rank_rl.bench import costs, diagnosis, tables
from rank_rl.bench.document import Document
from rank_rl.bench.fused import Entry, entries, row_names
from rank_rl.bench.layout import REPORT, RESULT, RESULTS, TASKS
from rank_rl.bench.measured import Measured, folder, measured
from rank_rl.bench.measures import PerQuery, judged, measure
from rank_rl.bench.merge import Plan, merge
from rank_rl.bench.progress import bar
from rank_rl.bench.seeding import draws, jobs
from rank_rl.bench.setting import Models
from rank_rl.bench.systems import Job, Paths, SystemRun, check, compute
from rank_rl.data.files import write_lines
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import RecipeError
from rank_rl.hub.scrub import portable
from rank_rl.registry import nearest
from rank_rl.specs import BenchSpec, RecipeSpec, SystemSpec

log = logging.getLogger(__name__)


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Run the benchmark of a recipe.

    Args:
        spec: a recipe with a ``bench`` section.
        info: hash, versions and git state, copied into the result.

    Returns:
        A summary: the ``table`` (rows for printing), its ``legend``, ``steps``, and the paths of
        ``result``, ``runs``, ``exchanges`` and ``report``. Other processes than the first return
        nothing.

    Raises:
        RankRLError: recipe, data, a model or the disk is wrong; finished systems are kept.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    bench = _check(spec)
    if bench.energy:
        costs.check_energy()
    sets = measured(spec, bench)
    models = Models(spec)
    for one in sets:
        for system in bench.systems:
            for job in jobs(system, spec, one):
                check(job.system, job.spec, models, one.tasks)
    for one in sets:
        write_tasks(one.out_dir / TASKS, one.tasks)
    documents: dict[str, list[Document]] = {one.name: [] for one in sets}
    for system in bench.systems:  # a model that is loaded ranks all collections
        for one in sets:
            documents[one.name] += _documents(system, spec, one, models)
    results = [_result(spec, info, bench, one, documents[one.name]) for one in sets]
    return _summary(spec, bench, sets, results)


def _check(spec: RecipeSpec) -> BenchSpec:
    """Refuse what could only fail after the systems have been computed."""
    bench = spec.bench
    if bench is None or not bench.systems:
        raise RecipeError("no systems", where="bench", expected="at least one system")
    names = row_names(bench)
    files = [Paths.of(Path(), name).record for name in names]
    if len(set(files)) != len(files):
        raise RecipeError("two systems share a name", where="bench.systems", expected="distinct")
    folders = [folder(one.name) for one in bench.collections]
    if len(set(folders)) != len(folders):
        raise RecipeError("two share a folder", where="bench.collections", expected="other names")
    for key, asked in (
        ("bench.baselines", bench.baselines),
        ("bench.steps", [name for step in bench.steps for name in step]),
        ("bench.teacher", [bench.teacher] if bench.teacher else []),
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


def _documents(
    system: SystemSpec, spec: RecipeSpec, one: Measured, models: Models
) -> list[Document]:
    """Measure a system on a collection with each of its seeds; its fused row follows it."""
    found: dict[str, list[Document]] = {}
    for job in jobs(system, spec, one):
        with bar(system.name) as progress:
            done = compute(job, models, progress)
        for entry in entries(job.system, done, one.tasks, job.paths):
            document = _document(entry, job, one, drawn=draws(system, spec))
            document.write(entry.paths.document)
            found.setdefault(entry.name, []).append(document)
            means = ", ".join(f"{m} {_mean(v):.3f}" for m, v in document.per_query.items())
            seed = f" (seed {document.seed})" if document.drawn else ""
            log.info("%s, %s%s: %s", one.name, entry.name, seed, means)
    return [document for rows in found.values() for document in rows]


def _document(entry: Entry, job: Job, one: Measured, *, drawn: bool) -> Document:
    run, fused = entry.run, entry.name != entry.system.name
    fusion = entry.system.fusion if fused else None
    exchanges = job.paths.exchanges if run.model else None
    asked = [] if fused or exchanges is None else diagnosis.records(exchanges)
    return Document(
        key=run.key,
        system=entry.name,
        kind=entry.system.kind,
        seed=job.spec.run.seed,
        drawn=drawn,
        collection=one.facts,
        model=portable(run.model),
        setting=run.setting,
        fusion=fusion.model_dump() if fusion else None,
        per_query=_measure(entry, one),
        missing_queries=sum(q not in run.rankings[0] for q in one.judgements.grades),
        judged={str(k): judged(run.rankings[0], one.judgements, k) for k in _bench(job).judged_at},
        costs=run.costs,
        statuses=run.statuses,
        issues=run.issues,
        explanations=run.explanations,
        cuts=run.cuts,
        energy=run.energy,
        probes={} if fused else run.probes,
        diagnosis=_diagnosis(asked, run, one, _bench(job)),
        run=entry.paths.run.relative_to(one.out_dir).as_posix(),
        exchanges=exchanges.relative_to(one.out_dir).as_posix() if exchanges else None,
    )


def _diagnosis(
    asked: Sequence[Mapping[str, Any]], run: SystemRun, one: Measured, bench: BenchSpec
) -> dict[str, Any]:
    """What the answers show; of rankings without answers, how near they are to the input."""
    rankings = run.rankings[0]
    if not asked:
        tau = diagnosis.input_tau(rankings, one.tasks) if len(run.rankings) == 1 else None
        return {} if tau is None else {"input_tau": tau}
    return diagnosis.of_answers(
        asked,
        one.tasks,
        bench.diagnosis,
        rankings=rankings,
        statuses=run.statuses,
        values=run.worths,
    )


def _bench(job: Job) -> BenchSpec:
    if job.spec.bench is None:
        raise RecipeError("no systems", where="bench", expected="at least one system")
    return job.spec.bench


def _measure(entry: Entry, one: Measured) -> PerQuery:
    """Values by metric and query, averaged over the runs of a system that has several."""
    found = [measure(rankings, one.judgements, one.metrics) for rankings in entry.run.rankings]
    return {
        m: {q: sum(f[m][q] for f in found) / len(found) for q in one.judgements.grades}
        for m in one.metrics
    }


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _result(
    spec: RecipeSpec,
    info: Mapping[str, Any],
    bench: BenchSpec,
    one: Measured,
    documents: Sequence[Document],
) -> dict[str, Any]:
    facts = {
        "name": spec.run.name,
        "recipe": {
            "path": portable(str(info.get("path", ""))),
            "hash": str(info.get("hash", "")),
        },
        "rank_rl": rank_rl.__version__,
        "versions": dict(info.get("versions") or {}),
        "git": info.get("git"),
        "data": portable({**one.collection.provenance, "name": one.name}),
        "leaks": one.leaks,
    }
    plan = Plan.of(bench, one.metrics, spec.run.seed)
    result = merge(documents, plan, facts, one.tasks)
    write_lines(one.out_dir / RESULT, [json.dumps(result, indent=1, ensure_ascii=False)])
    return result


def _summary(
    spec: RecipeSpec, bench: BenchSpec, sets: Sequence[Measured], results: list[dict[str, Any]]
) -> dict[str, Any]:
    out_dir = Path(spec.run.output_dir)
    paths = [one.out_dir / RESULT for one in sets]
    summary: dict[str, Any] = {}
    if len(sets) > 1 or bench.collections:
        average = tables.average(results)
        index = {
            "name": spec.run.name,
            "collections": {
                one.name: path.relative_to(out_dir).as_posix()
                for one, path in zip(sets, paths, strict=True)
            },
            "average": average,
        }
        write_lines(out_dir / RESULTS, [json.dumps(index, indent=1, ensure_ascii=False)])
        summary |= {"table": average, "results": str(out_dir / RESULTS)}
        summary["legend"] = [
            f"means over {len(sets)} collections: {', '.join(one.name for one in sets)}"
        ]
    else:
        (result,) = results
        summary |= {
            "table": tables.rows(result),
            "legend": tables.legend(result),
            "steps": tables.step_lines(result),
            "queries": result["queries"],
            "result": str(out_dir / RESULT),
            "runs": str(out_dir / "runs"),
            "exchanges": str(out_dir / "exchanges"),
        }
    summary["warnings"] = [
        f"{system['name']}: {warning}"
        for result in results
        for system in result["systems"]
        for warning in system["diagnosis"].get("warnings", ())
    ]
    if bench.report:
        from rank_rl import report

        summary["report"] = str(report.write(paths, out_dir / REPORT))
    return {key: value for key, value in summary.items() if value or key == "queries"}
