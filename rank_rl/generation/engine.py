"""vLLM in this process: text and log-probabilities of next tokens for many prompts at once.

Contract: prompts are token ids as ``ChatTokens`` makes them, so that a control token spelled in a
text stays text; answers, their ends and their counts are those of ``LocalGenerator``; a prompt that
leaves no room to answer gets ``finish="error"``. Every read of a next token is a request of its
own: what prompts share is computed once, as vLLM caches prefixes (Kwon et al., 2023). What is asked
of it is ``engine_labels``'s and ``engine_asker``'s.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation import Progress
from rank_rl.generation.engine_read import Peek, finished, peeked, pieces
from rank_rl.generation.local import STOP
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Completion, Prompt
from rank_rl.registry import nearest, need
from rank_rl.seeds import derive
from rank_rl.specs import ModelSpec, Spec

# Set by rank_rl, or another engine's business.
OURS = ("model", "tokenizer", "revision", "tokenizer_revision", "logprobs_mode", "runner")


class EngineSettings(Spec):
    """How vLLM is started; what is null is vLLM's own choice.

    ``dtype`` auto is what engine local takes: bfloat16 on an accelerator, float32 on a CPU.
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
        return {**known, "logprobs_mode": "raw_logprobs", **self.extra}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A vLLM engine that runs.

    Attributes:
        llm: ``vllm.LLM``.
        tokenizer: of the model, as engine local loads it.
        name, revision: what was loaded.
        ends: ids that end an answer.
        window: most tokens of a prompt with its answer.
        settings: how it was started.
    """

    llm: Any
    tokenizer: Any
    name: str
    revision: str
    ends: tuple[int, ...]
    window: int
    settings: EngineSettings
    tokens: ChatTokens = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", ChatTokens(self.tokenizer))

    def run(self, rows: Sequence[Sequence[int]], params: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One request a row of token ids, drawn as its ``params`` say; vLLM's outputs in order.

        Raises:
            ModelError: vLLM failed.
        """
        vllm = need("vllm", "vllm")
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        try:
            drawn = [vllm.SamplingParams(**one) for one in params]
            return list(self.llm.generate(prompts, drawn, use_tqdm=False))
        except Exception as error:  # whatever the engine's process died of
            raise ModelError(
                f"vLLM failed: {_first_line(error)}",
                where=f"model {self.name!r}",
                remedy="its own lines above say more",
            ) from error

    def peek(self, rows: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> list[Peek]:
        """What the model says of the next token behind each row.

        Args:
            rows: token ids, each shorter than the window.
            wanted: ids whose log-probabilities are read, one list a row; any number of them.

        Raises:
            ModelError: a row fills the window, or vLLM failed.
        """
        self._check(rows)
        parts = [pieces(list(ids)) for ids in wanted]
        asked = [row for row, own in zip(rows, parts, strict=True) for _ in own]
        params = [_peek_params(part) for own in parts for part in own]
        outputs = iter(self.run(asked, params) if asked else [])
        return [peeked([next(outputs).outputs[0] for _ in own]) for own in parts]

    def _check(self, rows: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, rows), default=0)
        if longest >= self.window:
            raise ModelError(
                f"a prompt of {longest} tokens fills the window of {self.window}",
                where=f"model {self.name!r}",
                remedy="raise max_model_len, or lower prompt_tokens of the format",
            )


