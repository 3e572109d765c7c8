"""What each strategy costs and gives: one checkpoint, one collection, all strategies in one run.

    python benchmarks/strategies.py --model outputs/entailmentbank/groupwise/sft_more/final \\
        --data data/entailmentbank --queries 40

Every row is a strategy with a format and a readout; `--rows` chooses them by the beginnings of
their names. Rows without a format of their own are asked in the checkpoint's (or `--format`'s); the
others use a format the checkpoint may not have been trained with. All rows rank the same test
queries by the code of ``rank-rl bench``, whose finished rows are kept, so that a killed run goes
on. Writes results/strategies.json (a result of the benchmark with the rows as they were asked), or
with `--name slots` results/strategies_slots.json, so that several checkpoints stand beside each
other. From all of them it writes docs/strategies.md and a plot each: nDCG@10 with its interval
against calls, tokens and seconds a query. `--render` writes only page and plots again.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rank_rl import formats, strategies
from rank_rl.errors import RankRLError, RecipeError
from rank_rl.specs import FormatSpec, RecipeSpec, StrategySpec

ROOT = Path(__file__).parent.parent
METRIC = "ndcg@10"
ALT = "nDCG@10 against calls, tokens and seconds a query"
SCORING = (
    "slots",
    "scores",
    "pointwise",
    "cross_encoder",
    "embedding",
)  # formats that by_score can compare across views
HEAD = """# What each strategy costs and gives

Written by `benchmarks/strategies.py` from `results/strategies*.json`, one table a checkpoint. All
rows of a table are measured in one run; calls, tokens, seconds and depth (rounds that wait for one
another) are means a query. Seconds are those of the machine named below the table, where calls of
several queries share a batch. Rows whose format is not the checkpoint's ask it for something that
it was not trained to answer: their costs are those of such a readout, their value says nothing
about it; what could not be read keeps first-stage order. `pairs` asks only a share of all pairs, as
its calls say. Where intervals overlap, as they do with few queries, a table tells what strategies
cost rather than which one is best.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a strategy, and the format and readout where they are not the checkpoint's."""

    name: str
    strategy: str
    params: Mapping[str, Any] = field(default_factory=dict)
    format: Mapping[str, Any] | None = None
    readout: str = "auto"


