"""Teachers in this process: transformers (``local``) and vLLM (``engine``), asked in batches.

Requests that arrive together share a forward pass: they wait for one another for a moment, then go
through the model in a thread, grouped by how they are drawn. Answers are reproducible as far as
the model is: greedy ones depend on the prompt alone, drawn ones also on the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rank_rl.errors import RecipeError
from rank_rl.generation.calls import Reply, Sampling
from rank_rl.records import Completion, Prompt
from rank_rl.registry import need
from rank_rl.specs import ModelSpec

if TYPE_CHECKING:
    from rank_rl.models.loading import Loaded

Answer = Callable[[list[Prompt], Sampling, list[int]], list[Reply]]
_WAIT_S = 0.02


@dataclass(slots=True)
class _Waiting:
    prompt: Prompt
    sampling: Sampling
    samples: int
    future: asyncio.Future[Reply]


class Batched:
    """Collects single requests into batches for an ``answer`` function.

    Args:
        answer: (prompts, sampling, samples of each) → one reply a prompt; runs in a thread.
        batch_size: most prompts in one call of it.
    """

    retries = 0
    samples_per_request = 64

    def __init__(self, answer: Answer, *, batch_size: int) -> None:
        self._answer, self.batch_size = answer, batch_size
        # Twice a batch, so that the next one is ready when the model is.
        self.concurrency = 2 * batch_size
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def once(self, prompt: Prompt, sampling: Sampling, *, samples: int = 1) -> Reply:
        """Wait for the batch that this request is part of."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(prompt, sampling, samples, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            if len(self._waiting) < self.batch_size:
                await asyncio.sleep(_WAIT_S)
            first = self._waiting[0].sampling
            batch = [w for w in self._waiting if w.sampling == first][: self.batch_size]
            self._waiting = [w for w in self._waiting if not any(w is b for b in batch)]
            arguments = ([w.prompt for w in batch], first, [w.samples for w in batch])
            try:
                replies = await asyncio.to_thread(self._answer, *arguments)
            except Exception as error:  # handed to those who asked, who raise it
                for waiting in batch:
                    waiting.future.set_exception(error)
                continue
            for waiting, reply in zip(batch, replies, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(reply)


def local(
    *,
    model: str,
    batch_size: int = 8,
    seed: int = 0,
    dtype: str = "auto",
    revision: str | None = None,
) -> Batched:
    """A transformers model: a folder, a Hub id or ``pip:PACKAGE``.

    Args:
        model: what is loaded.
        batch_size: most prompts a forward pass.
        seed: of drawn answers.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        revision: on the Hub.

    Raises:
        ModelError: it cannot be loaded.
    """
    from rank_rl.models import loading

    loaded = loading.load(ModelSpec(name=model, revision=revision, dtype=dtype))  # type: ignore[arg-type]
    return Batched(_Local(loaded, batch_size, seed), batch_size=batch_size)


class _Local:
    """The answer function of a loaded model."""

    def __init__(self, loaded: Loaded, batch_size: int, seed: int) -> None:
        self.loaded, self.batch_size, self.seed = loaded, batch_size, seed

    def __call__(
        self, prompts: list[Prompt], sampling: Sampling, samples: list[int]
    ) -> list[Reply]:
        from rank_rl.generation.local import LocalGenerator

        generator = LocalGenerator(
            self.loaded,
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        repeated = [p for p, n in zip(prompts, samples, strict=True) for _ in range(n)]
        completions = iter(generator.generate(repeated))
        return [_reply([next(completions) for _ in range(n)], self.loaded.name) for n in samples]


def engine(
    *, model: str, batch_size: int = 256, seed: int = 0, options: dict[str, Any] | None = None
) -> Batched:
    """vLLM in this process.

    Args:
        model: what ``vllm.LLM`` loads.
        batch_size: most prompts handed over at once.
        seed: of drawn answers.
        options: further arguments of ``vllm.LLM`` (``tensor_parallel_size``, ``max_model_len`` …).

    Raises:
        RecipeError: vLLM is not installed, or refuses an option.
    """
    vllm = need("vllm")
    try:
        llm = vllm.LLM(model=model, seed=seed, **(options or {}))
    except TypeError as error:
        raise RecipeError(str(error), where="teacher 'engine'") from error
    return Batched(_Engine(llm, model), batch_size=batch_size)


class _Engine:
    """The answer function of a vLLM engine."""

    def __init__(self, llm: Any, model: str) -> None:
        self.llm, self.model = llm, model

    def __call__(
        self, prompts: list[Prompt], sampling: Sampling, samples: list[int]
    ) -> list[Reply]:
        started = time.perf_counter()
        params = [_vllm_params(sampling, n) for n in samples]
        prefilled = [p for p in prompts if p.prefill]
        if prefilled and len(prefilled) < len(prompts):
            raise RecipeError("prompts with and without a prefill in one batch", where="engine")
        outputs = self.llm.chat(
            [_chat(p) for p in prompts],
            params,
            use_tqdm=False,
            add_generation_prompt=not prefilled,
            continue_final_message=bool(prefilled),
        )
        share = (time.perf_counter() - started) / max(1, len(prompts))
        return [_vllm_reply(output, self.model, share) for output in outputs]


def _vllm_params(sampling: Sampling, samples: int) -> Any:
    return need("vllm").SamplingParams(
        n=samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        logprobs=sampling.logprobs or None,
    )


def _chat(prompt: Prompt) -> list[dict[str, str]]:
    messages = [dict(m) for m in prompt.messages]
    return (
        [*messages, {"role": "assistant", "content": prompt.prefill}]
        if prompt.prefill
        else messages
    )


def _vllm_reply(output: Any, model: str, seconds: float) -> Reply:
    prompt_tokens = len(output.prompt_token_ids or ())
    completions = [
        Completion(
            text=o.text,
            finish="length" if o.finish_reason == "length" else "stop",
            prompt_tokens=prompt_tokens if i == 0 else 0,
            completion_tokens=len(o.token_ids),
            seconds=seconds,
            logprob=o.cumulative_logprob,
        )
        for i, o in enumerate(output.outputs)
    ]
    return _reply(completions, model)


def _reply(completions: Sequence[Completion], model: str) -> Reply:
    return Reply(
        completions=tuple(completions),
        prompt_tokens=max((c.prompt_tokens for c in completions), default=0),
        completion_tokens=sum(c.completion_tokens for c in completions),
        model=model,
    )
