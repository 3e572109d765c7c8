"""The ``training`` section of a recipe becomes a trainer config; the launch is what was asked for.

The section carries the argument names of TRL and transformers verbatim. Order of precedence:
platform defaults, defaults of the stage, the recipe. Unknown keys and wrong types are refused (the
trainers themselves would ignore or misread them).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rank_rl.errors import RecipeError
from rank_rl.specs import RecipeSpec

Config = TypeVar("Config")

# Set by the recipe's own sections; saying them twice would only contradict.
RESERVED = {
    "output_dir": "run.output_dir",
    "push_to_hub": "hub.repo",
    "hub_model_id": "hub.repo",
    "model_init_kwargs": "the model section",
    "reward_weights": "rewards[].weight",
}


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
    for key, value in spec.training.items():
        _check_key(key, known, cls.__name__)
        defaults[key] = _typed(cls, key, value)
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


def _check_key(key: str, known: set[str], config: str) -> None:
    where = f"training.{key}"
    if key in RESERVED:
        raise RecipeError("not set here", where=where, expected=RESERVED[key])
    if key not in known:
        near = ", ".join(difflib.get_close_matches(key, known, n=3)) or "none"
        raise RecipeError("unknown key", where=where, expected=f"an argument of {config}",
                          remedy=f"nearest: {near}")  # fmt: skip


@functools.lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(cls: type, key: str, value: Any) -> Any:
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
        first = error.errors()[0]
        raise RecipeError(f"{value!r}: {first['msg']}", where=f"training.{key}",
                          expected=getattr(hint, "__name__", str(hint)))  from error  # fmt: skip
