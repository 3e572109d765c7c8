"""How a checkpoint was trained, in words and numbers of its stages' own files.

Contract: what no file says is "unknown". Counts of training queries are taken from a benchmark
only where its recipe divides the same data in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rank_rl.hub.lineage import Lineage, Stage, places, recipe_of
from rank_rl.hub.results import Measured, cell, data_set
from rank_rl.hub.scrub import portable_text
from rank_rl.hub.tree import read_json

UNKNOWN = "unknown"
# What of a recipe's data section decides which queries are in which split.
SPLITS = (
    *("source", "path", "params", "train_split", "test_split", "validation_split", "validation"),
    *("max_train", "max_validation", "max_test", "leaks"),
)
WHAT = {
    "score": "learns to score documents (losses over labels or scores)",
    "sft": "supervised fine-tuning on ideal answers",
    "grpo": "GRPO with ranking rewards",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What is known of the data of a stage.

    Attributes:
        name: of the collection.
        queries: training queries, None where unknown.
        data_set, commit: on the Hub; empty where unknown.
        teachers: models whose answers it learnt from, and what they are stored under.
    """

    name: str
    queries: int | None = None
    data_set: str = ""
    commit: str = ""
    teachers: tuple[str, ...] = ()

    def text(self) -> str:
        """One phrase."""
        count = f"{self.queries} training queries" if self.queries is not None else "training split"
        words = f"{count} of {cell(self.name) or UNKNOWN}"
        if self.queries is None:
            words += f" ({UNKNOWN} number of queries)"
        return words + (f", lessons of {cell(', '.join(self.teachers))}" if self.teachers else "")


def data_of(stage: Stage, benches: Sequence[Measured]) -> TrainingData:
    """The data that a stage was trained on."""
    queries, origin = None, ("", "")
    for bench in benches:
        if bench.collection == stage.contract.data and _same_split(stage, bench):
            splits = (bench.result.get("data") or {}).get("splits") or {}
            queries = (splits.get("train") or {}).get("queries")
            origin = data_set(bench)
            break
    return TrainingData(
        name=stage.contract.data,
        queries=queries,
        data_set=origin[0],
        commit=origin[1],
        teachers=tuple(_teachers(stage)),
    )


def section(lineage: Lineage, benches: Sequence[Measured]) -> list[str]:
    """Markdown lines: the stages from the base model on, and what they warned of."""
    lines = [f"Base model: {base_text(lineage)}.", ""]
    stages = list(reversed(lineage.stages))
    lines += ["| stage | what | data | trained with | validation |", "|---|---|---|---|---|"]
    for number, stage in enumerate(stages, 1):
        cells = [
            f"{number}. {stage.name}",
            WHAT.get(stage.name, UNKNOWN),
            data_of(stage, benches).text(),
            _settings(stage),
            _validation(stage),
        ]
        lines.append("| " + " | ".join(map(cell, cells)) + " |")
    lines += ["", *_versions(lineage.last), ""]
    alarms = [f"- {s.name}: {portable_text(cell(alarm))}" for s in stages for alarm in _alarms(s)]
    if alarms:
        lines += ["What the runs warned of:", "", *alarms, ""]
    return lines


def base_text(lineage: Lineage) -> str:
    """The model that everything began with, as far as it is known."""
    if lineage.broken:
        return f"{UNKNOWN} ({cell(portable_text(lineage.broken))}, so the walk back ends here)"
    name = portable_text(lineage.base) or UNKNOWN
    if lineage.hub_base:
        return f"[{name}](https://huggingface.co/{name}) at `{lineage.base_revision}`"
    if name.startswith("pip:"):
        package = name.removeprefix("pip:")
        return (
            f"the weights in the Python package `{package}` ({cell(lineage.base_revision)}); its "
            f"name on the Hub is {UNKNOWN}"
        )
    return f"a local folder, `{cell(name)}` ({cell(lineage.base_revision) or UNKNOWN})"


def data_licence(stage: Stage) -> str:
    """What is said of the licence of a stage's data: by its attribution, or its lessons' report."""
    data = stage.section("data")
    if data.get("source") == "bundled" and isinstance(data.get("path"), str):
        file = files("rank_rl.data.bundled") / str(data["path"]) / "ATTRIBUTION.md"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines = [line for line in text.split("\n") if "licence" in line.lower()]
        if lines:
            return cell(" ".join(lines)).rstrip(".")
    said = (_report(stage).get("source") or {}).get("licence")
    return f"lessons {cell(said)}" if said else UNKNOWN


