"""Stage ``rank``: a model ranks one split of a collection, for another model to learn from.

A teacher's scores of the training queries become ``<output_dir>/<split>.trec``, which
``data.teacher_run`` reads. It asks, counts and keeps finished work as the benchmark does, and
measures nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl import data, formats
from rank_rl.bench.progress import bar
from rank_rl.bench.setting import Models, saved_format
from rank_rl.bench.systems import check, compute
from rank_rl.data import trec
from rank_rl.errors import DataError, RecipeError
from rank_rl.specs import FormatSpec, RecipeSpec, SystemSpec
from rank_rl.specs.bench import RankSpec

NAME = "teacher"


def teacher(spec: RecipeSpec, fmt: FormatSpec) -> SystemSpec:
    """The model of a recipe with a section ``rank``, as a system of the benchmark."""
    ranked = spec.rank or RankSpec()
    return SystemSpec(
        name=NAME,
        kind=formats.kind(formats.make(fmt)),
        model=spec.model.name,
        format=fmt,
        strategy=ranked.strategy,
        readout=ranked.readout,
    )


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Rank the queries of ``rank.split`` with ``model`` and write their scores as a TREC run.

    The format is the checkpoint's own, else the recipe's. Scores are the model's where its
    strategy gives any; else the place counted from the end. Other processes than the first do
    nothing.

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
    # What the benchmark ranks is called test; here it is another split.
    asked = dataclasses.replace(collection, test=tasks)
    system = teacher(spec, saved_format(spec.model.name) or spec.format)
    models = Models(spec)
    check(system, spec, models, tasks[0])
    out_dir = Path(spec.run.output_dir)
    with bar(spec.rank.split) as progress:
        found = compute(system, spec, asked, models, out_dir, progress)
    path = out_dir / f"{spec.rank.split}.trec"
    trec.write_run(path, found.rankings[0].values(), "rank_rl.rank", scores=True)
    return {
        "stage": "rank",
        "queries": len(tasks),
        "run": str(path),
        "failed": found.statuses.get("failed", 0),
        "asked": sum(found.statuses.values()),
    }
