"""Stage ``score``: ranking losses for models that score, and a packed warm-up for decoders.

Formats of ``formats.INPUTS`` train a scorer (cross-encoder, embedding, pair scorer). With format
slots a decoder learns to rank by its label slots: query once, documents as segments of one
sequence, a score from the label logits at the end of each segment. Both are supervised by the
``losses`` of the recipe. Relevance is learned many times faster from label logits than from
generated labels (the order of ProRank's two stages, 2506.03487, turned round).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl import formats, losses, strategies
from rank_rl.records import RankingTask
from rank_rl.rerank import Reranker
from rank_rl.specs import LossSpec, RecipeSpec, StrategySpec
from rank_rl.training import common, mining
from rank_rl.training.callbacks import LogCallback, RerankCallback, ready
from rank_rl.training.followed import losses_of
from rank_rl.training.slot_trainer import (
    Objective,
    SlotExample,
    SlotTrainer,
    examples,
)

if TYPE_CHECKING:
    import torch

    from rank_rl.losses.group import ScoredGroup

SCORER_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "linear",
    "warmup_steps": 5,
    "remove_unused_columns": False,
    "save_steps": 50,
}


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Train, validate and save; goes on from the last checkpoint of an interrupted run.

    Args:
        spec: a checked recipe; ``training`` holds arguments of transformers' TrainingArguments.
        info: what the recipe loader knows (hash, path, versions).

    Returns:
        Summary: checkpoint folder, steps, metrics, seconds, log file.

    Raises:
        RankRLError: whatever of recipe, data, model or disk is wrong.
    """
    fmt = formats.make(spec.format)
    if formats.kind(fmt) == "scorer":
        return train_scorer(spec, info)
    return train_slots("score", spec, info, supervised(losses_of("score", spec)))


def supervised(specs: Sequence[LossSpec]) -> Objective:
    """Mean over the batch of the weighted sum of losses."""
    total = losses.make(specs)

    def objective(
        groups: Sequence[ScoredGroup], batch: Sequence[SlotExample], step: int
    ) -> tuple[torch.Tensor, Mapping[str, float]]:
        import torch

        return torch.stack([total(group) for group in groups]).mean(), {}

    return objective


def train_scorer(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Train the scorer that reads the recipe's input; see ``run``."""
    from transformers import TrainingArguments

    from rank_rl.training import scorer_trainer

    objective = supervised(losses_of("score", spec))  # wrong names before anything is loaded
    stage = common.begin("score", spec, info)
    args = common.hf_arguments(spec, TrainingArguments, stage.out_dir, **SCORER_DEFAULTS)
    data, report = scorer_trainer.examples(stage)
    validator = RerankCallback(stage)
    checkpoint = common.resume_point(stage.out_dir, spec, stage.identity())
    trainer = scorer_trainer.ScorerTrainer(
        stage,
        objective,
        args=args,
        train_dataset=data,
        callbacks=[validator, LogCallback(stage.out_dir)],
    )
    return _fit(trainer, stage, validator, checkpoint, report)


def train_slots(
    name: str,
    spec: RecipeSpec,
    info: Mapping[str, Any],
    objective: Objective,
    *,
    iterations: int = 1,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Run a stage that learns through label slots under an objective; see ``run``.

    ``callbacks`` come behind those that validate and log.
    """
    from transformers import TrainingArguments

    stage = common.begin(name, spec, info)
    if hasattr(objective, "taught"):  # rewards may follow a teacher
        objective.taught(stage.collection.teacher)
    args = common.hf_arguments(
        spec,
        TrainingArguments,
        stage.out_dir,
        per_device_train_batch_size=4,
        learning_rate=5e-5,
        lr_scheduler_type="linear",
        warmup_steps=5,
        remove_unused_columns=False,
        save_steps=50,
    )
    if args.save_steps >= 1:  # resuming between iterations would lose the answers drawn
        args.save_steps = math.ceil(args.save_steps / iterations) * iterations
    data, report = examples(stage)
    validator = RerankCallback(stage)
    checkpoint = common.resume_point(stage.out_dir, spec, stage.identity())
    trainer = SlotTrainer(
        stage,
        objective,
        iterations=iterations,
        args=args,
        train_dataset=data,
        callbacks=[validator, LogCallback(stage.out_dir), *callbacks],
    )
    return _fit(trainer, stage, validator, checkpoint, report)


def _fit(
    trainer: Any,
    stage: common.Stage,
    validator: RerankCallback,
    checkpoint: Path | None,
    views: Mapping[str, Any],
) -> dict[str, Any]:
    """Train from the start or a checkpoint, mine where it is asked for, save, and summarise."""
    validator.trainer = trainer
    mining.attach(trainer, stage, partial(scores, trainer, stage))
    trained = common.train(trainer, stage, checkpoint)
    metrics = {"train": dict(trained), "views": views, **validator.summary()}
    return common.finish(trainer, stage, metrics=metrics, best=validator.best)


def scores(
    trainer: Any, stage: common.Stage, tasks: Sequence[RankingTask]
) -> list[dict[str, float]]:
    """Scores of all candidates of ``tasks`` by the model as it is, by docid.

    Scored in views as validation shows them, where that is by_score, else of the size trained on.
    """
    spec = stage.spec
    size = StrategySpec(name="by_score", params={"size": spec.data.sampler.size})
    by_score = spec.eval.strategy if spec.eval.strategy.name == "by_score" else size
    autocast = "bfloat16" if trainer.args.bf16 else stage.loaded.autocast
    found: list[dict[str, float]] = []
    with ready(trainer) as model:
        reranker = Reranker(
            loaded=replace(stage.loaded, model=model, autocast=autocast),
            fmt=stage.fmt,
            strategy=strategies.make(by_score, seed=spec.run.seed),
            readout="score",
        )
        for start in range(0, len(tasks), 64):  # whole exchanges are held for so many queries
            rankings = [r.ranking for r in reranker.rank_tasks(tasks[start : start + 64])]
            found += [dict(zip(r.docids, r.scores, strict=True)) for r in rankings]
    return found
