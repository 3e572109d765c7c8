"""Stage ``rank``: a model ranks one split of a collection, for another model to learn from.

A teacher's scores of the training queries become ``<output_dir>/<split>.trec``, which
``data.teacher_run`` reads. It asks, counts and keeps finished work as the benchmark does, and
measures nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl import data, formats
from rank_rl.bench.progress import bar
from rank_rl.bench.setting import Models, saved_format
from rank_rl.bench.systems import Job, Paths, SystemRun, check, compute
from rank_rl.data import trec
from rank_rl.data.files import lines
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Ranking
from rank_rl.specs import FormatSpec, RecipeSpec, SystemSpec
from rank_rl.specs.bench import RankSpec

NAME = "teacher"


def teacher(spec: RecipeSpec, fmt: FormatSpec, *, contract: bool) -> SystemSpec:
    """The model of a recipe with a section ``rank``, as a system of the benchmark.

    ``contract``: its checkpoint has one, which says how long answers are.
    """
    ranked = spec.rank or RankSpec()
    return SystemSpec(
        name=NAME,
        kind=formats.kind(formats.make(fmt)),
        model=spec.model.name,
        format=fmt,
        strategy=ranked.strategy,
        readout=ranked.readout,
        reasoning=ranked.reasoning,
        max_new_tokens=None if contract else spec.eval.max_new_tokens,
    )


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Rank the queries of ``rank.split`` with ``model`` and write their scores as a TREC run.

    The format is the checkpoint's own, else the recipe's. The run holds the model's scores, or,
    where its strategy gives an order only, places counted from the end. Queries of which nothing
    could be read, or whose ranking lacks the scores that the others have, are left out and
    counted: first-stage order is no teacher's opinion. Other processes than the first do nothing.

    Raises:
        RankRLError: recipe, data, model or disk is wrong; a finished run is kept.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    if spec.rank is None:
        raise RecipeError("no section rank", where="rank", expected="e.g. rank: {split: train}")
    collection = data.load(spec.data, seed=spec.run.seed)
    tasks = getattr(collection, spec.rank.split)
    if not tasks:
        raise DataError(f"no {spec.rank.split} queries", where=f"data source {spec.data.source!r}")
    models = Models(spec)
    saved = saved_format(spec.model.name, models)
    system = teacher(spec, saved or spec.format, contract=saved is not None)
    try:
        check(system, spec, models, tasks)
    except RecipeError as error:  # what is asked is no system of a benchmark: blame its own key
        _, _, key = error.where.partition(f"bench.systems {NAME!r}: ")
        where = f"rank.{key}" if key else "rank"
        raise RecipeError(
            error.what, where=where, expected=error.expected, remedy=error.remedy
        ) from error
    out_dir = Path(spec.run.output_dir)
    with bar(spec.rank.split) as progress:
        job = Job(system=system, spec=spec, tasks=tasks, paths=Paths.of(out_dir, NAME))
        found = compute(job, models, progress)
    path = out_dir / f"{spec.rank.split}.trec"
    said = _said(found, Paths.of(out_dir, NAME).exchanges)
    if not said:
        raise DataError(
            f"none of {len(tasks)} queries has an answer that could be read", where=str(out_dir)
        )
    trec.write_run(path, said, "rank_rl.rank", scores=True)
    return {
        "stage": "rank",
        "queries": len(said),
        "left_out": len(tasks) - len(said),
        "run": str(path),
        "failed": found.statuses.get("failed", 0),
        "asked": sum(found.statuses.values()),
    }


def _said(found: SystemRun, exchanges: Path) -> list[Ranking]:
    """The rankings that say what the model thinks."""
    rankings = list(found.rankings[0].values())
    scored = [ranking for ranking in rankings if ranking.scores]
    if scored:
        return scored
    records = (json.loads(line) for _, line in lines(exchanges))
    read = {r["qid"] for r in records if "outcome" in r and r["outcome"]["status"] != "failed"}
    return [ranking for ranking in rankings if ranking.qid in read]
