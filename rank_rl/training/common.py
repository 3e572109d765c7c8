"""What all training stages share: set-up from a recipe, views within budget, and the end.

A stage is ``begin`` (data, format, student) → its trainer → ``finish``. Trainer checkpoints lie in
``<output_dir>/checkpoint-N`` and are resumed from (``resume``); ``<output_dir>/final`` appears in
one step, complete, and holds the weights to use. Trainer configs are built in ``arguments``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl import data
from rank_rl.data.files import sha256
from rank_rl.data.lessons import lesson_file
from rank_rl.errors import DataError, RankRLError, StorageError
from rank_rl.formats.budget import CutReport, fit
from rank_rl.generation.readout import check_readout
from rank_rl.hub.contract import PromptContract
from rank_rl.models import loading
from rank_rl.models.quiet import quiet, weight_bytes
from rank_rl.models.scorers.loading import load_for, tokens_of
from rank_rl.records import RankingTask, View, numbered
from rank_rl.specs import ModelSpec, RecipeSpec
from rank_rl.training.arguments import check_processes, hf_arguments
from rank_rl.training.followed import check_data
from rank_rl.training.resume import (
    LOG_FILE,
    latest_checkpoint,
    mark_finished,
    resume_point,
    whole_checkpoints,
)
from rank_rl.training.rollouts import draw_all
from rank_rl.training.upfront import check_stage, check_validation

if TYPE_CHECKING:
    from rank_rl.formats.base import Format

__all__ = [
    "LOG_FILE",
    "Stage",
    "begin",
    "check_processes",
    "contract",
    "finish",
    "hf_arguments",
    "latest_checkpoint",
    "resume_point",
    "saving",
    "train",
    "training_views",
]

logger = logging.getLogger(__name__)
# How the operating system, and torch and safetensors in their own words, say that a disk is full.
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
           errno.EEXIST, errno.ENOTDIR)  # fmt: skip
_FULL = ("No space left", "os error 28", "PytorchStreamWriter", "inline_container")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A training stage after set-up; ``info`` is what the recipe loader knows (hash, versions).

    ``name`` is score, sft or grpo; ``started`` is ``time.monotonic()`` at set-up.
    """

    name: str
    spec: RecipeSpec
    info: Mapping[str, Any]
    out_dir: Path
    collection: data.Collection
    fmt: Format
    loaded: loading.Loaded
    tokens: Any  # ChatTokens, or TextTokens of a scorer
    started: float = field(default_factory=time.monotonic)

    @property
    def final(self) -> Path:
        """Folder of the checkpoint to use."""
        return self.out_dir / "final"

    @property
    def best(self) -> Path:
        """Folder of the best checkpoint by validation, where the stage validates."""
        return self.out_dir / "best"

    def identity(self) -> dict[str, Any]:
        """What must not change for a started run to go on: start weights and data."""
        known = {"weights": self.loaded.revision, "data": dict(self.collection.provenance)}
        path = Path(self.spec.data.lessons).expanduser() if self.spec.data.lessons else None
        return known | ({"lessons": sha256(lesson_file(path))} if path else {})


