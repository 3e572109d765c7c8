"""The table of published methods: one row a recipe folder with ``method.yaml``.

Contract: only title, paper and summary are typed there. Stages, format, strategy, rewards and
losses are read from the recipes, numbers from result files of ``rank-rl bench``; a result file that
is not there yet reads "not measured". ``tables`` puts the block into a page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rank_rl import recipe as recipes
from rank_rl.errors import DataError
from rank_rl.specs import MethodResultSpec, MethodSpec, PipelineStage, RecipeSpec

FILE = "method.yaml"
COLUMNS = (
    *("method", "paper", "stages", "format", "strategy", "reward / loss", "paper's scale"),
    "nDCG@10 measured here",
)
TRAINING = ("score", "sft", "grpo")
Stages = Sequence[tuple[str, RecipeSpec]]


def block(page: Path) -> str:
    """The table for a Markdown page, of all methods below the folder ``recipes`` beside it.

    Raises:
        RecipeError: a ``method.yaml`` or a recipe that it names is wrong.
        DataError: a result file is malformed or lacks a row that is quoted.
    """
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for file in sorted((page.parent / "recipes").rglob(FILE)):
        cells = [_cell(text) for text in row(file.parent, page.parent)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def row(folder: Path, start: Path) -> list[str]:
    """The cells of one method; links are relative to ``start``."""
    spec, path = recipes.load_beside(MethodSpec, folder, FILE)
    stages = [(s.stage, recipes.load(folder / s.recipe).spec) for s in stages_of(spec, folder)]
    link = Path(os.path.relpath(folder, start)).as_posix()
    address = f"https://arxiv.org/abs/{spec.arxiv}" if spec.arxiv else spec.url
    named = [stage for stage, _ in stages if stage != "bench"]
    learned = _distinct(objective(stage, recipe) for stage, recipe in stages)
    scale = [f"[{Path(name).stem}]({link}/{name})" for name in spec.paper_recipe]
    for name in spec.paper_recipe:
        recipes.load(folder / name)
    return [
        f"[{spec.title}]({link}): {spec.summary}",
        f"[{spec.paper}]({address})" if address else spec.paper,
        " or ".join(_distinct(named)) if spec.alternatives else " → ".join(named),
        _formats(stages),
        _strategies(stages),
        ("; or " if spec.alternatives else "; ").join(learned),
        ", ".join(scale) or "-",
        "; ".join(measured(result, path) for result in spec.results) or "not measured",
    ]


def stages_of(spec: MethodSpec, folder: Path) -> Sequence[PipelineStage]:
    """The stages that ``method.yaml`` names, else those of the folder's pipeline.

    Raises:
        RecipeError: it names none and there is no pipeline.
    """
    return spec.stages or recipes.load_pipeline(folder)[0].stages


def _trained(stages: Stages) -> list[RecipeSpec]:
    """The recipes of the training stages; of all stages where nothing is trained."""
    found = [recipe for stage, recipe in stages if stage in TRAINING]
    return found or [recipe for _, recipe in stages]


def _formats(stages: Stages) -> str:
    shown = (f"`{r.format.name}` ({r.format.mode})" for r in _trained(stages))
    return " → ".join(_distinct(shown))


def _strategies(stages: Stages) -> str:
    """How the last stage ranks; the way that is saved with its checkpoint."""
    strategy = _trained(stages)[-1].eval.strategy
    params = ", ".join(f"{key} {value}" for key, value in strategy.params.items())
    return f"`{strategy.name}`" + (f" ({params})" if params else "")


def objective(stage: str, spec: RecipeSpec) -> str:
    """What a stage learns from, in words; empty for stages that train nothing."""
    from rank_rl.training.followed import DEFAULT_LOSSES

    losses = _weighted((loss.name, loss.weight) for loss in spec.losses or DEFAULT_LOSSES)
    if stage == "score":
        return losses
    if stage == "sft":
        return "a teacher's answers" if spec.data.lessons else "ideal answers"
    if stage != "grpo":
        return ""
    rewards = _weighted((reward.name, reward.weight) for reward in spec.rewards)
    if spec.grpo.policy == "slots" and spec.grpo.supervised:
        return f"{rewards} and {spec.grpo.supervised:g} ({losses})"
    return rewards


def _weighted(parts: Iterable[tuple[str, float]]) -> str:
    texts = (f"`{name}`" if weight == 1 else f"{weight:g} `{name}`" for name, weight in parts)
    return " + ".join(texts)


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def measured(spec: MethodResultSpec, method: Path) -> str:
    """A result in one phrase: the method's value, what it started from, the first stage.

    Raises:
        DataError: the file is no benchmark result, or lacks a row or metric.
    """
    path = method.parent / spec.file
    label = f"{spec.label}: " if spec.label else ""
    if not path.is_file():
        return f"{label}not measured"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        metric = spec.metric or result["metrics"][0]
        if metric not in result["metrics"]:
            raise DataError(
                f"no metric {metric!r}",
                where=f"{method}: results, {path}",
                expected=", ".join(result["metrics"]),
            )
        means = _means(result, metric)
        where = f"{result['queries']} queries of {result['data']['name']}"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError("not a benchmark result", where=str(path)) from error
    for name in (spec.system, spec.base, spec.first_stage):
        if name not in means:
            raise DataError(
                f"no system {name!r}", where=f"{method}: results, {path}", expected=", ".join(means)
            )
    named = f" {spec.metric}" if spec.metric else ""
    return (
        f"{label}{means[spec.system]:.3f}{named} (base {means[spec.base]:.3f}, "
        f"first stage {means[spec.first_stage]:.3f}; {where})"
    )


def _means(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {s["name"]: float(s["metrics"][metric]["mean"]) for s in result["systems"]}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
