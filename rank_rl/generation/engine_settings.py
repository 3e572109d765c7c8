"""How vLLM is started: what a user may set, checked before anything is loaded.

Contract: a wrong name or value is one readable line; code that a model brings is never run, and
weights are read from safetensors unless a user names another form of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from rank_rl.errors import RecipeError
from rank_rl.registry import nearest
from rank_rl.specs import Spec

# Set by rank_rl, or another engine's business.
OURS = (
    *("model", "tokenizer", "revision", "tokenizer_revision", "logprobs_mode", "runner"),
    "trust_remote_code",  # code that a model brings is never run
)


class EngineSettings(Spec):
    """How vLLM is started; what is null is vLLM's own choice.

    ``dtype`` auto is bfloat16 on an accelerator and float32 on a CPU.
    ``max_model_len``: most tokens of a prompt with its answer (the model's window when null).
    ``batch_size``: most views that are handed over at once; vLLM runs ``max_num_seqs`` of their
    requests together. ``extra``: further arguments of ``vllm.LLM``, as they are.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int | None = Field(default=None, ge=2)
    tensor_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    max_num_seqs: int | None = Field(default=None, ge=1)
    enable_prefix_caching: bool = True
    quantization: str | None = None
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        own = [name for name in extra if name in cls.model_fields]
        if own:
            raise ValueError(f"{own[0]} is a setting of its own: leave it out of extra")
        if ours := [name for name in extra if name in OURS]:
            raise ValueError(f"extra must not hold {ours[0]}, which is set elsewhere")
        return extra

    def arguments(self, *, on_cpu: bool) -> dict[str, Any]:
        """Keyword arguments of ``vllm.LLM`` but for model and tokenizer."""
        auto = "float32" if on_cpu else "bfloat16"
        given = self.model_dump(exclude={"batch_size", "extra"})
        given["dtype"] = auto if self.dtype == "auto" else self.dtype
        known = {name: value for name, value in given.items() if value is not None}
        fixed = {"logprobs_mode": "raw_logprobs", "trust_remote_code": False}
        # Pickled weights would run code when they are read.
        return {**known, **fixed, "load_format": "safetensors", **self.extra}


def engine_settings(given: EngineSettings | Mapping[str, Any] | None) -> EngineSettings:
    """Settings as a user names them.

    Raises:
        RecipeError: an unknown name, a wrong type or a value out of range.
    """
    if isinstance(given, EngineSettings):
        return given
    try:
        return EngineSettings(**(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = sorted(EngineSettings.model_fields)
            raise RecipeError(
                f"unknown setting {key!r}",
                where="engine",
                expected=", ".join(known),
                remedy=nearest(key, known) or "what else vllm.LLM takes belongs into extra",
            ) from error
        text = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise RecipeError(f"value {first['input']!r}", where=f"engine {key}", expected=text) from (
            error
        )
