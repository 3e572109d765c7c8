"""vLLM in this process as a teacher. Opt-in: ``-m server`` where vLLM is installed.

RANK_RL_ENGINE_MODEL names the model (a folder or a Hub id).
"""

from __future__ import annotations

import asyncio
import os

import pytest

from rank_rl.generation.calls import Reply, Sampling
from rank_rl.records import Prompt

pytestmark = pytest.mark.server


def test_batches_samples_prefill_and_the_same_greedy_answers_again() -> None:
    pytest.importorskip("vllm")
    model = os.environ.get("RANK_RL_ENGINE_MODEL")
    if not model:
        pytest.skip("RANK_RL_ENGINE_MODEL names no model")
    from rank_rl.teachers.batched import engine

    options = {"dtype": "float32", "max_model_len": 2048}
    teacher = engine(model=model, batch_size=8, seed=7, options=options)
    prompts = [
        Prompt(messages=({"role": "user", "content": f"What is {i} plus {i}? Answer briefly."},))
        for i in range(6)
    ]
    greedy = Sampling(max_tokens=12, logprobs=1)

    async def asked() -> tuple[list[Reply], list[Reply], Reply, Reply]:
        first = await asyncio.gather(*(teacher.once(p, greedy) for p in prompts))
        again = await asyncio.gather(*(teacher.once(p, greedy) for p in prompts))
        drawn = await teacher.once(prompts[0], Sampling(temperature=1.0, max_tokens=8), samples=3)
        begun = Prompt(messages=prompts[0].messages, prefill="The sum is")
        return list(first), list(again), drawn, await teacher.once(begun, Sampling(max_tokens=6))

    first, again, drawn, begun = asyncio.run(asked())
    assert [r.completions[0].text for r in first] == [r.completions[0].text for r in again]
    assert all((r.completions[0].logprob or 0) < 0 and r.prompt_tokens > 0 for r in first)
    assert len(drawn.completions) == 3
    assert begun.completions[0].text and not begun.completions[0].text.startswith("The sum")
