"""What the benchmark's statistics hold in simulations: coverage, false positives, power, seeds.

    python benchmarks/statistics_check.py            # half an hour on two cores
    python benchmarks/statistics_check.py --render   # only the tables of the page

Queries are drawn from the per-query values that results/*.json hold, so that zeros, ties and bounds
are as they are in benchmarks, and from four made-up collections on which a system fails at many
queries. The true mean is that of the whole. Writes results/statistics.json, and the tables between
the markers of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import Pool
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rank_rl
from rank_rl.bench import power, stats
from rank_rl.seeds import derive

ROOT = Path(__file__).parent.parent
SIZES = (15, 30, 80, 300)  # queries
BEGIN, END = "<!-- statistics_check: begin -->", "<!-- statistics_check: end -->"
SOURCES = {  # result file → systems whose values are drawn from
    "entailmentbank_groupwise": ("first stage", "untrained base", "+ sft", "label slots"),
    "quickstart": ("first stage", "untrained base", "+ sft", "+ grpo"),
    "traces": ("BM25", "untrained base"),
    "e2_rank": ("untrained base", "+ ranknet"),
}
PAIRS = (  # result file, and two systems that are compared
    ("entailmentbank_groupwise", "first stage", "label slots"),
    ("entailmentbank_groupwise", "+ sft", "label slots"),
    ("entailmentbank_groupwise", "untrained base", "first stage"),
    ("quickstart", "warm-up", "+ grpo"),
    ("quickstart", "first stage", "+ grpo"),
    ("traces", "BM25", "teacher labels"),
    ("e2_rank", "+ info_nce", "+ ranknet"),
)
FAMILIES = ("entailmentbank_groupwise", "quickstart", "score_losses")
NO_MODEL = ("random", "perfect order")
TESTED = ("ndcg@10", "mrr@10")
MANY = 10**5
Array = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is simulated: runs a row (half from 80 queries on), resamples a run, the seed."""

    runs: int = 2000
    resamples: int = 1000
    seed: int = 7

    def at(self, n: int) -> int:
        """Runs of a row with n queries."""
        return self.runs if n < 80 else self.runs // 2

    def rng(self, *names: object) -> np.random.Generator:
        """The generator of a row."""
        return np.random.default_rng(derive(self.seed, *names))


