"""Teachers in this process: what shares a batch, which draw is which, and who fails alone."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rank_rl.errors import ModelError
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Completion, Prompt
from rank_rl.teachers.batched import Batched, engine, local

GREEDY = Sampling(max_tokens=6)
DRAWN = Sampling(max_tokens=6, temperature=1.0)


def ask(text: str, prefill: str = "") -> Prompt:
    return Prompt(messages=({"role": "user", "content": text},), prefill=prefill)


@dataclass
class Echo:
    """An answer function that remembers its batches and fails on prompts that say so."""

    error: BaseException = field(default_factory=lambda: RuntimeError("CUDA out of memory"))
    most: int = 1 << 30
    batches: list[list[str]] = field(default_factory=list)

    def __call__(
        self, prompts: list[Prompt], sampling: Sampling, numbers: list[range]
    ) -> list[Reply | CallError]:
        texts = [p.messages[0]["content"] for p in prompts]
        self.batches.append(texts)
        if "bad" in texts or len(texts) > self.most:
            raise self.error
        return [
            Reply(completions=tuple(Completion(text=f"{t} {n}") for n in own))
            for t, own in zip(texts, numbers, strict=True)
        ]


def together(teacher: Batched, prompts: list[Prompt], sampling: Sampling = GREEDY) -> list[Any]:
    async def main() -> list[Any]:
        calls = (teacher.once(p, sampling) for p in prompts)
        return list(await asyncio.gather(*calls, return_exceptions=True))

    return asyncio.run(main())


def texts(reply: Reply) -> list[str]:
    return [c.text for c in reply.completions]


def test_samples_are_numbered():
    teacher = Batched(Echo(), batch_size=4)
    assert teacher.numbered_samples
    assert texts(asyncio.run(teacher.once(ask("a"), DRAWN, samples=2, first=3))) == ["a 3", "a 4"]
    assert texts(asyncio.run(teacher.once(ask("a"), DRAWN))) == ["a 0"]


def test_prompts_with_and_without_a_prefill_do_not_share_a_batch():
    echo = Echo()
    prompts = [ask("a"), ask("b", "<think>"), ask("c"), ask("d", "<think>")]
    found = together(Batched(echo, batch_size=4), prompts)
    assert [texts(r) for r in found] == [["a 0"], ["b 0"], ["c 0"], ["d 0"]]
    assert echo.batches == [["a", "c"], ["b", "d"]]


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), ValueError("too long"), ModelError("no chat")]
)
def test_a_prompt_that_fails_does_so_alone(error: Exception):
    prompts = [ask("a"), ask("bad"), ask("c"), ask("d"), ask("e")]
    found = together(Batched(Echo(error=error), batch_size=8), prompts)
    failure = found.pop(1)
    assert [texts(r) for r in found] == [["a 0"], ["c 0"], ["d 0"], ["e 0"]]
    assert isinstance(failure, CallError)
    assert (failure.cause, failure.retry, failure.fatal) == ("error", False, False)
    assert failure.detail == f"{type(error).__name__}: {error}"


def test_a_batch_that_is_too_large_for_the_memory_is_divided():
    echo = Echo(most=1)
    found = together(Batched(echo, batch_size=8), [ask(t) for t in "abcd"])
    assert [texts(r) for r in found] == [["a 0"], ["b 0"], ["c 0"], ["d 0"]]
    assert echo.batches[0] == ["a", "b", "c", "d"]


def test_an_answer_function_that_loses_a_reply_keeps_nobody_waiting():
    found = together(Batched(lambda *_: [], batch_size=2), [ask("a"), ask("b")])
    assert [r.cause for r in found] == ["error", "error"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(stop: type[BaseException]):
    with pytest.raises(stop):
        together(Batched(Echo(error=stop()), batch_size=2), [ask("a"), ask("bad")])


def test_a_request_that_was_cancelled_is_not_answered():
    echo = Echo()
    teacher = Batched(echo, batch_size=4)

    async def main() -> Reply:
        gone = asyncio.create_task(teacher.once(ask("bad"), GREEDY))
        await asyncio.sleep(0)
        gone.cancel()
        return await teacher.once(ask("a"), GREEDY)

    assert texts(asyncio.run(main())) == ["a 0"]
    assert echo.batches == [["a"]]


# A model of transformers


@pytest.fixture(scope="module")
def teacher(tiny_model_dir: Path) -> Batched:
    return local(model=str(tiny_model_dir), batch_size=4, seed=5, dtype="float32")


def test_a_prompt_that_fills_the_window_fails_alone(teacher: Batched):
    good, long, other = together(
        teacher, [ask("the river"), ask("the lake " * 2000), ask("the town")]
    )
    assert good.completions[0].completion_tokens == 6 and other.completions[0].text
    assert isinstance(long, CallError)
    assert (long.cause, long.retry, long.fatal) == ("too_long", False, False)
    assert "tokens" in long.detail


def test_draws_of_one_prompt_differ_and_come_again(teacher: Batched):
    def drawn(first: int, samples: int = 1) -> list[str]:
        call = teacher.once(ask("the river"), DRAWN, samples=samples, first=first)
        return texts(asyncio.run(call))

    one_by_one = [drawn(i)[0] for i in range(3)]
    assert len(set(one_by_one)) == 3
    assert drawn(0, 3) == one_by_one
    assert drawn(1, 2) == one_by_one[1:]


def test_requests_for_other_samples_do_not_change_a_draw(teacher: Batched):
    async def main() -> list[Reply]:
        calls = (teacher.once(ask("the river"), DRAWN, first=i) for i in (2, 0, 1))
        return list(await asyncio.gather(*calls))

    alone = texts(asyncio.run(teacher.once(ask("the river"), DRAWN, samples=3)))
    assert [texts(r)[0] for r in asyncio.run(main())] == [alone[i] for i in (2, 0, 1)]


def test_the_seed_counts_and_greedy_answers_are_the_same(teacher: Batched, tiny_model_dir: Path):
    other = local(model=str(tiny_model_dir), batch_size=4, seed=6, dtype="float32")
    prompt = ask("the river")
    mine, its = (asyncio.run(t.once(prompt, DRAWN, samples=2)) for t in (teacher, other))
    assert texts(mine) != texts(its)
    greedy = asyncio.run(teacher.once(prompt, GREEDY, samples=2))
    assert len(set(texts(greedy))) == 1
    assert texts(asyncio.run(other.once(prompt, GREEDY, first=7))) == texts(greedy)[:1]
    assert greedy.prompt_tokens > 0 and greedy.completion_tokens == 12


# vLLM, whose answers are made up here: what it is asked is under test


class LLM:
    """Answers with the seed; refuses prompts of more than 20 characters, as vLLM does."""

    def __init__(self, model: str, seed: int) -> None:
        self.calls: list[dict[str, Any]] = []

    def chat(self, chats: list[Any], params: list[Any], **options: Any) -> list[Any]:
        self.calls.append({"chats": chats, "params": params, **options})
        assert all(p.n == 1 for p in params) and len(chats) == len(params)
        if any(len(chat[0]["content"]) > 20 for chat in chats):
            raise ValueError("The decoder prompt is longer than the maximum model length")
        return [
            SimpleNamespace(
                prompt_token_ids=[1, 2],
                outputs=[
                    SimpleNamespace(
                        text=f"{chat[0]['content']} {param.seed}",
                        finish_reason="stop",
                        token_ids=[3],
                        cumulative_logprob=None,
                    )
                ],
            )
            for chat, param in zip(chats, params, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", fake)  # type: ignore[arg-type]


@pytest.mark.usefixtures("vllm")
def test_each_sample_has_its_seed_whatever_the_batch():
    teacher = engine(model="m", batch_size=8, seed=3)
    alone = asyncio.run(teacher.once(ask("a"), DRAWN, samples=3))
    seeds = [int(t.split()[1]) for t in texts(alone)]
    assert len(set(seeds)) == 3 and all(0 <= s < 2**63 for s in seeds)
    assert (alone.prompt_tokens, alone.completion_tokens) == (2, 3)
    assert [c.prompt_tokens for c in alone.completions] == [2, 0, 0]

    async def main() -> list[Reply]:
        calls = [teacher.once(ask("b"), DRAWN, samples=2), teacher.once(ask("a"), DRAWN, first=2)]
        return list(await asyncio.gather(*calls))

    other, third = asyncio.run(main())
    assert texts(third) == texts(alone)[2:]
    assert not {t.split()[1] for t in texts(other)} & set(map(str, seeds))
    again = engine(model="m", batch_size=8, seed=4)
    assert texts(asyncio.run(again.once(ask("a"), DRAWN))) != texts(alone)[:1]
    assert texts(asyncio.run(teacher.once(ask("a"), GREEDY))) == ["a None"]


@pytest.mark.usefixtures("vllm")
def test_an_engine_takes_prefilled_prompts_by_themselves_and_survives_a_long_one():
    teacher = engine(model="m", batch_size=8)
    prompts = [ask("a"), ask("b", "So"), ask("long " * 9), ask("c")]
    first, begun, long, last = together(teacher, prompts)
    assert [texts(r) for r in (first, begun, last)] == [["a None"], ["b None"], ["c None"]]
    assert (long.cause, long.retry) == ("error", False) and "ValueError" in long.detail
    calls = teacher._answer.llm.calls  # type: ignore[attr-defined]
    (continued,) = [c for c in calls if c["continue_final_message"]]
    assert continued["chats"][0][-1] == {"role": "assistant", "content": "So"}
    assert not continued["add_generation_prompt"]
