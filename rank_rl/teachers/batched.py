"""Teachers in this process: transformers (``local``) and vLLM (``engine``), asked in batches.

Requests that arrive together share a forward pass: they wait for one another for a moment, then go
through the model in a thread, grouped by how they are drawn. A batch that raises is asked again in
halves, so that only the request at fault fails. Greedy answers depend on the prompt alone. Drawn
ones depend on the seed, the prompt and the number of the sample; those of ``local`` also on the
prompts that share their batch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rank_rl.errors import RecipeError
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Completion, Prompt
from rank_rl.registry import need
from rank_rl.seeds import derive
from rank_rl.specs import ModelSpec

if TYPE_CHECKING:
    from rank_rl.models.loading import Loaded

logger = logging.getLogger(__name__)

Answer = Callable[[list[Prompt], Sampling, list[range]], "list[Reply | CallError]"]
_WAIT_S = 0.02


@dataclass(slots=True)
class _Waiting:
    prompt: Prompt
    sampling: Sampling
    numbers: range
    future: asyncio.Future[Reply]

    @property
    def group(self) -> tuple[Sampling, bool]:
        """What requests of one batch have in common."""
        return self.sampling, bool(self.prompt.prefill)

    def settle(self, result: Reply | CallError) -> None:
        """Hand over what came, if anyone still waits for it."""
        if self.future.done():
            return
        if isinstance(result, CallError):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Batched:
    """Collects single requests into batches for an ``answer`` function.

    Args:
        answer: (prompts, sampling, numbers of the samples of each) → a reply or a failure for each
            prompt; runs in a thread. All prompts have a prefill or none has.
        batch_size: most prompts in one call of it.
    """

    retries = 0
    samples_per_request = 64
    numbered_samples = True

    def __init__(self, answer: Answer, *, batch_size: int) -> None:
        self._answer, self.batch_size = answer, batch_size
        # Twice a batch, so that the next one is ready when the model is.
        self.concurrency = 2 * batch_size
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def once(
        self, prompt: Prompt, sampling: Sampling, *, samples: int = 1, first: int = 0
    ) -> Reply:
        """Wait for the batch that this request is part of.

        Args:
            prompt: what is asked.
            sampling: how answers are drawn.
            samples: how many.
            first: number of the first of them, from 0; other numbers are other draws.

        Raises:
            CallError: the prompt fills the window (``too_long``) or the model failed on it
                (``error``).
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        numbers = range(first, first + samples)
        self._waiting.append(_Waiting(prompt, sampling, numbers, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            if len(self._waiting) < self.batch_size:
                await asyncio.sleep(_WAIT_S)
            # A request that was cancelled meanwhile needs no answer.
            left = [w for w in self._waiting if not w.future.done()]
            batch = [w for w in left if w.group == left[0].group][: self.batch_size]
            self._waiting = [w for w in left if not any(w is b for b in batch)]
            if batch:
                await self._settle(batch)

    async def _settle(self, batch: Sequence[_Waiting]) -> None:
        """Answer a batch, whatever becomes of it; what no request can help passes (Ctrl-C)."""
        try:
            results = await asyncio.to_thread(
                self._answer,
                [w.prompt for w in batch],
                batch[0].sampling,
                [w.numbers for w in batch],
            )
            for waiting, result in zip(batch, results, strict=True):
                waiting.settle(result)
            return
        except Exception as error:  # out of memory, a prompt that the engine refuses …
            words = f"{type(error).__name__}: {error}"
        # Outside the except clause: the exception's frames hold the tensors of the pass.
        if len(batch) == 1:
            batch[0].settle(CallError("error", words, retry=False))
            return
        logger.warning("a batch of %d failed (%s) and is asked in halves", len(batch), words[:300])
        middle = len(batch) // 2
        await self._settle(batch[:middle])
        await self._settle(batch[middle:])


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
        self, prompts: list[Prompt], sampling: Sampling, numbers: list[range]
    ) -> list[Reply | CallError]:
        found: list[dict[int, Completion]] = [{} for _ in prompts]
        for number in sorted({n for own in numbers for n in own}):
            rows = [i for i, own in enumerate(numbers) if number in own]
            completions = self._draw([prompts[i] for i in rows], sampling, number)
            for i, completion in zip(rows, completions, strict=True):
                found[i][number] = completion
        return [self._result([own[n] for n in sorted(own)]) for own in found]

    def _draw(self, prompts: list[Prompt], sampling: Sampling, number: int) -> list[Completion]:
        """One answer a prompt. A pass draws all its rows from one generator.

        Were samples of a prompt in one pass, which is which would depend on the batch; were each
        row a pass of its own, a batch would take as long as its rows one by one.
        """
        from rank_rl.generation.local import LocalGenerator

        generator = LocalGenerator(
            self.loaded,
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=derive(self.seed, number),
            batch_size=self.batch_size,
        )
        return generator.generate(prompts)

    def _result(self, completions: list[Completion]) -> Reply | CallError:
        if any(c.finish == "error" for c in completions):
            tokens = completions[0].prompt_tokens
            words = f"the prompt of {tokens} tokens leaves the model no room to answer"
            return CallError("too_long", words, retry=False)
        return _reply(completions, self.loaded.name)


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
    return Batched(_Engine(llm, model, seed), batch_size=batch_size)


class _Engine:
    """The answer function of a vLLM engine: a request of its own, with its own seed, a sample."""

    def __init__(self, llm: Any, model: str, seed: int) -> None:
        self.llm, self.model, self.seed = llm, model, seed

    def __call__(
        self, prompts: list[Prompt], sampling: Sampling, numbers: list[range]
    ) -> list[Reply | CallError]:
        started = time.perf_counter()
        rows = [(p, number) for p, own in zip(prompts, numbers, strict=True) for number in own]
        continued = any(p.prefill for p in prompts)  # then all have one
        outputs = self.llm.chat(
            [_chat(p) for p, _ in rows],
            [self._params(p, sampling, number) for p, number in rows],
            use_tqdm=False,
            add_generation_prompt=not continued,
            continue_final_message=continued,
        )
        share = (time.perf_counter() - started) / max(1, len(rows))
        each = iter([_vllm_completion(output, share) for output in outputs])
        return [_vllm_reply([next(each) for _ in own], self.model) for own in numbers]

    def _params(self, prompt: Prompt, sampling: Sampling, number: int) -> Any:
        text = json.dumps([[dict(m) for m in prompt.messages], prompt.prefill])
        return need("vllm").SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            logprobs=sampling.logprobs or None,
            seed=derive(self.seed, text, number) if sampling.temperature > 0 else None,
        )


def _chat(prompt: Prompt) -> list[dict[str, str]]:
    messages = [dict(m) for m in prompt.messages]
    return (
        [*messages, {"role": "assistant", "content": prompt.prefill}]
        if prompt.prefill
        else messages
    )


def _vllm_completion(output: Any, seconds: float) -> Completion:
    (own,) = output.outputs
    return Completion(
        text=own.text,
        finish="length" if own.finish_reason == "length" else "stop",
        prompt_tokens=len(output.prompt_token_ids or ()),
        completion_tokens=len(own.token_ids),
        seconds=seconds,
        logprob=own.cumulative_logprob,
    )


def _vllm_reply(completions: list[Completion], model: str) -> Reply:
    """The samples of one prompt, whose tokens count once."""
    rest = [replace(c, prompt_tokens=0) for c in completions[1:]]
    return _reply([*completions[:1], *rest], model)


def _reply(completions: Sequence[Completion], model: str) -> Reply:
    return Reply(
        completions=tuple(completions),
        prompt_tokens=max((c.prompt_tokens for c in completions), default=0),
        completion_tokens=sum(c.completion_tokens for c in completions),
        model=model,
    )