def begin(name: str, spec: RecipeSpec, info: Mapping[str, Any]) -> Stage:
    """Load collection, format and student, seed torch, and make the output folder.

    Raises:
        RankRLError: whatever of the recipe, the data or the model is wrong.
    """
    from transformers import set_seed

    started = time.monotonic()
    fmt, readout = check_stage(name, spec)
    out_dir = Path(spec.run.output_dir)
    with saving(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    collection = data.load(spec.data, seed=spec.run.seed)
    if not collection.train and not (name == "sft" and spec.data.lessons):
        raise DataError(
            "no training queries",
            where=f"data {collection.name!r}",
            remedy="without splits all queries are test: set data.params.test_share, "
            "or give judgements for training such as qrels/train.tsv",
        )
    check_data(name, spec, collection)
    check_validation(spec, collection, readout)
    set_seed(spec.run.seed)  # adapters are initialised from torch's global generator
    loaded = load_for(fmt, trainable(spec.model), train=True)
    tokens = tokens_of(loaded)
    for first in (*collection.train, *collection.validation, *collection.test)[:1]:
        check_readout(fmt, readout, tokens, numbered(first.query, first.candidates))
    return Stage(
        name=name,
        spec=spec,
        info=info,
        out_dir=out_dir,
        collection=collection,
        fmt=fmt,
        loaded=loaded,
        tokens=tokens,
        started=started,
    )


def trainable(spec: ModelSpec) -> ModelSpec:
    """The model as it is trained: all weights in fp32, unless the recipe names a dtype.

    bf16 weights keep 8 bits, so the small steps of fine-tuning would round to nothing; speed comes
    from autocast. Under LoRA the frozen base may stay in bf16.
    """
    if spec.lora is None and spec.dtype == "auto":
        return spec.model_copy(update={"dtype": "float32"})
    return spec


def training_views(stage: Stage) -> tuple[list[tuple[RankingTask, View]], dict[str, Any]]:
    """Draw the training views of a recipe and cut their documents to the budget.

    Returns:
        (task, view) pairs in task order, and a JSON-safe report of what was drawn and cut.

    Raises:
        DataError: no view could be drawn.
    """
    spec = stage.spec
    drawn, sampled = draw_all(stage.collection.train, spec, stage.fmt)
    pairs: list[tuple[RankingTask, View]] = []
    cuts = CutReport()
    for task, view in drawn:
        fitted, cut = fit(view, stage.tokens, fmt=stage.fmt)
        cuts = cuts.merge(cut)
        pairs.append((task, fitted))
    if not pairs:
        raise DataError(
            "no training view could be drawn",
            where="data.sampler",
            expected="queries with relevant and other documents",
        )
    logger.info("%s; %s", sampled.line(), cuts.summary())
    return pairs, {"sampled": dataclasses.asdict(sampled), "cut": dataclasses.asdict(cuts)}


def window(stage: Stage) -> int:
    """Most tokens, prompt and answer together, that the student can read."""
    return int(getattr(stage.loaded.model.config, "max_position_embeddings", None) or 1 << 30)


def train(trainer: Any, stage: Stage, checkpoint: Path | None) -> Mapping[str, float]:
    """Run a transformers trainer from its start or a checkpoint; returns its metrics.

    Raises:
        RecipeError: the launch started fewer processes than asked for.
        StorageError: the disk filled up; the last complete checkpoint stays.
    """
    check_processes(trainer.accelerator)
    if checkpoint:
        _expect_tied(trainer.model)
    whole_checkpoints(trainer)
    with saving(stage.out_dir), quiet(weight_bytes(trainer.model)):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    metrics: Mapping[str, float] = result.metrics
    return metrics


def _expect_tied(model: Any) -> None:
    """Checkpoints leave tied weights out; unless a model says so, resuming warns of lost ones."""
    tied = getattr(model, "all_tied_weights_keys", None)
    if tied:
        model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *tied}


def whole_model(trainer: Any, stage: Stage) -> Any:
    """The model to save, on the main process; every process must call this.

    Sharded weights (FSDP, ZeRO-3) are gathered in the main process's memory.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=True)
    if not sharded(accelerator):
        return model
    state = accelerator.get_state_dict(trainer.model_wrapped)
    return twin(model, state, stage.spec.model) if accelerator.is_main_process else None


def twin(model: Any, state: Mapping[str, Any], spec: ModelSpec) -> Any:
    """A model like ``model`` that has the weights of ``state``; without a forward pass.

    Made by its class: transformers' own constructors would shard it too under ZeRO-3, and wait for
    the other processes. What is no weight (buffers that no state holds) stays without values.
    """
    import torch

    if hasattr(model, "encoder_twin"):
        return model.encoder_twin(state, spec)
    adapted = hasattr(model, "get_base_model")
    base = model.get_base_model() if adapted else model
    with torch.device("meta"):
        made = type(base)(base.config)
    made.generation_config = base.generation_config
    if adapted and spec.lora is not None:
        from peft import get_peft_model

        with torch.device("meta"):
            made = get_peft_model(made, loading.lora_config(spec.lora))
    made.load_state_dict(state, assign=True)
    return made


def sharded(accelerator: Any) -> bool:
    """Whether no process holds all weights."""
    if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
        return bool(accelerator.state.deepspeed_plugin.zero_stage == 3)
    return str(accelerator.distributed_type).endswith("FSDP")


def parallelism(accelerator: Any) -> dict[str, Any]:
    """How many processes run, and the kind of parallelism in accelerate's words."""
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if (plugin := getattr(accelerator.state, "deepspeed_plugin", None)) is not None:
        kind += f" ZeRO-{plugin.zero_stage}"
    if kind == "FSDP" and accelerator.is_fsdp2:
        kind = "FSDP2"
    return {"processes": accelerator.num_processes, "kind": kind}


