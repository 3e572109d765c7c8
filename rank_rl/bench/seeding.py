"""Which seeds a system is measured with, and where its files are then.

A system is measured with every seed of ``bench.seeds`` when another seed would give other
numbers: its ``model`` or ``path`` holds ``{seed}`` (checkpoints of several training runs), its
strategy draws at random, or its answers are sampled. All others are measured once, with
``run.seed``; kind ``random`` as well, whose one measurement is the mean of many shuffles.
"""

from __future__ import annotations

from rank_rl import strategies
from rank_rl.bench.measured import PLACE, Measured
from rank_rl.bench.setting import settled
from rank_rl.bench.systems import Job, Paths
from rank_rl.specs import RecipeSpec, SystemSpec
from rank_rl.specs.bench import ASKED


def draws(system: SystemSpec, spec: RecipeSpec) -> bool:
    """Whether another seed would give other numbers."""
    if PLACE in (system.model or "") or PLACE in (system.path or ""):
        return True
    if system.kind not in ASKED or system.kind == "cross_encoder":
        return False
    if system.kind == "endpoint" and system.params.get("temperature", 0):
        return True
    how = settled(system, spec)
    named = system.strategy or (how.strategy if how else spec.eval.strategy)
    made = strategies.make(named, seed=spec.run.seed)
    return hasattr(made, "seed") and bool(getattr(made, "shuffle", True))


def jobs(system: SystemSpec, spec: RecipeSpec, one: Measured) -> list[Job]:
    """One job a seed, on one collection."""
    seeds = list(spec.bench.seeds) if spec.bench else []
    if len(seeds) < 2 or not draws(system, spec):
        only = seeds[0] if seeds and draws(system, spec) else spec.run.seed
        return [_job(system, spec, one, Paths.of(one.out_dir, system.name), only)]
    return [
        _job(system, spec, one, Paths.of(one.out_dir, system.name, seed), seed) for seed in seeds
    ]


def _job(system: SystemSpec, spec: RecipeSpec, one: Measured, paths: Paths, seed: int) -> Job:
    update = {
        key: value.replace(PLACE, str(seed))
        for key in ("model", "path")
        if (value := getattr(system, key)) is not None
    }
    return Job(
        system=system.model_copy(update=update),
        spec=spec.model_copy(update={"run": spec.run.model_copy(update={"seed": seed})}),
        tasks=one.tasks,
        paths=paths,
        metric=one.metrics[0],
    )