class EngineGenerator:
    """Greedy or sampled answers of an engine; implements ``Generator``.

    Args:
        engine: what writes.
        max_new_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1]; 1 keeps every token.
        seed: what sampling is derived from, together with the prompt.

    ``stop`` holds the texts that end an answer; they stay in it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.engine = engine
        self.tokens = engine.tokens
        self.max_new_tokens = max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.batch_size = engine.settings.batch_size
        self.stop = STOP

    @property
    def deterministic(self) -> bool:
        """Whether a prompt always gets the same answer."""
        return self.temperature == 0

    def shortened(self, max_new_tokens: int) -> EngineGenerator:
        """The same generator with shorter answers."""
        return self.drawing(max_new_tokens=min(max_new_tokens, self.max_new_tokens))

    def drawing(
        self, *, max_new_tokens: int | None = None, stop: tuple[str, ...] | None = None
    ) -> EngineGenerator:
        """The same generator with another length or other ends of an answer."""
        other = copy.copy(self)
        other.max_new_tokens = max_new_tokens or self.max_new_tokens
        other.stop = self.stop if stop is None else stop
        return other

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts; ``seconds`` of a completion is its share of the whole."""
        return self.generate_ids(self.tokens.encode_prompts(prompts), progress=progress)

    def generate_ids(
        self, rows: Sequence[Sequence[int]], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Go on from token ids, one row a prompt.

        Raises:
            ModelError: vLLM failed.
        """
        started = time.perf_counter()
        fitting = [i for i, row in enumerate(rows) if len(row) < self.engine.window]
        params = [self._params(rows[i]) for i in fitting]
        outputs = self.engine.run([rows[i] for i in fitting], params) if fitting else []
        share = (time.perf_counter() - started) / max(1, len(fitting))
        done = {
            i: replace(self._completion(output.outputs[0]), seconds=share)
            for i, output in zip(fitting, outputs, strict=True)
        }
        if progress is not None:
            progress(len(rows))
        none = Completion(text="", finish="error")
        return [replace(done.get(i, none), prompt_tokens=len(row)) for i, row in enumerate(rows)]

    def _params(self, row: Sequence[int]) -> dict[str, Any]:
        """Every setting is given, so that none leaks in from the model's own configuration."""
        drawn = self.temperature > 0
        return {
            "max_tokens": min(self.max_new_tokens, self.engine.window - len(row)),
            "temperature": self.temperature,
            "top_p": self.top_p if drawn else 1.0,
            "seed": derive(self.seed, *row) if drawn else None,
            "stop": list(self.stop) or None,
            "stop_token_ids": list(self.engine.ends),
            "include_stop_str_in_output": True,
            "skip_special_tokens": True,
        }

    def _completion(self, output: Any) -> Completion:
        read = finished(self.tokens, list(output.token_ids), self.engine.ends, self.stop)
        return read if output.finish_reason != "stop" else replace(read, finish="stop")


def open_engine(
    spec: ModelSpec, settings: EngineSettings | Mapping[str, Any] | None = None
) -> Engine:
    """Start vLLM with a model; adapters are merged and GGUF files converted first.

    Args:
        spec: its name and revision.
        settings: those of ``EngineSettings``.

    Raises:
        ModelError: the model cannot be found, or vLLM cannot run it.
        RecipeError: vLLM is not installed, or a setting is wrong.
    """
    from rank_rl.generation.engine_weights import answer_ends, whole_weights
    from rank_rl.models.loading import load_tokenizer
    from rank_rl.models.sources import locate

    chosen = engine_settings(settings)
    vllm = need("vllm", "vllm")
    source = locate(spec.name, spec.revision)
    tokenizer = load_tokenizer(source)
    folder = whole_weights(source, tokenizer)
    where = f"model {spec.name!r}"
    try:
        llm = vllm.LLM(model=str(folder), **chosen.arguments(on_cpu=_on_cpu()))
    except TypeError as error:  # a name that vllm.LLM does not know
        raise RecipeError(str(error), where="engine extra") from error
    except Exception as error:  # what its processes die of has no common class
        raise ModelError(
            f"vLLM cannot run it: {_first_line(error)}",
            where=where,
            remedy="its own lines above say more; engine local runs what transformers runs",
        ) from error
    return Engine(
        llm=llm,
        tokenizer=tokenizer,
        name=spec.name,
        revision=source.revision,
        ends=answer_ends(folder, tokenizer),
        window=int(llm.llm_engine.model_config.max_model_len),
        settings=chosen,
    )


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _peek_params(ids: Sequence[int]) -> dict[str, Any]:
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "logprob_token_ids": list(ids),
        "detokenize": False,
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
