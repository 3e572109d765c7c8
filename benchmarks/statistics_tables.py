"""The tables of docs/statistics.md, made from results/statistics.json. The numbers are made by
``statistics_check``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

LIMITS = (0.93, 0.97)
CERTAIN = 0.01  # a population that gives n equal values more often has no interval to speak of
Row = dict[str, Any]


def page(result: Mapping[str, Any]) -> str:
    """The tables of docs/statistics.md."""
    runs, few = result["runs"], result["runs"] // 2
    said = (
        "Written by `benchmarks/statistics_check.py` from `results/statistics.json`: "
        f"{runs:,} simulations a row, {few:,} from 80 queries on (of the percentile interval half "
        f"as many), {result['resamples']:,} resamples each. By chance a true 5 % is seen as up to "
        f"{error_bound(runs):.1%}, or {error_bound(few):.1%} in the shorter rows (one-sided 95 % "
        f"bounds), and a true 95 % is off by up to {_error(runs):.1%}, or {_error(few):.1%}."
    )
    return "\n\n".join(
        (
            said,
            "### Coverage of 95 % intervals",
            _coverage(result["coverage"]),
            "### False positives",
            _false_positives(result),
            "### Smallest difference found",
            _power(result),
            "### Several seeds",
            _seeds(result["seeds"]),
        )
    )


def error_bound(runs: int, rate: float = 0.05, level: float = 0.95) -> float:
    """The share that a true ``rate`` exceeds in so many simulations with 1 - ``level`` at most."""
    return rate + NormalDist().inv_cdf(level) * (rate * (1 - rate) / runs) ** 0.5


def _error(runs: int, rate: float = 0.95) -> float:
    return 1.96 * float((rate * (1 - rate) / runs) ** 0.5)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({r["n"] for r in rows})


def _range(values: Sequence[float]) -> str:
    return f"{fmean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def _inside(values: Sequence[float]) -> str:
    return f"{sum(LIMITS[0] <= v <= LIMITS[1] for v in values)} of {len(values)}"


def _coverage(rows: Sequence[Row]) -> str:
    head = ["queries", "populations", "interval", "mean (least to most)", "93-97 %", "width"]
    lines = []
    for n in _sizes(rows):
        for kind in ("values", "differences"):
            spread = [r for r in rows if r["n"] == n and r["kind"] == kind]
            own = [r for r in spread if r["all_equal"] < CERTAIN]
            for key in ("bootstrap", "t", "percentile") if own else ():
                rates = [r[key] for r in own]
                width = fmean([r[f"{key}_width"] / r["t_width"] for r in own])
                lines.append([str(n), f"{len(own)} of {kind}", f"`{key}`" if key != "t" else key,
                              _range(rates), _inside(rates), f"{width:.2f}"])  # fmt: skip
    return f"{_table(head, lines, 3)}\n\nWidth against that of the t interval.\n\n{_outside(rows)}"


def _outside(rows: Sequence[Row]) -> str:
    """The populations that the limits are missed on, by name."""
    odd = [r for r in rows if not LIMITS[0] <= r["bootstrap"] <= LIMITS[1]]
    own = [r for r in odd if r["all_equal"] < CERTAIN]
    flat = [r for r in rows if r["all_equal"] >= CERTAIN]
    counted = len(rows) - len(flat)
    text = f"`bootstrap` covers 93-97 % in {counted - len(own)} of {counted} rows"
    lines = [f"- {r['population']}, {r['n']} queries: {r['bootstrap']:.2%}" for r in own]
    text += "; the others are:\n\n" + "\n".join(lines) if lines else "."
    if flat:
        text += (
            "\n\nNot counted above: populations of which all queries drawn have the same value in "
            f"{CERTAIN:.0%} of the draws or more, so that no interval can be made of them then:\n\n"
        )
        text += "\n".join(
            f"- {r['population']}, {r['n']} queries: {r['bootstrap']:.1%} "
            f"(equal in {r['all_equal']:.1%})"
            for r in flat
        )
    return text


def _false_positives(result: Mapping[str, Any]) -> str:
    head = ["queries", "randomisation test", "t-test", "interval without 0",
            "any of a family, uncorrected", "any, Holm", "t, any, Holm"]  # fmt: skip
    lines = []
    for n in _sizes(result["families"]):
        one = [r for r in result["false_positives"] if r["n"] == n]
        family = [r for r in result["families"] if r["n"] == n]
        cells = [_range([r[key] for r in one]) for key in ("randomisation", "t", "interval")]
        keys = ("randomisation", "randomisation_holm", "t_holm")
        lines.append([str(n), *cells, *(_range([r[key] for r in family]) for key in keys)])
    rates = [(r[k], r["runs"]) for r in result["false_positives"] for k in ("randomisation", "t")]
    rates += [
        (r[k], r["runs"]) for r in result["families"] for k in ("randomisation_holm", "t_holm")
    ]
    over = sum(rate > error_bound(runs) for rate, runs in rates)
    comparisons = sorted({r["comparisons"] for r in result["families"]})
    said = (
        f"{over} of the {len(rates)} rates of both tests, alone and with Holm's correction, are "
        "above their bound; of true rates of 5 % one in 20 would be. Families have "
        f"{comparisons[0]} to {comparisons[-1]} comparisons with one baseline."
    )
    return f"{_table(head, lines)}\n\n{said}"


def _power(result: Mapping[str, Any]) -> str:
    head = ["queries", "found, randomisation test", "found, t-test", "estimated / true size"]
    lines = []
    for n in _sizes(result["power"]):
        rows = [r for r in result["power"] if r["n"] == n]
        ratio = fmean([r["estimated"] / r["difference"] for r in rows])
        lines.append([str(n), _range([r["randomisation"] for r in rows]),
                      _range([r["t"] for r in rows]), f"{ratio:.2f}"])  # fmt: skip
    head_planned = ["difference", "metric", "true", "queries planned", "randomisation test", "t"]
    plans = [
        [r["pair"], r["metric"], f"{r['difference']:+.3f}", str(r["queries"]),
         f"{r['randomisation']:.1%}", f"{r['t']:.1%}"]
        for r in result["planned"]
    ]  # fmt: skip
    return (
        f"{_table(head, lines)}\n\nReal differences on as many queries as `queries_needed` plans "
        f"for 80 %:\n\n{_table(head_planned, plans, 2)}"
    )


def _seeds(rows: Sequence[Row]) -> str:
    head = ["seeds", "true spread", "queries alone", "`seeds_interval`",
            "`seeds_difference`, baseline without seeds", "both with seeds"]  # fmt: skip
    keys = ("queries_only", "seeds_interval", "to_baseline", "to_other_seeds")
    lines = []
    for seeds in sorted({r["seeds"] for r in rows}):
        for low, high in ((0.0, 0.0), (1e-9, 0.015), (0.015, 1.0)):
            own = [r for r in rows if r["seeds"] == seeds and low <= r["true_spread"] <= high]
            if own:
                sizes = sorted({r["true_spread"] for r in own})
                shown = f"{sizes[0]:.3f}" + (f"-{sizes[-1]:.3f}" if len(sizes) > 1 else "")
                cells = [_range([r[key] for r in own]) for key in keys]
                lines.append([str(seeds), shown, *cells])
    return _table(head, lines)