def contract(stage: Stage, **extra: Any) -> PromptContract:
    """The prompt contract of a checkpoint that this stage writes."""
    spec = stage.spec
    if (attacks := spec.data.attacks) is not None:
        extra = {**extra, "attacks": attacks.model_dump(mode="json")}
    return PromptContract.of(
        stage.fmt,
        spec.eval.strategy,
        readout=spec.eval.readout,
        reasoning=spec.eval.reasoning,
        stage=stage.name,
        base_model=stage.loaded.name,
        base_revision=stage.loaded.revision,
        recipe_hash=str(stage.info.get("hash", "")),
        data=stage.collection.name,
        max_new_tokens=spec.eval.max_new_tokens,
        extra=extra,
    )


def save(trainer: Any, stage: Stage, folder: Path, **extra: Any) -> None:
    """Write a trainer's weights as a checkpoint; every process must call this.

    Raises:
        StorageError: the disk is full or not writable; what ``folder`` held is unchanged.
    """
    model = whole_model(trainer, stage)
    if trainer.accelerator.is_main_process:
        loading.save(model, stage.loaded.tokenizer, folder, contract(stage, **extra))
    trainer.accelerator.wait_for_everyone()


def finish(
    trainer: Any, stage: Stage, *, metrics: Mapping[str, Any], best: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``final``, mark the run as finished, leave the process group, return the summary.

    Args:
        trainer: the transformers trainer after training.
        stage: what ``begin`` returned.
        metrics: whatever the stage measured, JSON-safe.
        best: step and values of the checkpoint in ``best``; None makes the last weights final.

    Raises:
        StorageError: the disk is full; the trainer's last checkpoint stays, so running the stage
            again only has to save.
    """
    if best is not None:
        if trainer.accelerator.is_main_process:
            copy_checkpoint(stage.best, stage.final)
        trainer.accelerator.wait_for_everyone()
    else:
        save(trainer, stage, stage.final)
    if trainer.accelerator.is_main_process:
        mark_finished(stage.out_dir)
    summary = {
        "stage": stage.name,
        "checkpoint": str(stage.final),
        "steps": trainer.state.global_step,
        "metrics": dict(metrics),
        "seconds": round(time.monotonic() - stage.started, 1),
        "launch": parallelism(trainer.accelerator),
        "log": str(stage.out_dir / LOG_FILE),
    }
    trainer.accelerator.end_training()
    return summary


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint folder so that ``target`` is either the former one or the whole new one.

    Files are linked where the disk can: checkpoints are replaced, never written into.

    Raises:
        StorageError: the disk is full or not writable.
    """
    from rank_rl.models.sources import replacing

    with saving(target), replacing(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def saving(where: Path) -> Iterator[None]:
    """Turn a full disk, in the words of whichever library met it, into one readable line.

    Raises:
        StorageError: instead of OSError, and of torch's and safetensors' own errors for it.
    """
    try:
        yield
    except Exception as error:
        if not _is_storage(error):
            raise
        last = latest_checkpoint(where)
        later = f"; training goes on from {last.name}" if last else ""
        raise StorageError(
            f"cannot be written: {(str(error).splitlines() or [''])[0]}",
            where=str(where),
            remedy=f"free disk space or check permissions, and start again{later}",
        ) from error


def _is_storage(error: Exception) -> bool:
    """Whether an error means that output cannot be written; our own errors are passed on."""
    if isinstance(error, RankRLError):
        return False
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return any(text in str(error) for text in _FULL)
