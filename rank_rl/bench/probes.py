"""What is found by asking some queries again: latency, position bias, sensitivity to formatting.

Contract: nothing is asked unless the recipe wants it; what was found is kept with the number of
queries it was asked with, so that a probe which is wanted later is asked alone and nothing twice.
``metered`` measures energy while a batch of queries is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rank_rl.bench import costs
from rank_rl.bench.diagnosis import formatting, position, some
from rank_rl.records import Ranking, RankingTask
from rank_rl.specs import RecipeSpec, SystemSpec

if TYPE_CHECKING:
    from rank_rl.rerank import Reranker

ASKED = "asked"  # with which settings a probe was asked


def missing(spec: RecipeSpec, known: Mapping[str, Any], metric: str) -> dict[str, dict[str, Any]]:
    """Settings of the probes that a recipe wants and that are not known, by name.

    ``metric`` is the one in which rankings are compared.
    """
    bench = spec.bench
    if bench is None:
        return {}
    looked = bench.diagnosis
    wanted: dict[str, dict[str, Any]] = {
        "latency": {"queries": bench.latency},
        "position": {
            "queries": looked.position,
            "shuffles": looked.shuffles,
            "metric": metric,
        },
        "formatting": {"queries": looked.formatting, "metric": metric},
    }
    return {
        name: settings
        for name, settings in wanted.items()
        if settings["queries"] and known.get(name, {}).get(ASKED) != settings
    }


def ask(
    wanted: Mapping[str, Mapping[str, Any]],
    reranker: Reranker,
    tasks: Sequence[RankingTask],
    given: Mapping[str, Ranking],
    *,
    seed: int,
) -> dict[str, Any]:
    """Ask the probes named in ``wanted``; returns what each found, and its settings.

    ``given`` are the rankings of the tasks as they are, which are not asked for again.
    """

    def rank(asked: Sequence[RankingTask]) -> list[Ranking]:
        return [result.ranking for result in reranker.rank_tasks(asked)]

    found: dict[str, Any] = {}
    for name, settings in wanted.items():
        count = settings["queries"]
        # One more for latency: the first one warms up.
        chosen = some(tasks, count + 1 if name == "latency" else count, seed=seed)
        known = {t.query.qid: given[t.query.qid] for t in chosen}
        if name == "latency":
            # What a server has answered is kept, and would come at once.
            with getattr(reranker.generator, "asking_again", nullcontext)():
                values = costs.latency(lambda task: rank([task]), chosen, count)
        elif name == "position":
            shuffles, metric = settings["shuffles"], settings["metric"]
            values = position(
                rank, chosen, shuffles=shuffles, seed=seed, given=known, metric=metric
            )
        else:
            values = formatting(rank, chosen, metric=settings["metric"], seed=seed, given=known)
        found[name] = {**(values or {}), ASKED: dict(settings)}
    return found


class Meter:
    """Energy in kWh; None when it was not, or could not be, measured."""

    kwh: float | None = None


@contextmanager
def metered(system: SystemSpec, spec: RecipeSpec) -> Iterator[Meter]:
    """Measure what is done inside, where the recipe wants that and the model runs here."""
    meter = Meter()
    if spec.bench is None or not spec.bench.energy or system.kind == "endpoint":
        yield meter
        return
    with costs.energy() as measured:
        yield meter
    meter.kwh = measured.kwh
