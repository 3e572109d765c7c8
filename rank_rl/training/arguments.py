"""The ``training`` section of a recipe becomes a trainer config; the launch is what was asked for.

The section carries the argument names of TRL and transformers verbatim. Order of precedence:
platform defaults, defaults of the stage, the recipe. Unknown keys and wrong types are refused (the
trainers themselves would ignore or misread them), by the same ``check`` before a run and in it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rank_rl.errors import RecipeError
from rank_rl.registry import nearest
from rank_rl.specs import RecipeSpec
from rank_rl.training.trackers import check_trackers

Config = TypeVar("Config")

# The trainer config of each stage; grpo with policy slots has that of "slots".
CONFIGS = {
    "score": ("transformers", "TrainingArguments"),
    "sft": ("trl", "SFTConfig"),
    "grpo": ("trl", "GRPOConfig"),
    "slots": ("transformers", "TrainingArguments"),
}

# Set by the recipe's own sections (saying them twice would only contradict), or not done here.
RESERVED = {
    "output_dir": "run.output_dir",
    "push_to_hub": "a push by hand: hf upload OWNER/NAME OUTPUT_DIR/final",
    "hub_model_id": "a push by hand: hf upload OWNER/NAME OUTPUT_DIR/final",
    "model_init_kwargs": "the model section",
    "reward_weights": "rewards[].weight",
}


# The least value of arguments whose configs take any number, and fail or mean something else later.
_LEAST = {
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("per_device_eval_batch_size", "max_completion_length", "max_length"), 1),
    **dict.fromkeys(("num_iterations", "logging_steps", "save_steps", "max_steps"), 0),
    **dict.fromkeys(("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "beta"), 0),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "num_train_epochs"), 0),
    "num_generations": 2,
}


def _in_range(key: str, value: Any, where: str) -> None:
    """Refuse a number under its least.

    Raises:
        RecipeError: naming it; -1 of ``max_steps`` counts epochs.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not value >= _LEAST[key] and not (key == "max_steps" and value == -1):
        raise RecipeError(f"value {value!r}", where=where, expected=f"at least {_LEAST[key]}")


def check_training(
    stage: str, training: Mapping[str, Any], *, policy: str = "text", where: str = ""
) -> dict[str, Any]:
    """Check the ``training`` section of a recipe for a stage, without building its config.

    Args:
        stage: score, sft or grpo; grpo with policy ``slots`` has transformers' arguments.
        training: the section.
        policy: ``grpo.policy`` of the recipe.
        where: the recipe file, for the message.

    Raises:
        RecipeError: as ``check``.
    """
    by_slots = stage == "grpo" and policy == "slots"
    module, name = CONFIGS["slots" if by_slots else stage]
    cls = getattr(importlib.import_module(module), name)
    return check(cls, training, where=f"{where}: training" if where else "training")


def check(cls: type, training: Mapping[str, Any], *, where: str = "training") -> dict[str, Any]:
    """Return a ``training`` section with its values as the annotations of a config want them.

    Raises:
        RecipeError: an unknown key (the nearest ones are listed), one that another section sets,
            a value of a wrong type, or a tracker that is not installed.
    """
    known = {f.name for f in dataclasses.fields(cls) if f.init}
    for key in training:
        if key in RESERVED:
            raise RecipeError("not set here", where=f"{where}.{key}", expected=RESERVED[key])
        if key not in known:
            raise RecipeError(f"unknown key {key!r}", where=f"{where}.{key}",
                              expected=f"an argument of {cls.__name__}",
                              remedy=nearest(key, known, cutoff=0.6))  # fmt: skip
    values = {key: _typed(cls, key, value, where) for key, value in training.items()}
    for key in values.keys() & _LEAST:
        _in_range(key, values[key], f"{where}.{key}")
    check_trackers(values.get("report_to"), where=f"{where}.report_to")
    return values


