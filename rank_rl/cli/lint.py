"""``rank-rl lint-rewards``: whether a recipe's rewards can be fooled, before GPU hours are spent.

Adversaries answer real views and made-up ones; the comparison is ``rank_rl.rewards.lint``. Exit
status 0 when malformed < worse than the input < copy < better holds, 1 when it does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli.show import heading, line, show_table
from rank_rl.cli.stages import Overrides, RecipePath

if TYPE_CHECKING:
    from rank_rl.recipe import Recipe
    from rank_rl.records import RankingTask
    from rank_rl.rewards.lint import Case, Paid, Report
    from rank_rl.specs import RecipeSpec

EXIT_BROKEN = 1
VIEWS = 12
# Documents that a prompt shows where the format and not the sampler says how many.
SIZES = {"pointwise": 1, "pair": 2}


def lint_rewards(
    recipe: RecipePath,
    set_: Overrides = None,
    stage: Annotated[
        str, typer.Option(help="Stage whose recipe is meant when RECIPE is a pipeline's folder.")
    ] = "grpo",
    views: Annotated[
        int,
        typer.Option(min=0, help="Queries of the recipe's data; 0 asks made-up views alone."),
    ] = VIEWS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that no malformed or worse answer earns more than a better one."""
    from rank_rl import recipe as recipes

    loaded = recipes.load(_recipe_file(recipe, stage), set_ or [])
    report = judge(loaded.spec, real_cases(loaded.spec, views) if views else [], where=loaded.path)
    if as_json:
        print(json.dumps(as_record(report, loaded), ensure_ascii=False, indent=1))
    else:
        show(report, loaded)
    if not report.clean:
        raise typer.Exit(EXIT_BROKEN)


def judge(spec: RecipeSpec, cases: Sequence[Case], *, where: str = "") -> Report:
    """Lint the rewards of a recipe on some of its views and on made-up ones of the same size.

    Of one document, where format pointwise shows one: no order is at stake then.

    Raises:
        RecipeError: no rewards, a format or reward that cannot be made, label slots where text is
            generated.
    """
    from rank_rl import formats, rewards
    from rank_rl.errors import RecipeError
    from rank_rl.rewards import adversaries, lint

    if not spec.rewards:
        raise RecipeError(
            "no rewards to check", where=where, expected="a recipe with a section rewards"
        )
    composite = rewards.make(spec.rewards)
    fmt = formats.make_written(spec.format, where="format.name")
    size = SIZES.get(spec.format.name, spec.data.sampler.size)
    if spec.data.sampler.name == "rollout" and cases:
        size = max(len(view.docids) for view, _ in cases)
    made_up = adversaries.cases(size)
    if spec.grpo.policy == "slots":
        values = getattr(fmt, "values", None) if spec.grpo.action == "labels" else None
        return lint.lint(composite, [*cases, *made_up], None, values)
    if hasattr(fmt, "slot_messages"):
        raise RecipeError(
            "label slots are not generated as one answer", where="grpo.policy", expected="slots"
        )
    return lint.lint(composite, [*cases, *made_up], fmt)


def real_cases(spec: RecipeSpec, count: int) -> list[Case]:
    """The first training view of each of ``count`` queries, with its grades."""
    from rank_rl import data

    collection = data.load(spec.data, seed=spec.run.seed)
    tasks = collection.train or collection.validation or collection.test
    return cases_of(tasks, spec, count)


def cases_of(tasks: Sequence[RankingTask], spec: RecipeSpec, count: int) -> list[Case]:
    """The first view that training would draw of each of the first tasks that have one."""
    from rank_rl import formats
    from rank_rl.training import rollouts

    found: list[Case] = []
    fmt = formats.make(spec.format)
    for task in tasks:
        if len(found) == count:
            break
        drawn, _ = rollouts.draw(task, spec, fmt)
        # Without any relevant document no answer is better than another.
        found += [(view, task.grades or {}) for view in drawn[:1] if task.grades]
    return found


