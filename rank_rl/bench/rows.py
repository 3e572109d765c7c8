"""One row of a result, made of a system's documents: means, intervals, costs and what is wrong.

Contract: numbers come from the documents and the tasks alone; ``Table`` holds what all rows share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rank_rl.bench import costs, diagnosis, stats
from rank_rl.bench.answered import total
from rank_rl.bench.document import Document
from rank_rl.bench.measures import Judgements, PerQuery, ceiling, kept
from rank_rl.bench.power import minimal_difference
from rank_rl.bench.probes import ASKED
from rank_rl.records import RankingTask

if TYPE_CHECKING:
    from rank_rl.bench.merge import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the rows of a result share.

    Attributes:
        plan: how systems are compared.
        values: system → metric → query id → mean over seeds.
        means: system → metric → mean over queries.
        ceiling: metric → value of the candidates' perfect order.
        slices: query id → type and length of the query.
        first_stage, random: the rows that are the input order and a random one, where there are.
        judged_input: depth → share of judged documents of the input order.
        only_relevant: whether nothing was judged irrelevant, so that such shares say little.
    """

    plan: Plan
    values: Mapping[str, PerQuery]
    means: Mapping[str, Mapping[str, float]]
    ceiling: Mapping[str, float]
    slices: Mapping[str, Mapping[str, str]]
    first_stage: str | None
    random: str | None
    judged_input: Mapping[str, float | None]
    only_relevant: bool

    @classmethod
    def of(
        cls,
        plan: Plan,
        documents: Mapping[str, Sequence[Document]],
        values: Mapping[str, PerQuery],
        tasks: Sequence[RankingTask],
    ) -> Table:
        """Collect it from the documents by system, and the queries they ranked."""
        first = next(iter(documents.values()))[0]
        judgements = Judgements.of(tasks, without=first.collection.left_out)
        counted = [t for t in tasks if t.query.qid in judgements.grades]
        by_kind = {found[0].kind: name for name, found in reversed(list(documents.items()))}
        order = by_kind.get("first_stage")
        return cls(
            plan=plan,
            values=values,
            means={n: {m: _mean(v.values()) for m, v in f.items()} for n, f in values.items()},
            ceiling=ceiling(tasks, judgements, plan.metrics),
            slices=diagnosis.slices(counted) if plan.slices else {},
            first_stage=order,
            random=by_kind.get("random"),
            judged_input=documents[order][0].judged if order else {},
            only_relevant=judgements.only_relevant,
        )


def row(name: str, documents: Sequence[Document], table: Table) -> dict[str, Any]:
    """The row of a system; costs and counts are means and sums over its seeds."""
    first = documents[0]
    statuses = total(dict(d.statuses) for d in documents)
    explanations = total(dict(d.explanations) for d in documents)
    failed = statuses.get("failed", 0) / sum(statuses.values()) if any(statuses.values()) else None
    mean_costs = _costs(documents)
    found = {
        "name": name,
        "kind": first.kind,
        "metrics": {m: asdict(_interval(documents, m, table)) for m in table.plan.metrics},
        "seeds": {
            str(d.seed): {m: _mean(d.per_query[m].values()) for m in table.plan.metrics}
            for d in documents
        },
        "spread": {m: _spread(documents, m) for m in table.plan.metrics},
        "kept": _kept(name, table),
        "judged": _judged(documents),
        "missing_queries": first.missing_queries,
        "model": dict(first.model),
        "setting": dict(first.setting),
        "fusion": first.fusion,
        "statuses": statuses,
        "failure_rate": failed,
        "issues": total(dict(d.issues) for d in documents),
        "explanations": explanations,
        "cuts": total(dict(d.cuts) for d in documents),
        "costs": mean_costs,
        "latency": first.probes.get("latency") or costs.share_latency(first.costs),
        "price": _price(name, first, mean_costs, table),
        "energy": costs.energy_per_1000(first.energy, len(first.costs)),
        "run": first.run,
        "exchanges": first.exchanges,
    }
    return {**found, "diagnosis": _diagnosis(name, documents, found, table)}