def _settings(stage: Stage) -> str:
    """Optimisation in a few words: what the recipe set, and what the stage counted."""
    training, model = stage.section("training"), stage.section("model")
    if not stage.recipe:
        return UNKNOWN
    found = [f"{kind} {', '.join(names)}" for kind, names in _paid(stage) if names]
    steps = stage.summary().get("steps") or training.get("max_steps")
    found += [f"{steps} steps"] if steps else []
    if rate := training.get("learning_rate"):
        found.append(f"learning rate {float(rate):g}")
    found.append(f"seed {stage.section('run').get('seed', UNKNOWN)}")
    lora = model.get("lora")
    found.append(f"LoRA r {lora.get('r', UNKNOWN)}" if lora else "all weights")
    if frozen := model.get("freeze_layers"):
        found[-1] += f" above layer {frozen}"
    if seconds := stage.summary().get("seconds"):
        found.append(f"{seconds:.0f} s")
    return ", ".join(found)


def _paid(stage: Stage) -> Iterator[tuple[str, list[str]]]:
    for key, kind in (("rewards", "rewards"), ("losses", "losses")):
        listed = stage.recipe.get(key) or []
        names = [f"{part.get('name')} × {part.get('weight', 1):g}" for part in listed]
        yield kind, names


def _validation(stage: Stage) -> str:
    """The metric before the first step and at the checkpoint that was kept."""
    kept = stage.contract.extra.get("validation") or {}
    metric = str(stage.section("eval").get("metric") or "")
    key = f"eval_{metric}"
    if not metric or key not in kept:
        return UNKNOWN
    metrics = stage.summary().get("metrics") or {}
    start = (metrics.get("start") or {}).get(key)
    before = f"{start:.3f} → " if isinstance(start, float) else ""
    queries = kept.get("eval_queries")
    of = f" over {queries:.0f} queries" if queries else ""
    first = kept.get("eval_first_stage")
    beside = f"; first stage {first:.3f}" if isinstance(first, float) else ""
    return f"{metric} {before}{kept[key]:.3f}{of}{beside}"


def _versions(stage: Stage) -> list[str]:
    facts = stage.provenance
    if not facts:
        return [f"Versions of the packages: {UNKNOWN}."]
    versions = ", ".join(f"{name} {v}" for name, v in (facts.get("versions") or {}).items())
    git = facts.get("git") or {}
    commit = f"`{git['commit'][:12]}`" if git.get("commit") else UNKNOWN
    changed = ", with changes that are not in it" if git.get("changed") else ""
    return [
        f"The last stage ran with {cell(versions) or UNKNOWN}; rank_rl at commit {commit}{changed}."
    ]


def _alarms(stage: Stage) -> list[str]:
    metrics = stage.summary().get("metrics") or {}
    return [str(alarm) for alarm in metrics.get("alarms") or []]


def _same_split(stage: Stage, bench: Measured) -> bool:
    """Whether a benchmark's recipe divides its collection as the stage's does."""
    for folder in (bench.folder, bench.folder.parent):
        recipe = recipe_of(folder)
        if not recipe:
            continue
        theirs, own = recipe.get("data") or {}, stage.section("data")
        seeds = [(r.get("run") or {}).get("seed") for r in (recipe, stage.recipe)]
        return seeds[0] == seeds[1] and all(theirs.get(k) == own.get(k) for k in SPLITS)
    return False


def _teachers(stage: Stage) -> Iterator[str]:
    """Who wrote the lessons of a stage."""
    if not stage.section("data").get("lessons"):
        return
    named = (_report(stage).get("source") or {}).get("teachers") or {}
    yield from (str(name) for name in named.values())
    if not named:
        yield f"{UNKNOWN} teachers"


def _report(stage: Stage) -> Mapping[str, Any]:
    """The report beside the lessons of a stage; empty where there is none."""
    lessons = stage.section("data").get("lessons")
    if not isinstance(lessons, str) or not lessons:
        return {}
    found = (read_json(place.parent / "report.json") for place in places(stage, lessons))
    return next((report for report in found if report), {})