def rows(size: int, per_document: int) -> list[Row]:
    """All rows, for prompts of ``size`` documents and pairs of ``per_document`` a document."""
    sliding = {"window": size, "step": max(1, size // 2)}
    pairs = {"both": False, "per_document": per_document}
    inner = {"name": "sliding", "params": sliding}
    heap, bubble = ({"method": m, "children": max(1, size - 1)} for m in ("heap", "bubble"))
    worst = {"name": "choice", "params": {"pick": "worst"}}
    return [
        Row(name="single", strategy="single"),
        Row(name="by_score", strategy="by_score", params={"size": size}),
        Row(name="sliding", strategy="sliding", params=sliding),
        Row(name="sliding, 2 passes", strategy="sliding", params={**sliding, "passes": 2}),
        Row(name="groups", strategy="groups", params={"size": size, "repeats": 1}),
        Row(name="groups, 4 times", strategy="groups", params={"size": size, "repeats": 4}),
        Row(name="setwise heap", strategy="setwise", params=heap),
        Row(name="setwise bubble", strategy="setwise",
            params=bubble),
        Row(name="elimination", strategy="elimination", params={"size": size}),
        Row(name="tournament", strategy="tournament", params={"size": size}),
        Row(name="pairs, wins", strategy="pairs", params=pairs),
        Row(name="pairs, Bradley-Terry", strategy="pairs",
            params={**pairs, "aggregate": "bradley_terry"}),
        Row(name="pairs, tsp", strategy="pairs", params={**pairs, "aggregate": "tsp"}),
        Row(name="repeated sliding, 3 times", strategy="repeated",
            params={"strategy": inner, "times": 3}),
        Row(name="refine: groups, then sliding", strategy="refine",
            params={"strategy": inner, "first": {"name": "groups", "params": {"size": size}}}),
        Row(name="label probabilities: pointwise", strategy="by_score", params={"size": 1},
            format={"name": "pointwise"}, readout="score"),
        Row(name="label probabilities: setwise heap", strategy="setwise",
            params=heap, format={"name": "choice"},
            readout="score"),
        Row(name="label probabilities: elimination", strategy="elimination",
            params={"size": size}, format=worst, readout="score"),
        Row(name="label probabilities: pairs", strategy="pairs",
            params={**pairs, "soft": True}, format={"name": "pair"}, readout="score"),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder, Hub id or pip:PACKAGE")
    parser.add_argument("--data", help="BEIR folder, file of tasks (.jsonl) or bundled collection")
    parser.add_argument("--queries", type=int, default=40, help="test queries, chosen by hash")
    parser.add_argument("--format", help="format instead of the checkpoint's: {name: scores, …}")
    parser.add_argument("--readout", default="auto", help="of rows without one of their own")
    parser.add_argument("--size", type=int, default=10, help="documents a prompt shows")
    parser.add_argument("--per-document", type=int, default=8, help="pairs that a document is in")
    parser.add_argument("--max-new-tokens", type=int, help="of an answer; else the checkpoint's")
    parser.add_argument("--rows", nargs="+", help="beginnings of names of rows; all by default")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, help="default: outputs/strategies, with the name")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--name", help="of this checkpoint's table: results/strategies_NAME.json")
    parser.add_argument("--render", action="store_true", help="only page and plots, from results")
    args = parser.parse_args(arguments)
    name = f"strategies_{args.name}" if args.name else "strategies"
    args.output = args.output or ROOT / "outputs" / name  # rows that are done are kept there
    file = args.results / f"{name}.json"
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rank_rl").setLevel(logging.INFO)
    try:
        if not args.render:
            if not args.model or not args.data:
                parser.error("--model and --data are needed")
            result = measure(args)
            args.results.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
        render(args.results, args.docs)
    except RankRLError as error:
        raise SystemExit(f"error: {error}") from error


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark over all rows; its result, with the rows and the machine added."""
    from grpo_step import machine  # beside this file

    from rank_rl.bench.run import run
    from rank_rl.cli import provenance

    main_format = format_of(args)
    asked = chosen(args, main_format)
    check(asked, main_format)
    spec = recipe(args, main_format, asked)
    summary = run(spec, {"path": "benchmarks/strategies.py", "hash": "", **provenance.facts()})
    result: dict[str, Any] = json.loads(Path(summary["result"]).read_text(encoding="utf-8"))
    by_name = {row.name: row for row in asked}
    described = {
        s.name: {
            "strategy": s.strategy.model_dump(mode="json") if s.strategy else None,
            "format": (s.format or main_format).model_dump(mode="json"),
            "own_format": by_name[s.name].format is None,
        }
        for s in (spec.bench.systems if spec.bench else ())
        if s.name in by_name
    }
    return {"benchmark": "strategies", **machine(), "asked": described, **result}


def format_of(args: argparse.Namespace) -> FormatSpec:
    """The format asked for, else that of the checkpoint's contract."""
    from rank_rl.hub.contract import PromptContract
    from rank_rl.models.sources import locate

    if args.format:
        given = yaml.safe_load(args.format)
        return FormatSpec.model_validate(given if isinstance(given, dict) else {"name": given})
    source = locate(args.model)
    return PromptContract.read(source.adapter or source.path).format


def chosen(args: argparse.Namespace, main_format: FormatSpec) -> list[Row]:
    """The rows asked for that the format can be asked in; says which are left out."""
    found = rows(args.size, args.per_document)
    for start in args.rows or ():
        if not any(row.name.startswith(start) for row in found):
            names = "; ".join(row.name for row in found)
            raise RecipeError(f"no row {start!r}", where="--rows", expected=names)
    found = [row for row in found if not args.rows or row.name.startswith(tuple(args.rows))]
    orders = main_format.name not in SCORING
    for row in found:
        if row.strategy == "by_score" and row.format is None and orders:
            print(f"{row.name}: left out, because {main_format.name} writes orders, not scores")
    return [
        row for row in found if row.strategy != "by_score" or row.format is not None or not orders
    ]


def check(asked: Sequence[Row], main_format: FormatSpec) -> None:
    """Refuse the run before anything is computed if a row cannot be made.

    Raises:
        RecipeError: naming every row whose strategy, format or readout is not there.
    """
    from rank_rl.generation.readout import readout_for

    problems = []
    for row in asked:
        try:
            strategies.make(StrategySpec(name=row.strategy, params=dict(row.params)), seed=0)
            readout_for(formats.make(own_format(row, main_format)), row.readout)
        except RankRLError as error:
            problems.append(f"row {row.name!r}: {error}")
    if problems:
        raise RecipeError("; ".join(problems), remedy="choose others with --rows")


def own_format(row: Row, main_format: FormatSpec) -> FormatSpec:
    """A row's format, with the main one's budget for documents and prompts."""
    if row.format is None:
        return main_format
    kept = main_format.model_dump(include={"doc_tokens", "prompt_tokens", "snippet"})
    return FormatSpec.model_validate({**kept, **row.format})


def recipe(args: argparse.Namespace, main_format: FormatSpec, asked: Sequence[Row]) -> RecipeSpec:
    """The benchmark as a recipe."""
    systems: list[dict[str, Any]] = [
        {"name": "random", "kind": "random"},
        {"name": "first stage", "kind": "first_stage"},
    ]
    for row in asked:
        fmt = own_format(row, main_format)
        systems.append({
            "name": row.name, "kind": formats.kind(formats.make(fmt)),
            "model": args.model, "format": fmt.model_dump(),
            "strategy": {"name": row.strategy, "params": dict(row.params)},
            "readout": args.readout if row.format is None else row.readout,
            "max_new_tokens": args.max_new_tokens,
        })  # fmt: skip
    systems.append({"name": "perfect order", "kind": "perfect"})
    return RecipeSpec.model_validate({
        "run": {"name": "strategies", "output_dir": str(args.output), "seed": args.seed},
        "model": {"name": args.model},
        "data": {**source(args.data), "max_test": args.queries},
        "format": main_format.model_dump(),
        "bench": {"systems": systems, "metrics": [METRIC], "baselines": ["first stage"]},
    })  # fmt: skip


def source(name: str) -> dict[str, Any]:
    """The data section for a folder, a file of tasks, or a bundled collection."""
    path = Path(name)
    if path.is_dir():
        pool = (path / "candidates.tsv").is_file()
        return {"source": "beir", "path": name, "first_stage": {"name": "bm25", "pool": pool}}
    if path.suffix == ".jsonl":
        return {"source": "jsonl", "path": name, "first_stage": {"name": "given"}}
    return {"source": "bundled", "path": name, "first_stage": {"name": "bm25", "pool": True}}


def render(results: Path, docs: Path) -> None:
    """Write the page, with a table and a plot for each result in the folder."""
    docs.mkdir(parents=True, exist_ok=True)
    page = HEAD
    for file in sorted(results.glob("strategies*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        page += f"\n## {title(result)}\n\n![{ALT}]({file.stem}.svg)\n\n{table(result)}"
        plot(result, docs / f"{file.stem}.svg")
    (docs / "strategies.md").write_text(page, encoding="utf-8")


def title(result: Mapping[str, Any]) -> str:
    """Format and readout of the first row that keeps the checkpoint's, or of the first asked."""
    shown = [s for s in result["systems"] if s["setting"]]
    own = [s for s in shown if result["asked"][s["name"]]["own_format"]]
    return f"Format {how((own or shown)[0])}"


def table(result: Mapping[str, Any]) -> str:
    """Rows in Markdown: value with interval and cost; then where the numbers come from."""
    names = ["strategy", "format, readout", f"{METRIC} (95 % CI)", "calls", "depth", "tokens in",
             "tokens out", "seconds", "parse failures"]  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---|---|" + "---:|" * (len(names) - 2)]
    for system in result["systems"]:
        found, costs = system["metrics"][METRIC], system["costs"]
        value = f"{found['mean']:.3f} ({found['low']:.3f}-{found['high']:.3f})"
        cells = [system["name"], how(system), value]
        cells += [f"{costs[key]:.1f}" for key in ("calls", "depth")] if costs else ["", ""]
        cells += (
            [f"{costs[f'{k}_tokens']:.0f}" for k in ("prompt", "completion")] if costs else [""] * 2
        )
        cells += [f"{costs['seconds']:.2f}" if costs else ""]
        rate = system["failure_rate"]
        cells += ["" if rate is None else f"{rate:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    model = next((s["model"]["name"] for s in result["systems"] if s["model"]), "")
    lines += [
        "",
        f"{result['queries']} test queries of {result['data']['name']}, seed {result['seed']}, "
        f"model `{model}`, {result['device']}, rank_rl {result['rank_rl']}.",
    ]
    return "\n".join(lines) + "\n"


def how(system: Mapping[str, Any]) -> str:
    setting = system["setting"]
    return f"`{setting['format']}`, {setting['readout']}" if setting else ""


def plot(result: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # the same file from the same result
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    asked = [s for s in result["systems"] if s["costs"]]
    given = {s["name"]: s["metrics"][METRIC]["mean"] for s in result["systems"] if not s["costs"]}
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), sharey=True)
    panels = {
        "calls a query": lambda c: c["calls"],
        "tokens a query, read and written": lambda c: c["prompt_tokens"] + c["completion_tokens"],
        "seconds a query": lambda c: c["seconds"],
    }
    for axis, (title, cost) in zip(axes, panels.items(), strict=True):
        for number, system in enumerate(asked):
            found = system["metrics"][METRIC]
            error = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            style = {"marker": "os^Dv"[number // 10 % 5], "color": f"C{number % 10}"}
            axis.errorbar([cost(system["costs"])], [found["mean"]], yerr=error, capsize=2,
                          linestyle="none", label=system["name"], **style)  # fmt: skip
        axis.axhline(given["first stage"], color="grey", linestyle=":", label="first stage")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap
        axis.set_xlabel(title)
    axes[0].set_ylabel(METRIC)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.84, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
