"""Matched arms as one pipeline: shared beginnings trained once, then one bench over all of them.

Every arm is a chain of stages, each started from the checkpoint of the one before it; all arms read
the same data. A stage with the same recipe, settings and start as that of an arm before it is that
arm's. Outputs are in ``<output>/<arm>/<stage>``, of the bench in ``<output>/bench``. Launching,
skipping and resuming are those of any pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl import formats
from rank_rl import recipe as recipes
from rank_rl.cli.pipeline import Pipeline, Step, beside, check_launch, find_launch, for_stage
from rank_rl.errors import RecipeError
from rank_rl.specs import ArmSpec, ArmsSpec, RecipeSpec

PREFIX = "arm:"
ROOT_KEY = "run.output_dir"
# Rows of every comparison, added where the bench recipe has no row of that kind.
GIVEN = (("random", "random"), ("first stage", "first_stage"), ("perfect order", "perfect"))
Items = list[tuple[str, str]]


@dataclass(slots=True)
class _Plan:
    """What is known while the steps are laid out."""

    spec: ArmsSpec
    path: Path
    given: Items
    root: str
    steps: list[Step] = field(default_factory=list)
    # (stage, settings of the arm, position of the step before) → position of the step
    known: dict[tuple[str, tuple[str, ...], int], int] = field(default_factory=dict)


def load(folder: Path, overrides: Sequence[str] = (), launch: str | None = None) -> Pipeline:
    """Read ``arms.yaml`` (of a folder, or that file) and all its recipes, with ``overrides``.

    Args:
        folder: a folder with ``arms.yaml``, or that file.
        overrides: ``a.b=c`` for every stage, ``sft:a.b=c`` for one; ``run.output_dir=…`` is the
            folder of all arms, ``model.name=…`` the model that they start from.
        launch: an accelerate configuration instead of the one that the file names.

    Raises:
        RecipeError: the file, a recipe, an override or the launch configuration is wrong.
    """
    spec, path = recipes.load_beside(ArmsSpec, folder, "arms.yaml")
    stages = {name for name, file in spec.stages if file} | {"bench"}
    given = [for_stage(item, stages) for item in overrides]
    roots = [
        text.partition("=")[2] for stage, text in given if not stage and _key(text) == ROOT_KEY
    ]
    root = (roots or [spec.output_dir or f"outputs/{spec.name}"])[-1]
    kept = [(stage, text) for stage, text in given if stage or _key(text) != ROOT_KEY]
    plan = _Plan(spec=spec, path=path, given=kept, root=root)
    score = _add(plan, "score", "", {}, -1) if spec.stages.score else -1
    arms = spec.every_arm()
    ends = {arm.name: _arm(plan, arm, score) for arm in arms}
    _bench(plan, arms, ends)
    found = find_launch(launch or spec.launch, path)
    check_launch(found)
    return Pipeline(name=spec.name, launch=found, steps=tuple(plan.steps))


def _key(text: str) -> str:
    return text.partition("=")[0].strip()


def _arm(plan: _Plan, arm: ArmSpec, start: int) -> list[int]:
    """Add the steps of an arm that no arm before it has; the positions of all its steps."""
    positions: list[int] = []
    for stage in arm.stages:
        start = _add(plan, stage, arm.name, arm.set, start)
        positions.append(start)
    return positions


def _add(plan: _Plan, stage: str, arm: str, settings: Mapping[str, Any], before: int) -> int:
    """The position of a stage's step: a known one with the same settings and start, or new."""
    own = [
        (name, f"{key}={json.dumps(value, ensure_ascii=False)}")
        for where, value in settings.items()
        for name, key in [for_stage(where, {"sft", "grpo"})]
    ]
    texts = tuple(text for name, text in own if name in ("", stage))
    place = stage, tuple(sorted(texts)), before
    if place not in plan.known:
        folder = "/".join(part for part in (plan.root, arm, stage) if part)
        chain = [f"run.output_dir={folder}"]
        if before >= 0:
            chain.append(f"model.name={plan.steps[before].out_dir}/final")
        step = _step(plan, stage, (*texts, *chain), after=(before,) if before >= 0 else (), arm=arm)
        plan.known[place] = len(plan.steps)
        plan.steps.append(step)
    return plan.known[place]


def _step(
    plan: _Plan, stage: str, texts: Sequence[str], *, after: tuple[int, ...], arm: str
) -> Step:
    """A step with the overrides given, then those of its arm and of its place."""
    file = plan.spec.bench if stage == "bench" else str(getattr(plan.spec.stages, stage))
    asked = [text for name, text in plan.given if name in ("", stage)]
    overrides = (*asked, *texts)
    recipe = recipes.load(beside(plan.path, file), overrides)
    return Step(stage=stage, recipe=recipe, overrides=overrides, after=after, arm=arm)


