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

import yaml

from rank_rl import formats
from rank_rl import recipe as recipes
from rank_rl.cli.pipeline import Pipeline, Step, beside, check_launch, find_launch, for_stage
from rank_rl.errors import RecipeError
from rank_rl.specs import ArmSpec, ArmsSpec, BenchSpec, RecipeSpec

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
        RecipeError: the file, a recipe, an override or the launch configuration is wrong, or two
            rows of the bench would share a name.
    """
    spec, path = recipes.load_beside(ArmsSpec, folder, "arms.yaml")
    stages = {name for name, file in spec.stages if file} | {"bench"}
    given = [for_stage(item, stages) for item in overrides]
    roots = [_folder(text) for stage, text in given if not stage and _key(text) == ROOT_KEY]
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


def _folder(override: str) -> str:
    """The folder that ``run.output_dir=…`` names.

    Raises:
        RecipeError: it names none.
    """
    text = override.partition("=")[2]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError("value is not valid YAML", where=f"--set {override}") from error
    if value is None or isinstance(value, dict | list) or not str(value).strip():
        raise RecipeError(f"value {value!r}", where=f"--set {override}", expected="a folder")
    return value if isinstance(value, str) else text.strip()


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
    _check_given(plan, stage, [_key(text) for text in texts], arm)
    asked = [text for name, text in plan.given if name in ("", stage)]
    overrides = (*asked, *texts)
    recipe = recipes.load(beside(plan.path, file), overrides)
    return Step(stage=stage, recipe=recipe, overrides=overrides, after=after, arm=arm)


def _check_given(plan: _Plan, stage: str, keys: Sequence[str], arm: str) -> None:
    """Refuse an override that has no effect, since the arm or its place in the chain decides.

    What the bench is completed with contains what was given; ``model.name`` for all stages is
    meant for the first ones.

    Raises:
        RecipeError: naming the override and what decides.
    """
    decided = [key for key in keys if not key.startswith("bench.")]
    for name, text in plan.given:
        asked = _key(text).replace("[", ".")
        hit = [key for key in decided if asked == key or asked.startswith(f"{key}.")]
        if hit and (name == stage or (not name and hit[0] != "model.name")):
            whose = f"arm {arm!r}" if arm else f"stage {stage}"
            raise RecipeError(
                f"has no effect: {whose} has its own {hit[0]}",
                where=f"--set {name}{':' if name else ''}{text}",
                expected=f"another key, or change {plan.path}",
            )


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
    bases, starts = _bases(plan, systems, ends)
    last = [{"name": n, "kind": k} for n, k in GIVEN[2:] if k not in have]
    systems = [*front, *bases, *systems, *rows, *last]
    shown = {_arm_of(s, finals): s["name"] for s in systems if _arm_of(s, finals)}
    steps = [list(s) for s in bench.steps]
    steps += [pair for pair in _compared(arms, ends, shown, starts) if pair not in steps]
    first = next((s["name"] for s in systems if s["kind"] == "first_stage"), None)
    baselines = bench.baselines or [n for n in (first, *(b["name"] for b in bases[:1])) if n]
    made = {"systems": systems, "steps": steps, "baselines": baselines}
    texts = [f"bench.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in made.items()]
    texts.append(f"run.output_dir={plan.root}/bench")
    after = tuple(dict.fromkeys(places[-1] for places in ends.values()))
    step = _step(plan, "bench", texts, after=after, arm="")
    _check_rows(plan, step.recipe.spec.bench, finals)
    plan.steps.append(step)


def _check_rows(plan: _Plan, bench: BenchSpec | None, finals: Mapping[str, Step]) -> None:
    """Refuse two rows whose files would be the same, which the bench would after training.

    Raises:
        RecipeError: naming the two.
    """
    from rank_rl.bench.fused import row_names
    from rank_rl.bench.systems import Paths

    seen: dict[Path, str] = {}
    for name in row_names(bench) if bench else ():
        file = Paths.of(Path(), name).record
        if file in seen:
            other = seen[file]
            arm, row = (name, other) if name in finals else (other, name)
            whose = "arm" if arm in finals else "bench row"
            raise RecipeError(
                f"{whose} {arm!r} has the name of the bench row {row!r}",
                where=str(plan.path),
                expected="another name",
            )
        seen[file] = name


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
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What the arms start from, asked as each of them asks; none that the recipe has a row of.

    Returns:
        The rows to add, and for every arm the name of the row that is its start.
    """
    asked: dict[str, dict[str, Any]] = {}
    start_of: dict[str, str] = {}  # arm → key in ``asked``, or name of the recipe's row
    for arm, places in ends.items():
        row = _start_row(plan, places[0])
        mode = row["format"].get("mode", "answer")
        own = [system for system in systems if system.get("model") == row["model"]]
        same = [s for s in own if (s.get("format") or {}).get("mode", "answer") == mode]
        if own:
            start_of[arm] = (same if len(own) > 1 and same else own)[0]["name"]
        else:
            start_of[arm] = json.dumps(row, sort_keys=True)
            asked.setdefault(start_of[arm], row)
    # A stage's checkpoint is not untrained: calling it so would hide what came before the arms.
    trained = any(row["model"].endswith("/final") for row in asked.values())
    name = "start" if trained else "untrained base"
    modes = [row["format"].get("mode", "answer") for row in asked.values()]
    names = [name if len(asked) == 1 else f"{name}, {mode}" for mode in modes]
    if len(set(names)) < len(names):
        names = [f"{name} {number}" for number in range(1, len(names) + 1)]
    called = dict(zip(asked, names, strict=True))
    rows = [{"name": called[key], **row} for key, row in asked.items()]
    return rows, {arm: called.get(start, start) for arm, start in start_of.items()}


def _start_row(plan: _Plan, place: int) -> dict[str, Any]:
    """A row without a name for the model that an arm's first step, at ``place``, starts from."""
    own = plan.steps[place]
    first = plan.steps[own.after[0]] if own.after else own  # the common stage score, if any
    spec = own.recipe.spec
    row = {
        "kind": _kind(spec),
        "model": first.recipe.spec.model.name,
        "format": spec.format.model_dump(mode="json", exclude_defaults=True),
        "strategy": spec.eval.strategy.model_dump(mode="json"),
        "readout": spec.eval.readout,
        "max_new_tokens": spec.eval.max_new_tokens,
    }
    if spec.format.mode == "reason":  # else the bench's own value would decide
        row["reasoning"] = spec.eval.reasoning
    return row


def _compared(
    arms: Sequence[ArmSpec],
    ends: Mapping[str, list[int]],
    shown: Mapping[str, str],
    starts: Mapping[str, str],
) -> list[list[str]]:
    """Pairs of rows: what stages added to the start and to the arm before, then reasoning.

    An arm whose last stage goes on from no other arm is compared with its start.
    """
    before = {b.name: [a.name for a in arms if ends[a.name] == ends[b.name][:-1]] for b in arms}
    pairs: list[tuple[str | None, str | None]] = [
        (starts[b.name], shown.get(b.name)) for b in arms if not before[b.name]
    ]
    pairs += [(shown.get(a), shown.get(b.name)) for b in arms for a in before[b.name]]
    pairs += [
        (shown.get(a.name), shown.get(b.name))
        for a in arms
        for b in arms
        if a.stages == b.stages
        and a.set.get("format.mode") == "answer"
        and b.set == {**a.set, "format.mode": "reason"}
    ]
    return [[a, b] for a, b in dict.fromkeys(pairs) if a and b]
