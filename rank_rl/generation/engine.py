"""vLLM in this process: a model that runs, and what it says of the next tokens of many prompts.

Contract: prompts are token ids as ``ChatTokens`` makes them, so that a control token spelled in a
text stays text. Every read of a next token is a request of its own: what prompts share is computed
once, as vLLM caches prefixes (Kwon et al., 2023). Writing text is ``engine_text``'s, what is asked
``engine_labels``'s and ``engine_asker``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.engine_read import Peek, peeked, pieces
from rank_rl.generation.engine_settings import EngineSettings, engine_settings
from rank_rl.models.tokens import ChatTokens
from rank_rl.registry import need
from rank_rl.specs import ModelSpec


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

    llm: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str
    revision: str
    ends: tuple[int, ...]
    window: int
    settings: EngineSettings
    tokens: ChatTokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", ChatTokens(self.tokenizer))

    def run(self, rows: Sequence[Sequence[int]], params: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One request a row of token ids, drawn as its ``params`` say; vLLM's outputs in order.

        Raises:
            ModelError: vLLM failed.
            RecipeError: it is too old.
        """
        vllm = need("vllm", "vllm")
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        try:
            drawn = [vllm.SamplingParams(**one) for one in params]
        except TypeError as error:
            raise RecipeError(
                f"this vLLM cannot be asked so: {_first_line(error)}",
                where="engine",
                expected="vLLM 0.28 or newer",
            ) from error
        try:
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