def minimal(plan: Plan, values: Mapping[str, PerQuery]) -> dict[str, dict[str, float | None]]:
    """Metric → baseline → the smallest true difference that these queries find with 80 % power.

    By the spread of the differences of all other systems to the baseline, of which the median is
    taken: the systems at hand say how noisy a comparison is.
    """
    found: dict[str, dict[str, float | None]] = {}
    for metric in plan.metrics:
        for baseline in plan.baselines:
            base = values[baseline][metric]
            each = [
                minimal_difference([v[metric][q] - base[q] for q in base])
                for name, v in values.items()
                if name != baseline
            ]
            known = sorted(d for d in each if d is not None)
            middle = known[len(known) // 2] if known else None
            found.setdefault(metric, {})[baseline] = middle
    return found


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _interval(documents: Sequence[Document], metric: str, table: Table) -> stats.Interval:
    return stats.seeds_interval(
        [list(d.per_query[metric].values()) for d in documents],
        samples=table.plan.samples,
        seed=table.plan.seed,
        bounds=stats.METRIC,
    )


def _spread(documents: Sequence[Document], metric: str) -> float | None:
    if len(documents) < 2:
        return None
    return stats.seed_spread([list(d.per_query[metric].values()) for d in documents])


def _kept(name: str, table: Table) -> dict[str, Any]:
    teacher = table.plan.teacher
    if teacher is None:
        return {}
    return {
        m: kept(
            table.means[name][m],
            table.means[teacher][m],
            table.means[table.first_stage][m] if table.first_stage else None,
        )
        for m in table.plan.metrics
    }


def _judged(documents: Sequence[Document]) -> dict[str, float | None]:
    depths = documents[0].judged
    found: dict[str, float | None] = {}
    for depth in depths:
        shares = [share for d in documents if (share := d.judged[depth]) is not None]
        found[depth] = sum(shares) / len(shares) if shares else None
    return found


def _costs(documents: Sequence[Document]) -> dict[str, float]:
    """Mean cost of a query, over the seeds."""
    rows = [cost for d in documents for cost in d.costs.values()]
    names = sorted({name for cost in rows for name in cost})
    return {n: sum(c[n] for c in rows) / len(rows) for n in names}


def _price(
    name: str, document: Document, mean_costs: Mapping[str, float], table: Table
) -> dict[str, Any] | None:
    plan = table.plan
    if not mean_costs:
        return None
    return costs.price_per_1000(
        mean_costs,
        price=plan.price(name, document.model.get("name", "")),
        gpu_hour=None if document.kind == "endpoint" else plan.gpu_hour,
        currency=plan.currency,
    )


def _diagnosis(
    name: str, documents: Sequence[Document], found: Mapping[str, Any], table: Table
) -> dict[str, Any]:
    """What was found in the answers and by asking again, wins over a baseline, and warnings."""
    first, plan = documents[0], table.plan
    asked = {
        key: {k: v for k, v in value.items() if k != ASKED}
        for key, value in first.probes.items()
        if key != "latency"
    }
    known: dict[str, Any] = {**first.diagnosis, **asked}
    if first.kind in ("random", "first_stage", "perfect"):
        return known
    metric, own = plan.metrics[0], table.values[name][plan.metrics[0]]
    baseline = next(
        (b for b in (*plan.baselines, table.first_stage) if b is not None and b != name), None
    )
    if baseline is not None:
        other = table.values[baseline][metric]
        known["wins"] = diagnosis.wins(own, other, table.slices, name=baseline)
    facts = diagnosis.Facts(
        metric=metric,
        mean=table.means[name][metric],
        from_input=_from_input(name, metric, table),
        from_baseline=known["wins"]["difference"] if baseline else None,
        random=table.means[table.random][metric] if table.random else None,
        spread=found["spread"][metric],
        statuses=found["statuses"],
        cuts=found["cuts"],
        judged={} if table.only_relevant else found["judged"],
        judged_input={} if table.only_relevant else table.judged_input,
        diagnosis=known,
    )
    if said := diagnosis.warnings(facts, fall=plan.fall):
        known["warnings"] = said
    return known


def _from_input(name: str, metric: str, table: Table) -> stats.Interval | None:
    if table.first_stage is None:
        return None
    first, own = table.values[table.first_stage][metric], table.values[name][metric]
    return stats.difference(
        list(first.values()),
        list(own.values()),
        samples=table.plan.samples,
        seed=table.plan.seed,
    )