@lru_cache
def result_of(file: str) -> dict[str, Any]:
    """A result file of a benchmark."""
    text = (ROOT / "results" / f"{file}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def values_of(file: str, system: str, metric: str) -> Array:
    """Per-query values of a system in a result file."""
    return np.array(list(result_of(file)["per_query"][system][metric].values()))


def hard() -> dict[str, Array]:
    """Values of collections on which a system fails at many queries."""
    rng = np.random.default_rng(1)
    gain = [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 7, 1 / 10, 0]
    return {
        "made up, ndcg, 25% zeros": np.where(rng.random(MANY) < 0.25, 0, rng.beta(1.2, 2, MANY)),
        "made up, ndcg, 40% zeros": np.where(rng.random(MANY) < 0.4, 0, rng.beta(1.2, 2.5, MANY)),
        "made up, mrr, 30% zeros": rng.choice(
            gain, MANY, p=[0.3, 0.12, 0.08, 0.06, 0.04, 0.05, 0.05, 0.3]
        ),
        "made up, mrr, 50% zeros": rng.choice(
            gain, MANY, p=[0.15, 0.08, 0.06, 0.05, 0.04, 0.06, 0.06, 0.5]
        ),
    }


def populations() -> dict[str, tuple[str, Array]]:
    """Name → kind (values or differences) and all values of a population."""
    found: dict[str, tuple[str, Array]] = {}
    for file, systems in SOURCES.items():
        for system in systems:
            for metric in result_of(file)["metrics"]:
                name = f"{file}, {system}, {metric}"
                found[name] = ("values", values_of(file, system, metric))
    for file, first, second in PAIRS:
        for metric in result_of(file)["metrics"]:
            gap = values_of(file, second, metric) - values_of(file, first, metric)
            found[f"{file}, {second} - {first}, {metric}"] = ("differences", gap)
    return found | {name: ("values", values) for name, values in hard().items()}


def coverage(name: str, kind: str, values: Array, n: int, effort: Effort) -> Row:
    """How often three kinds of interval hold the mean of a population of which n are drawn."""
    rng, truth = effort.rng("coverage", name, n), values.mean()
    slack = 1e-12  # sums in another order differ in the last bits
    held: dict[str, list[bool]] = {"bootstrap": [], "percentile": [], "t": []}
    widths: dict[str, list[float]] = {key: [] for key in held}
    quantile = float(stats.stdtrit(n - 1, 0.975))
    for run in range(effort.at(n)):
        drawn = values[rng.integers(0, values.size, n)]
        half = quantile * float(drawn.std(ddof=1)) / n**0.5
        mean = float(drawn.mean())
        how = {"samples": effort.resamples, "seed": run}
        found = {
            "bootstrap": stats.bootstrap(drawn, **how),
            "t": stats.Interval(mean=mean, low=mean - half, high=mean + half),
        }
        if run < effort.at(n) // 2:  # only to compare with
            found["percentile"] = stats.percentile(drawn, **how)
        for key, one in found.items():
            held[key].append(one.low - slack <= truth <= one.high + slack)
            widths[key].append(one.high - one.low)
    _, counts = np.unique(values, return_counts=True)
    return {
        "population": name,
        "kind": kind,
        "n": n,
        "runs": effort.at(n),
        "all_equal": float(((counts / values.size) ** n).sum()),
        **{key: fmean(hits) for key, hits in held.items()},
        **{f"{key}_width": fmean(sizes) for key, sizes in widths.items()},
    }


def false_positives(file: str, pair: tuple[str, str], metric: str, n: int, effort: Effort) -> Row:
    """How often two systems that are exchanged at random, query by query, are told apart."""
    a, b = (values_of(file, system, metric) for system in pair)
    rng = effort.rng("null", file, *pair, metric, n)
    found = np.zeros(3)
    for run in range(effort.at(n)):
        at, swap = rng.integers(0, a.size, n), rng.random(n) < 0.5
        first, second = np.where(swap, b[at], a[at]), np.where(swap, a[at], b[at])
        gap = stats.difference(first, second, samples=effort.resamples, seed=run)
        found += (
            stats.randomisation_test(first, second, samples=effort.resamples, seed=run) < 0.05,
            stats.t_test(first, second) < 0.05,
            gap.low > 0 or gap.high < 0,
        )
    share = found / effort.at(n)
    return {
        "pair": f"{file}, {pair[0]} and {pair[1]}",
        "metric": metric,
        "n": n,
        "runs": effort.at(n),
        "ties": float((a == b).mean()),
        "randomisation": float(share[0]),
        "t": float(share[1]),
        "interval": float(share[2]),
    }


def families(file: str, metric: str, n: int, effort: Effort, most: int = 6) -> Row:
    """How often any of several equal systems is told apart from a baseline that is equal too."""
    names = systems_of(file)[:most]
    table = np.stack([values_of(file, name, metric) for name in names])
    rng = effort.rng("family", file, metric, n)
    found = np.zeros(4)
    for run in range(effort.at(n)):
        drawn = table[:, rng.integers(0, table.shape[1], n)]
        drawn = rng.permuted(drawn, axis=0)  # of each query on its own: all systems are alike
        for i, test in enumerate((_randomised(effort.resamples, run), stats.t_test)):
            ps = {str(k): test(drawn[0], row) for k, row in enumerate(drawn[1:])}
            found[2 * i] += min(ps.values()) < 0.05
            found[2 * i + 1] += min(stats.holm(ps).values()) < 0.05
    keys = ("randomisation", "randomisation_holm", "t", "t_holm")
    return {
        "family": file,
        "metric": metric,
        "n": n,
        "runs": effort.at(n),
        "comparisons": len(names) - 1,
        **dict(zip(keys, map(float, found / effort.at(n)), strict=True)),
    }


def systems_of(file: str) -> list[str]:
    """The systems of a result file that rank by a model or a first stage."""
    return [name for name in result_of(file)["per_query"] if name not in NO_MODEL]


def _randomised(samples: int, seed: int) -> Callable[[Array, Array], float]:
    return lambda a, b: stats.randomisation_test(a, b, samples=samples, seed=seed)


def detected(file: str, pair: tuple[str, str], metric: str, n: int, effort: Effort) -> Row:
    """How often a true difference of the minimal detectable size is found: 80 % by its definition.

    The differences of a pair are shifted so that their mean is that difference exactly.
    """
    gaps = values_of(file, pair[1], metric) - values_of(file, pair[0], metric)
    target = power.detectable(float(gaps.std()), n)
    shifted = gaps - gaps.mean() + target
    rng = effort.rng("power", file, *pair, metric, n)
    found, estimates = np.zeros(2), []
    for run in range(effort.at(n)):
        drawn = shifted[rng.integers(0, gaps.size, n)]
        none = np.zeros(n)
        found += (
            stats.randomisation_test(none, drawn, samples=effort.resamples, seed=run) < 0.05,
            stats.t_test(none, drawn) < 0.05,
        )
        estimates.append(power.minimal_difference(drawn) or 0.0)
    return {
        "pair": f"{file}, {pair[1]} - {pair[0]}",
        "metric": metric,
        "n": n,
        "runs": effort.at(n),
        "difference": target,
        "estimated": float(np.median(estimates)),
        "randomisation": float(found[0] / effort.at(n)),
        "t": float(found[1] / effort.at(n)),
    }


def planned(file: str, pair: tuple[str, str], metric: str, effort: Effort) -> Row | None:
    """How often the difference of two systems is found on as many queries as planning asks for."""
    gaps = values_of(file, pair[1], metric) - values_of(file, pair[0], metric)
    if abs(gaps.mean()) < 1e-3:
        return None
    n = power.queries_needed(float(gaps.std()), float(gaps.mean()))
    if not 10 <= n <= 2000:
        return None
    rng = effort.rng("planned", file, *pair, metric)
    found = np.zeros(2)
    for run in range(effort.at(n)):
        drawn, none = gaps[rng.integers(0, gaps.size, n)], np.zeros(n)
        found += (
            stats.randomisation_test(none, drawn, samples=effort.resamples, seed=run) < 0.05,
            stats.t_test(none, drawn) < 0.05,
        )
    return {
        "pair": f"{file}, {pair[1]} - {pair[0]}",
        "metric": metric,
        "difference": float(gaps.mean()),
        "queries": n,
        "runs": effort.at(n),
        "randomisation": float(found[0] / effort.at(n)),
        "t": float(found[1] / effort.at(n)),
    }


def seeded(metric: str, spread: float, seeds: int, n: int, effort: Effort) -> Row:
    """How often intervals hold the mean over queries *and* seeds.

    A run takes each query's value from the better of two systems with a probability of its own,
    which is drawn for each seed with mean 0.5 and standard deviation ``spread``: so seeds differ in
    their means, and in which queries they get right.
    """
    file = "entailmentbank_groupwise"
    good, bad, base = (
        values_of(file, s, metric) for s in ("label slots", "first stage", "untrained base")
    )
    truth = (good.mean() + bad.mean()) / 2
    shape = (1 / (4 * spread**2) - 1) / 2 if spread else 0.0
    rng = effort.rng("seeds", metric, spread, seeds, n)

    def runs_on(at: NDArray[np.int64]) -> Array:
        share = rng.beta(shape, shape, (seeds, 1)) if spread else np.full((seeds, 1), 0.5)
        return np.where(rng.random((seeds, n)) < share, good[at], bad[at])

    found, spreads = np.zeros(4), []
    for run in range(effort.at(n)):
        at = rng.integers(0, good.size, n)
        one, other = runs_on(at), runs_on(at)
        how = {"samples": effort.resamples, "seed": run}
        alone = stats.bootstrap(one.mean(0), **how)
        both = stats.seeds_interval(list(one), **how)
        to_base = stats.seeds_difference([base[at]], list(one), **how)
        to_other = stats.seeds_difference(list(other), list(one), **how)
        found += (
            alone.low <= truth <= alone.high,
            both.low <= truth <= both.high,
            to_base.low <= truth - base.mean() <= to_base.high,
            to_other.low <= 0 <= to_other.high,
        )
        spreads.append(stats.seed_spread(list(one)) or 0.0)
    share = found / effort.at(n)
    return {
        "metric": metric,
        "seeds": seeds,
        "n": n,
        "runs": effort.at(n),
        "true_spread": spread * float(good.mean() - bad.mean()),
        "measured_spread": fmean(spreads),
        "queries_only": float(share[0]),
        "seeds_interval": float(share[1]),
        "to_baseline": float(share[2]),
        "to_other_seeds": float(share[3]),
    }


Job = tuple[str, Callable[..., Row | None], tuple[Any, ...]]


def jobs(effort: Effort) -> list[Job]:
    """Every row to compute: its section, function and arguments."""
    found: list[Job] = [
        ("coverage", coverage, (name, kind, values, n, effort))
        for name, (kind, values) in populations().items()
        for n in SIZES
    ]
    for metric in TESTED:
        for file, *pair in PAIRS:
            for n in SIZES:
                found.append(("false_positives", false_positives, (file, pair, metric, n, effort)))
                found.append(("power", detected, (file, pair, metric, n, effort)))
            found.append(("planned", planned, (file, pair, metric, effort)))
        found += [
            ("families", families, (file, metric, n, effort)) for file in FAMILIES for n in SIZES
        ]
        found += [
            ("seeds", seeded, (metric, spread, seeds, n, effort))
            for spread in (0.0, 0.05, 0.1, 0.25)
            for seeds in (2, 3, 5)
            for n in SIZES
        ]
    return found


def compute(job: Job) -> tuple[str, Row | None]:
    """One row with its section."""
    section, function, arguments = job
    return section, function(*arguments)


def simulate(effort: Effort, workers: int) -> dict[str, Any]:
    """All rows, by section."""
    result: dict[str, Any] = {
        "benchmark": "statistics_check",
        "rank_rl": rank_rl.__version__,
        "runs": effort.runs,
        "resamples": effort.resamples,
        "seed": effort.seed,
    }
    todo = jobs(effort)
    with Pool(workers) as pool:
        for done, (section, row) in enumerate(pool.imap(compute, todo), 1):
            if row is not None:
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                result.setdefault(section, []).append(rounded)
            if done % 20 == 0:
                print(f"{done} of {len(todo)} rows", flush=True)
    return result


def render(result: Mapping[str, Any], path: Path) -> None:
    """Write the tables between the markers of the page."""
    from marked import put  # these two are beside this file
    from statistics_tables import page

    put(path, (BEGIN, END), f"\n{page(result)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=Effort.runs)
    parser.add_argument("--resamples", type=int, default=Effort.resamples)
    parser.add_argument("--seed", type=int, default=Effort.seed)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "statistics.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "statistics.md")
    parser.add_argument("--render", action="store_true", help="only the tables, from the results")
    args = parser.parse_args()
    if not args.render:
        effort = Effort(runs=args.runs, resamples=args.resamples, seed=args.seed)
        result = simulate(effort, args.workers)
        text = json.dumps(result, ensure_ascii=False)
        args.output.write_text(text.replace("}, {", "},\n {") + "\n", encoding="utf-8")
    render(json.loads(args.output.read_text(encoding="utf-8")), args.docs)


if __name__ == "__main__":
    main()