def show(report: Report, loaded: Recipe) -> None:
    """Print the table, the breaks and the warnings."""
    spec = loaded.spec
    parts = ", ".join(
        f"{r.name} {r.weight:g}" + (f" (gate {r.gate})" if r.gate else "") for r in spec.rewards
    )
    heading(f"rewards of {loaded.path}: {parts}")
    line(_asked(spec))
    show_table(rows_of(report))
    for broken, answers in report.causes:
        line(f"broken: {broken.line(answers)}", style="red")
    for warning in report.warnings:
        line(f"warning: {warning}")
    line(report.line() + ".", style="bold")


def as_record(report: Report, loaded: Recipe) -> dict[str, Any]:
    """The report as plain values."""
    breaks = [
        {
            "rule": b.rule,
            "lower": {"answer": b.lower.answered.name, "total": b.lower.total},
            "higher": {"answer": b.higher.answered.name, "total": b.higher.total},
            "excess": b.excess,
            "query": b.lower.view.query.qid,
            "views": b.queries,
            "of": b.of,
            "remedy": b.remedy,
            "line": b.line(),
        }
        for b in report.breaks
    ]
    return {
        "clean": report.clean,
        "recipe": str(loaded.path),
        "hash": loaded.hash,
        "asked": _asked(loaded.spec),
        "answers": rows_of(report),
        "breaks": breaks,
        "warnings": list(report.warnings),
    }


def rows_of(report: Report) -> list[dict[str, Any]]:
    """One row an adversary over all views, from the least to the most paid level."""
    from rank_rl.rewards.lint import LEVELS

    named: dict[str, list[Paid]] = {}
    for paid in report.paid:
        named.setdefault(paid.answered.name, []).append(paid)
    blamed: dict[str, list[str]] = {}
    for b in report.breaks:
        blamed.setdefault(b.named, []).append(b.rule)
    rows: list[dict[str, Any]] = []
    for name, same in named.items():
        totals = [p.total for p in same]
        issues = dict.fromkeys(i for p in same for i in p.answered.outcome.issues)
        rows.append(
            {
                "answer": name,
                "level": _counted([p.level for p in same]),
                "parsed": _counted([p.answered.outcome.status for p in same]),
                "issues": ", ".join(issues),
                "mean": fmean(totals),
                "min": min(totals),
                "max": max(totals),
                "verdict": "; ".join(dict.fromkeys(blamed.get(name, ["ok"]))),
            }
        )
    order = {name: LEVELS.index(same[0].level) for name, same in named.items()}
    return sorted(rows, key=lambda row: (order[str(row["answer"])], row["mean"]))


def _counted(values: Sequence[str]) -> str:
    """``ok`` where all are alike, else ``ok 3, repaired 1``."""
    counts = {value: values.count(value) for value in dict.fromkeys(values)}
    return (
        next(iter(counts)) if len(counts) == 1 else ", ".join(f"{v} {n}" for v, n in counts.items())
    )


def _asked(spec: RecipeSpec) -> str:
    if spec.grpo.policy == "slots":
        return (
            f"policy slots, action {spec.grpo.action}: answers are orders or scores, "
            "no text exists, so nothing can be malformed"
        )
    asked = f"format {spec.format.name}, mode {spec.format.mode}"
    return f"{asked}: answers are written and parsed as text"


def _recipe_file(path: Path, stage: str) -> Path:
    """The recipe itself, or that of a stage of the pipeline in a folder.

    Raises:
        RecipeError: the pipeline has no such stage.
    """
    from rank_rl import recipe as recipes
    from rank_rl.errors import RecipeError

    if not path.is_dir():
        return path
    pipeline, _ = recipes.load_pipeline(path)
    found = next((s.recipe for s in pipeline.stages if s.stage == stage), None)
    if found is None:
        named = ", ".join(dict.fromkeys(s.stage for s in pipeline.stages))
        raise RecipeError(f"no stage {stage!r}", where=str(path), expected=named)
    return path / found
