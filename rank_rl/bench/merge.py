"""Result documents become one result: rows, tests, steps, and what stands beside them.

Contract: documents are merged only when they agree about the collection (queries, judgements,
candidates, first stage, depth), the metrics and, row by row, about how the system was asked; what
disagrees is named. A row that was measured with several seeds has the mean over seeds of every
query's value. Nothing is asked or read here but the documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rank_rl.bench.compared import comparisons, steps
from rank_rl.bench.document import Document
from rank_rl.bench.measures import PerQuery
from rank_rl.bench.rows import Table, minimal, row
from rank_rl.errors import DataError
from rank_rl.records import RankingTask
from rank_rl.specs import BenchSpec, PriceSpec

SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of a recipe's ``bench`` section decides how documents are compared; JSON-safe."""

    metrics: tuple[str, ...]
    baselines: tuple[str, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()
    teacher: str | None = None
    samples: int = 10000
    seed: int = 0
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gpu_hour: float | None = None
    currency: str = "USD"
    fall: float = 0.05
    slices: bool = True

    @classmethod
    def of(cls, bench: BenchSpec, metrics: Sequence[str], seed: int) -> Plan:
        """The plan of a recipe for one collection."""
        return cls(
            metrics=tuple(metrics),
            baselines=tuple(bench.baselines),
            steps=tuple(bench.steps),
            teacher=bench.teacher,
            samples=bench.samples,
            seed=seed,
            prices={name: price.model_dump() for name, price in bench.prices.items()},
            gpu_hour=bench.gpu_hour,
            currency=bench.currency,
            fall=bench.diagnosis.fall,
            slices=bench.diagnosis.slices,
        )

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Plan:
        """The plan that a result file holds.

        Raises:
            DataError: it holds none.
        """
        try:
            known = dict(content)
            known["metrics"] = tuple(known["metrics"])
            known["baselines"] = tuple(known["baselines"])
            known["steps"] = tuple((a, b) for a, b in known["steps"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError("no plan of comparisons", where="result file") from error

    def price(self, system: str, model: str) -> PriceSpec | None:
        """Price of a million tokens of a system: by its own name, else by its model's."""
        found = self.prices.get(system) or self.prices.get(model)
        return PriceSpec.model_validate(found) if found else None


def merge(
    documents: Sequence[Document],
    plan: Plan,
    facts: Mapping[str, Any],
    tasks: Sequence[RankingTask],
) -> dict[str, Any]:
    """The result of documents that belong together.

    Args:
        documents: in the order of the rows; those of one system follow one another by seed.
        plan: metrics, baselines, steps, prices.
        facts: name, recipe, versions, git state and data of the run, put in front.
        tasks: the queries with candidates and grades, for ceilings and slices.

    Raises:
        DataError: documents that do not belong together, or a baseline that has none.
    """
    by_system = agreed(documents)
    collection = documents[0].collection
    values = {name: _mean(found) for name, found in by_system.items()}
    by_seed = {name: [d.per_query for d in found] for name, found in by_system.items()}
    _named(plan, values)
    table = Table.of(plan, by_system, values, tasks)
    return {
        "schema": SCHEMA,
        **facts,
        "seed": plan.seed,
        "seeds": sorted({d.seed for d in documents}),
        "metrics": list(plan.metrics),
        "queries": collection.queries,
        "queries_without_relevant": collection.without_relevant,
        "resamples": plan.samples,
        "collection": asdict(collection),
        "currency": plan.currency,
        "plan": asdict(plan),
        "ceiling": table.ceiling,
        "teacher": plan.teacher,
        "minimal_difference": minimal(plan, values),
        "slices": table.slices,
        "systems": [row(name, found, table) for name, found in by_system.items()],
        "comparisons": comparisons(plan, by_seed),
        "steps": steps(plan, by_seed),
        "per_query": values,
    }


def agreed(documents: Sequence[Document]) -> dict[str, list[Document]]:
    """Documents by system, one a seed, after a check that they belong together.

    Raises:
        DataError: no document, or two that disagree.
    """
    if not documents:
        raise DataError("no result documents", where="bench")
    first = documents[0]
    found: dict[str, list[Document]] = {}
    for document in documents:
        for name, value in asdict(document.collection).items():
            _same(first, document, f"collection {name}", asdict(first.collection)[name], value)
        _same(first, document, "metrics", sorted(first.per_query), sorted(document.per_query))
        others = found.setdefault(document.system, [])
        if any(o.seed == document.seed and o.key == document.key for o in others):
            continue  # the same document twice
        if any(o.seed == document.seed for o in others):
            raise DataError(
                f"two documents of system {document.system!r} with seed {document.seed}",
                where="result documents",
                expected="one a seed, or the same one",
                remedy="name one of the systems otherwise",
            )
        if others:
            _same_system(others[0], document)
        others.append(document)
    return {name: sorted(rows, key=lambda d: d.seed) for name, rows in found.items()}


def _same_system(first: Document, other: Document) -> None:
    for name in ("kind", "setting", "fusion", "drawn"):
        _same(first, other, name, getattr(first, name), getattr(other, name))
    # A checkpoint a seed has its own revision and contract; one checkpoint has one of each.
    if first.model.get("name") == other.model.get("name"):
        for name in ("revision", "contract"):
            _same(first, other, f"model {name}", first.model.get(name), other.model.get(name))


def _same(first: Document, other: Document, what: str, a: Any, b: Any) -> None:
    if a != b:
        raise DataError(
            f"{what} is {b!r} for system {other.system!r} (seed {other.seed}) and {a!r} for "
            f"{first.system!r} (seed {first.seed})",
            where="result documents",
            expected="documents of one collection, asked in the same way",
            remedy="measure them again in one recipe",
        )


def _mean(documents: Sequence[Document]) -> PerQuery:
    """Every query's value, mean over the seeds."""
    return {
        metric: {
            qid: sum(d.per_query[metric][qid] for d in documents) / len(documents) for qid in values
        }
        for metric, values in documents[0].per_query.items()
    }


def _named(plan: Plan, values: Mapping[str, Any]) -> None:
    teacher = [plan.teacher] if plan.teacher else []
    for name in (*plan.baselines, *(n for step in plan.steps for n in step), *teacher):
        if name not in values:
            raise DataError(
                f"no documents of system {name!r}",
                where="result documents",
                expected=f"one of {', '.join(values)}",
            )