def _bench(plan: _Plan, arms: Sequence[ArmSpec], ends: Mapping[str, list[int]]) -> None:
    """Add the bench over all arms: its rows, baselines and steps, completed."""
    draft = _step(plan, "bench", (), after=(), arm="")
    bench = draft.recipe.spec.bench
    if bench is None:
        raise RecipeError(
            "no bench section", where=draft.recipe.path, expected="bench: {systems: []} at least"
        )
    finals = {name: plan.steps[places[-1]] for name, places in ends.items()}
    systems = [_named(s.model_dump(mode="json", exclude_defaults=True), finals, draft.recipe.path)
               for s in bench.systems]  # fmt: skip
    have = {s["kind"] for s in systems}
    front = [{"name": n, "kind": k} for n, k in GIVEN[:2] if k not in have]
    rows = _arm_rows(finals, systems)
    bases = _bases(plan, systems, ends)
    last = [{"name": n, "kind": k} for n, k in GIVEN[2:] if k not in have]
    systems = [*front, *bases, *systems, *rows, *last]
    shown = {_arm_of(s, finals): s["name"] for s in systems if _arm_of(s, finals)}
    steps = [list(s) for s in bench.steps] + _compared(arms, shown)
    first = next((s["name"] for s in systems if s["kind"] == "first_stage"), None)
    baselines = bench.baselines or [n for n in (first, *(b["name"] for b in bases[:1])) if n]
    made = {"systems": systems, "steps": steps, "baselines": baselines}
    texts = [f"bench.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in made.items()]
    texts.append(f"run.output_dir={plan.root}/bench")
    after = tuple(dict.fromkeys(places[-1] for places in ends.values()))
    plan.steps.append(_step(plan, "bench", texts, after=after, arm=""))


def _named(system: dict[str, Any], finals: Mapping[str, Step], where: str) -> dict[str, Any]:
    """A row whose ``model: arm:NAME`` is the checkpoint of that arm.

    Raises:
        RecipeError: no such arm.
    """
    model = str(system.get("model") or "")
    if not model.startswith(PREFIX):
        return system
    name = model.removeprefix(PREFIX)
    if name not in finals:
        raise RecipeError(
            f"no arm {name!r}",
            where=f"{where}: bench.systems {system['name']!r}",
            expected=", ".join(finals),
        )
    return {**system, "model": _checkpoint(finals[name])}


def _checkpoint(step: Step) -> str:
    return f"{step.out_dir}/final"


def _arm_of(system: Mapping[str, Any], finals: Mapping[str, Step]) -> str:
    """The arm whose checkpoint a row asks, or ``""``."""
    return next((n for n, step in finals.items() if system.get("model") == _checkpoint(step)), "")


def _arm_rows(finals: Mapping[str, Step], systems: Sequence[dict[str, Any]]) -> list[Any]:
    """A row for every arm that the recipe has none for."""
    named = {_arm_of(system, finals) for system in systems}
    return [
        {"name": name, "kind": _kind(step.recipe.spec), "model": _checkpoint(step)}
        for name, step in finals.items()
        if name not in named
    ]


def _kind(spec: RecipeSpec) -> str:
    return formats.kind(formats.make(spec.format))


def _bases(
    plan: _Plan, systems: Sequence[dict[str, Any]], ends: Mapping[str, list[int]]
) -> list[dict[str, Any]]:
    """What the arms start from, asked as each of them asks; none that the recipe has a row of."""
    asked: dict[str, dict[str, Any]] = {}
    for places in ends.values():
        own = plan.steps[places[0]]
        first = plan.steps[own.after[0]] if own.after else own  # the common stage score, if any
        spec, model = own.recipe.spec, first.recipe.spec.model.name
        row = {
            "kind": _kind(spec),
            "model": model,
            "format": spec.format.model_dump(mode="json", exclude_defaults=True),
            "strategy": spec.eval.strategy.model_dump(mode="json"),
            "readout": spec.eval.readout,
            "max_new_tokens": spec.eval.max_new_tokens,
        }
        if spec.format.mode == "reason":  # else the bench's own value would decide
            row["reasoning"] = spec.eval.reasoning
        if all(system.get("model") != model for system in systems):
            asked.setdefault(json.dumps(row, sort_keys=True), row)
    # A stage's checkpoint is not untrained: calling it so would hide what came before the arms.
    trained = any(row["model"].endswith("/final") for row in asked.values())
    name = "start" if trained else "untrained base"
    modes = [row["format"].get("mode", "answer") for row in asked.values()]
    names = [name if len(asked) == 1 else f"{name}, {mode}" for mode in modes]
    if len(set(names)) < len(names):
        names = [f"{name} {number}" for number in range(1, len(names) + 1)]
    return [{"name": name, **row} for name, row in zip(names, asked.values(), strict=True)]


def _compared(arms: Sequence[ArmSpec], shown: Mapping[str, str]) -> list[list[str]]:
    """Pairs of rows: what each stage added to the same settings, and reasoning to each stage."""
    stages = [
        (a, b)
        for a in arms
        for b in arms
        if a.set == b.set and b.stages[:-1] == a.stages and len(b.stages) == len(a.stages) + 1
    ]
    reasoning = [
        (a, b)
        for a in arms
        for b in arms
        if a.stages == b.stages
        and a.set.get("format.mode") == "answer"
        and b.set == {**a.set, "format.mode": "reason"}
    ]
    pairs = [(shown.get(a.name), shown.get(b.name)) for a, b in (*stages, *reasoning)]
    return [[a, b] for a, b in pairs if a and b]