def hf_arguments(
    spec: RecipeSpec, cls: type[Config], out_dir: Path | str, **defaults: Any
) -> Config:
    """Build a TRL or transformers config from ``spec.training``, which overrides ``defaults``.

    Args:
        spec: the recipe; ``run.seed`` seeds the trainer unless ``training.seed`` is given.
        cls: ``SFTConfig``, ``GRPOConfig`` or another dataclass of that family.
        out_dir: folder of the checkpoints.
        **defaults: what the stage sets where the recipe says nothing.

    Raises:
        RecipeError: unknown key, wrong type, reserved key, or a combination the config refuses.
    """
    known = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    defaults |= check(cls, spec.training)
    values: dict[str, Any] = {
        "report_to": "none",
        "seed": spec.run.seed,
        "save_strategy": "steps",
        "save_total_limit": 1,
        "logging_steps": 1,
        **platform(spec, use_cpu=bool(defaults.get("use_cpu"))),
        **defaults,
        "output_dir": str(out_dir),
    }
    if "activation_checkpointing" in known:  # what newer transformers call it
        values.setdefault("activation_checkpointing", values.pop("gradient_checkpointing"))
    try:
        return cls(**{k: v for k, v in values.items() if k in known})
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error), where="training") from error


def platform(spec: RecipeSpec, *, use_cpu: bool = False) -> dict[str, Any]:
    """Arguments that depend on the machine: precision, device, memory savers.

    TRL switches bf16 and gradient checkpointing on everywhere, ten times slower on a CPU without
    bf16 units. DeepSpeed and FSDP set a CPU up themselves and are silently replaced by plain data
    parallelism under ``use_cpu``.
    """
    import torch

    if torch.cuda.is_available() and not use_cpu:
        bf16 = spec.model.dtype != "float32" and torch.cuda.is_bf16_supported()
        return {"bf16": bf16, "gradient_checkpointing": True}
    sharded = _flag("ACCELERATE_USE_DEEPSPEED") or _flag("ACCELERATE_USE_FSDP")
    return {
        "bf16": _cpu_autocast(spec),
        "use_cpu": not sharded,
        "ddp_backend": "gloo" if sharded else None,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def check_processes(accelerator: Any, env: Mapping[str, str] = os.environ) -> None:
    """Stop when fewer processes, or another kind of parallelism, run than the launch asked for.

    On a CPU ``accelerate launch --cpu --num_processes 2`` starts one process and says nothing; it
    leaves a rendezvous address without a world size behind. FSDP and DeepSpeed likewise fall back
    to plain data parallelism.

    Raises:
        RecipeError: the launch is not what was asked for.
    """
    remedy = "use distributed_type MULTI_GPU with use_cpu true for several processes on a CPU"
    if "MASTER_ADDR" in env and "WORLD_SIZE" not in env and "ACCELERATE_MIXED_PRECISION" in env:
        raise RecipeError("several processes were asked for, one runs", where="accelerate launch",
                          remedy=remedy)  # fmt: skip
    wanted = int(env.get("WORLD_SIZE") or env.get("ACCELERATE_NUM_PROCESSES") or 1)
    if accelerator.num_processes != wanted:
        raise RecipeError(f"{accelerator.num_processes} processes run", where="accelerate launch",
                          expected=str(wanted), remedy=remedy)  # fmt: skip
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    for flag, name in (("ACCELERATE_USE_DEEPSPEED", "DEEPSPEED"), ("ACCELERATE_USE_FSDP", "FSDP")):
        if _flag(flag, env) and kind != name:
            raise RecipeError(f"distributed_type is {kind}", where="accelerate launch",
                              expected=name, remedy="drop use_cpu")  # fmt: skip


def _cpu_autocast(spec: RecipeSpec) -> bool:
    from rank_rl.models.loading import cpu_has_amx

    if spec.model.autocast == "auto":
        return spec.model.dtype != "bfloat16" and cpu_has_amx()
    return spec.model.autocast == "bfloat16"


def _flag(name: str, env: Mapping[str, str] = os.environ) -> bool:
    return env.get(name, "").lower() in ("1", "true", "yes")


@functools.lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(cls: type, key: str, value: Any, where: str) -> Any:
    """``value`` as the config's annotation wants it (the configs check no types themselves)."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    hint = _hints(cls).get(key, Any)
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except PydanticUserError:  # a nested config class: the config itself checks it
        return value
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise RecipeError(f"value {value!r}", where=f"{where}.{key}", expected=expected) from error
