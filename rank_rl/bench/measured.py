"""The collections that a benchmark ranks: the recipe's own, or those of ``bench.collections``.

Contract: only test splits are ranked; each collection has its own folder below the output folder
where there are several, and the metrics that the recipe, or its source, names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_rl import data
from rank_rl.bench.document import CollectionFacts
from rank_rl.bench.layout import file_name
from rank_rl.bench.measures import Judgements, check_metrics
from rank_rl.data import Collection
from rank_rl.data.known import default_metrics
from rank_rl.data.leaks import bench_leaks
from rank_rl.data.trained import Training, training_of
from rank_rl.errors import DataError
from rank_rl.records import RankingTask
from rank_rl.specs import BenchSpec, CollectionSpec, RecipeSpec

PLACE = "{seed}"  # in a model's or a run's path: each of bench.seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One collection of a benchmark.

    Attributes:
        name: the collection's.
        collection: what was loaded.
        metrics: what is measured.
        judgements: of the queries that count.
        leaks: what the leak check found; None when it was not asked for.
        out_dir: where its files go.
    """

    name: str
    collection: Collection
    metrics: tuple[str, ...]
    judgements: Judgements
    leaks: dict[str, Any] | None
    out_dir: Path

    @property
    def tasks(self) -> Sequence[RankingTask]:
        """The queries that are ranked."""
        return self.collection.test

    @property
    def facts(self) -> CollectionFacts:
        """What documents of this collection agree on."""
        return CollectionFacts.of(
            self.name,
            self.tasks,
            first_stage=str(self.collection.provenance.get("first_stage", "")),
            queries=len(self.judgements.grades),
            left_out=tuple(self.judgements.left_out),
        )


def measured(spec: RecipeSpec, bench: BenchSpec) -> list[Measured]:
    """Load what a recipe's benchmark ranks.

    Raises:
        DataError: a collection is missing, malformed or without test queries.
        RecipeError: an unknown metric.
    """
    out_dir, seed = Path(spec.run.output_dir), spec.run.seed
    training = training_of(spec.data, seed, _models(spec, bench)) if bench.leaks else None
    if not bench.collections:
        return [_one(bench, data.load(spec.data, seed=seed), training, out_dir)]
    return [
        _one(
            bench,
            data.load(one, seed=seed),
            training,
            out_dir / folder(one.name),
            given=one,
        )
        for one in bench.collections
    ]


def _models(spec: RecipeSpec, bench: BenchSpec) -> list[str]:
    """The models of all rows, with each seed."""
    seeds = bench.seeds or [spec.run.seed]
    named = [system.model for system in bench.systems if system.model]
    return list(dict.fromkeys(name.replace(PLACE, str(s)) for name in named for s in seeds))


def folder(name: str) -> str:
    """A collection's name as that of its folder."""
    return file_name(name, "collection")


def _one(
    bench: BenchSpec,
    collection: Collection,
    training: Training | None,
    out_dir: Path,
    *,
    given: CollectionSpec | None = None,
) -> Measured:
    name = given.name if given else collection.name
    if not collection.test:
        raise DataError("no test queries", where=f"collection {name!r}")
    leaks = bench_leaks(bench.leaks, collection, training) if bench.leaks else None
    own = (given.metrics or default_metrics(given)) if given else None
    metrics = tuple(own or bench.metrics)
    judgements = Judgements.of(collection.test, without=leaks["left_out"] if leaks else ())
    check_metrics(judgements, metrics)
    return Measured(
        name=name,
        collection=collection,
        metrics=metrics,
        judgements=judgements,
        leaks=leaks,
        out_dir=out_dir,
    )
