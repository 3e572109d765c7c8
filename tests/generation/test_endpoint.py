"""The endpoint generator against a real HTTP server with faults on demand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from openai_server import FAULTS, Fixed, Server, ServerSettings

from rank_rl import generation, registry
from rank_rl.errors import BackendError, RecipeError
from rank_rl.generation.calls import CallError, Reply, Sampling, with_retries
from rank_rl.generation.endpoint import EndpointGenerator
from rank_rl.generation.wire import retry_after
from rank_rl.records import Prompt

pytest.importorskip("openai")

KEY = "sk-Zy8secretQ"
PROMPT = Prompt(
    messages=(
        {"role": "system", "content": "Rank. Write <answer> </answer>."},
        {"role": "user", "content": "[1] a river [2] a lake [3] a town"},
    )
)
CAUSES = {
    "rate_limit": "rate_limit",
    "rate_limit_wait": "rate_limit",
    "error_500": "server_error",
    "error_503": "server_error",
    "hang": "timeout",
    "reset": "connection",
    "truncated": "malformed",
    "empty_choices": "malformed",
    "missing_choices": "malformed",
    "html": "malformed",
    "error_body": "server_error",
    "trickle": "timeout",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ask(text: str) -> Prompt:
    return Prompt(messages=({"role": "user", "content": text},))


def endpoint(server: Server, **params: Any) -> EndpointGenerator:
    return EndpointGenerator(model="tiny", base_url=server.url, **params)


def run(generator: EndpointGenerator, call: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        try:
            return await call()
        finally:
            await generator.aclose()

    return asyncio.run(main())


def once(generator: EndpointGenerator, prompt: Prompt = PROMPT, **params: Any) -> Reply:
    samples = params.pop("samples", 1)
    return run(generator, lambda: generator.once(prompt, Sampling(**params), samples=samples))


def replied(message: Any, finish: str = "stop", **fields: Any) -> Fixed:
    return Fixed(body={"choices": [{"message": message, "finish_reason": finish}], **fields})


def failure(response: Fixed, **params: Any) -> CallError:
    with Server(ServerSettings(script=(response,))) as server:
        generator = endpoint(server, **params)
        with pytest.raises(CallError) as caught:
            once(generator)
        assert caught.value.__context__ is None  # the library's exception holds the key
        assert len(server.bodies) == 1
        return caught.value


class Heard:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bool, str]] = []
        self.tickets = 0
        self.used: list[tuple[int, int]] = []

    async def before(self) -> int:
        self.tickets += 1
        return self.tickets

    def after(
        self, ticket: int, reply: Reply | None, cause: str, error: CallError | None = None
    ) -> None:
        self.events.append((ticket, reply is not None, cause))
        if error is not None:
            assert error.cause == cause and reply is None
            self.used.append((error.prompt_tokens, error.completion_tokens))


def test_an_answer_and_what_it_took():
    with Server() as server:
        reply = once(endpoint(server), max_tokens=100)
        counts = server.counts()
    (completion,) = reply.completions
    assert completion.text.startswith("<think>") and completion.text.endswith("</answer>")
    assert (completion.finish, completion.reasoning, completion.logprob) == ("stop", "", None)
    assert reply.model == "tiny"
    assert completion.prompt_tokens == reply.prompt_tokens == 13
    assert completion.completion_tokens == reply.completion_tokens > 3
    assert 0 < completion.seconds < 5
    assert server.bodies[0]["max_tokens"] == 100 and server.bodies[0]["temperature"] == 0.0
    assert "n" not in server.bodies[0] and "logprobs" not in server.bodies[0]
    assert (counts["requests"], counts["successes"], counts["with_key"]) == (1, 1, 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_cause_and_the_next_attempt_answers(fault: str):
    heard = Heard()
    with Server(ServerSettings(script=(fault,))) as server:
        # The second answer has to come in time on a busy machine, too.
        generator = endpoint(server, timeout=2.5 if CAUSES[fault] == "timeout" else 10)

        async def call() -> Reply:
            send = lambda: generator.once(PROMPT, Sampling())  # noqa: E731
            return await with_retries(send, retries=1, meter=heard, first_wait=0.01)

        reply = run(generator, call)
        counts = server.counts()
    assert heard.events == [(1, False, CAUSES[fault]), (2, True, "")]
    assert "[1]" in reply.completions[0].text
    assert counts["faults"] == {fault: 1}
    assert (counts["requests"], counts["successes"]) == (2, 1)


def test_many_faults_and_each_prompt_is_answered_once():
    settings = ServerSettings(fault_rate=0.4, seed=3, trickle_step=0.02)
    heard = Heard()
    with Server(settings) as server:
        generator = endpoint(server, timeout=0.7)

        async def one(i: int) -> Reply:
            send = lambda: generator.once(ask(f"[1] a [2] b {i}"), Sampling())  # noqa: E731
            return await with_retries(send, retries=20, meter=heard, first_wait=0.01)

        async def call() -> list[Reply]:
            return list(await asyncio.gather(*(one(i) for i in range(40))))

        replies = run(generator, call)
        counts = server.counts()
    assert len(replies) == 40 and counts["successes"] == 40
    assert set(counts["by_request"].values()) == {1}
    assert counts["requests"] == heard.tickets == 40 + sum(counts["faults"].values())
    assert len(counts["faults"]) > 5


def test_no_attempt_is_left():
    with Server(ServerSettings(fault_rate=1.0, faults=("rate_limit",))) as server:
        generator = endpoint(server, retries=1)
        with pytest.raises(CallError, match="rate_limit"):
            run(generator, lambda: generator.answer(PROMPT, Sampling()))
        assert server.requests == 2


def test_retry_after_is_waited_for():
    slow = Fixed(status=429, headers={"Retry-After": "0.7"}, body={"error": {"message": "x"}})
    with Server(ServerSettings(script=(slow,))) as server:
        generator = endpoint(server)
        started = time.perf_counter()
        run(generator, lambda: generator.answer(PROMPT, Sampling()))
        assert time.perf_counter() - started >= 0.7
    assert failure(slow).after == 0.7


def test_retry_after_forms():
    later = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 25 < (retry_after({"retry-after": format_datetime(later, usegmt=True)}) or 0) < 31
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    found = [retry_after({"retry-after": t}) for t in (past, "-3", "2", "nan", "soon", "")]
    assert found == [0, 0, 2, None, None, None]
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "error", "cause", "retry", "fatal"),
    [
        (401, {"message": "bad key"}, "unauthorised", False, True),
        (403, {"message": "no"}, "unauthorised", False, True),
        (403, {"message": "x", "metadata": {"flagged_input": "y"}}, "refused", False, False),
        (403, {"message": "requires moderation"}, "refused", False, False),
        (403, {"code": "content_policy_violation"}, "refused", False, False),
        (400, {"message": "safety system"}, "refused", False, False),
        (404, {"message": "no such model"}, "no_model", False, True),
        (404, "page not found", "no_model", False, True),
        (402, {"message": "pay"}, "no_credit", False, True),
        (429, {"message": "x", "code": "insufficient_quota"}, "no_credit", False, True),
        (429, {"message": "see /account/billing", "code": None}, "rate_limit", True, False),
        (400, {"message": "context length"}, "refused", False, False),
        (413, "too large", "refused", False, False),
        (422, {"message": "n"}, "refused", False, False),
        (408, {"message": "x"}, "server_error", True, False),
        (409, {"message": "x"}, "server_error", True, False),
        (425, {"message": "x"}, "server_error", True, False),
        (529, {"message": "x"}, "server_error", True, False),
    ],
)
def test_statuses(status: int, error: Any, cause: str, retry: bool, fatal: bool):
    found = failure(Fixed(status=status, body={"error": error}))
    assert (found.cause, found.retry, found.fatal) == (cause, retry, fatal)
    assert str(status) in found.detail


@pytest.mark.parametrize(
    ("response", "cause", "retry", "fatal"),
    [
        (Fixed(status=401, body={"error": "key"}), "unauthorised", False, True),
        (Fixed(status=403, body={"error": "no"}), "refused", False, False),
        (Fixed(status=403, body=b"<html>blocked</html>"), "refused", False, False),
        (Fixed(status=404, body=b"<html>model tiny</html>"), "server_error", True, False),
        (Fixed(status=404, body={"detail": "Not Found"}), "server_error", True, False),
        (
            Fixed(status=404, body={"error": {"message": "The model `tiny` does not exist"}}),
            "no_model",
            False,
            True,
        ),
        (Fixed(status=404, body={"error": {"code": "model_not_found"}}), "no_model", False, True),
    ],
)
def test_statuses_of_a_server_that_has_answered(
    response: Fixed, cause: str, retry: bool, fatal: bool
):
    with Server(ServerSettings(script=("", response))) as server:
        generator = endpoint(server)
        once(generator)
        with pytest.raises(CallError) as caught:
            once(generator)
    found = caught.value
    assert (found.cause, found.retry, found.fatal) == (cause, retry, fatal)


def test_a_blip_of_a_gateway_is_survived():
    blip = Fixed(status=404, body=b"404 page not found")
    with Server(ServerSettings(script=("", blip))) as server:
        found = endpoint(server, concurrency=1).generate([ask("[1]"), ask("[2]")])
    assert [c.finish for c in found] == ["stop", "stop"]


USAGE = {"prompt_tokens": 70, "completion_tokens": 9}


@pytest.mark.parametrize(
    "response",
    [
        replied({"content": "x"}, "content_filter", usage=USAGE),
        replied({"content": ""}, usage=USAGE),
        replied({"content": None, "refusal": "I cannot"}, usage=USAGE),
        replied({"content": "half"}, "error", usage=USAGE),
        Fixed(body={"choices": [], "usage": USAGE}),
        Fixed(body={"error": "overloaded", "usage": USAGE}),
    ],
)
def test_a_reply_without_an_answer_tells_what_it_used(response: Fixed):
    found = failure(response)
    assert (found.prompt_tokens, found.completion_tokens) == (70, 9)


def test_the_meter_hears_of_every_token():
    script = (
        replied({"content": ""}, usage=USAGE),
        Fixed(status=500, body={"error": "x"}),
        replied({"content": ""}, usage={"prompt_tokens": "many", "completion_tokens": -3}),
        replied({"content": "x"}, "content_filter", usage=USAGE),
    )
    heard = Heard()
    with Server(ServerSettings(script=script)) as server:
        generator = endpoint(server)

        async def call() -> Reply:
            send = lambda: generator.once(PROMPT, Sampling())  # noqa: E731
            return await with_retries(send, retries=5, meter=heard, first_wait=0.01)

        with pytest.raises(CallError, match="content_filter"):
            run(generator, call)
    assert heard.used == [(70, 9), (0, 0), (0, 0), (70, 9)]
    assert [cause for _, _, cause in heard.events] == ["empty", "server_error", "empty", "refused"]


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        (Fixed(body=[]), "malformed"),
        (Fixed(body=None), "malformed"),
        (Fixed(body=b"[" * 100_000), "malformed"),
        (Fixed(body=b"\xff\xfe{"), "malformed"),
        (Fixed(body=b""), "malformed"),
        (Fixed(body={"choices": {}}), "malformed"),
        (Fixed(body={"choices": [None]}), "malformed"),
        (Fixed(body={"choices": [{"finish_reason": "stop"}]}), "malformed"),
        (replied("text"), "malformed"),
        (replied({"content": ["a"]}), "malformed"),
        (replied({"content": 7}), "malformed"),
        (replied({"content": None}), "empty"),
        (replied({"content": " \n"}), "empty"),
        (replied({"content": "half"}, "error"), "server_error"),
        (Fixed(headers={"Content-Encoding": "gzip"}, body=b"no gzip"), "connection"),
        (Fixed(body={"error": "overloaded"}), "server_error"),
    ],
)
def test_odd_successes_can_be_asked_again(response: Fixed, cause: str):
    found = failure(response)
    assert (found.cause, found.retry, found.fatal) == (cause, True, False)


def test_filtered_and_refused_answers_are_not_asked_again():
    found = [
        failure(replied({"content": "x"}, "content_filter")),
        failure(replied({"content": None, "refusal": "I cannot"})),
    ]
    assert [(f.cause, f.retry, f.fatal) for f in found] == [("refused", False, False)] * 2


def test_answers_that_look_odd_but_count():
    texts = ("text", None, "\ud83dx")
    script = (
        replied({"content": texts[0]}, usage={"prompt_tokens": "7", "completion_tokens": None}),
        replied({"content": texts[1]}, "length", usage=3, model=4),
        replied({"content": texts[2]}),
    )
    with Server(ServerSettings(script=script)) as server:
        generator = endpoint(server)
        replies = [once(generator) for _ in script]
    assert [r.completions[0].text for r in replies] == ["text", "", "\ufffdx"]
    assert [r.completions[0].finish for r in replies] == ["stop", "length", "stop"]
    assert [(r.prompt_tokens, r.completion_tokens, r.model) for r in replies] == [
        (0, 0, "tiny")
    ] * 3


def test_a_server_that_is_not_there():
    with Server() as server:
        pass
    with pytest.raises(CallError) as caught:
        once(endpoint(server))
    assert (caught.value.cause, caught.value.retry) == ("connection", True)


def test_a_timeout_ends_a_trickle():
    with Server(ServerSettings(script=("trickle",), trickle_step=0.02)) as server:
        with pytest.raises(CallError, match="timeout: no answer within 0.3 s"):
            once(endpoint(server, timeout=0.3))
        assert server.counts()["successes"] == 0


def test_a_client_that_left_is_no_success():
    with Server(ServerSettings(delay=0.7)) as server:
        with pytest.raises(CallError, match="timeout"):
            once(endpoint(server, timeout=0.3))
        time.sleep(0.7)
        assert (server.counts()["requests"], server.counts()["successes"]) == (1, 0)


def test_a_request_that_cannot_be_written_fails_alone():
    with Server() as server:
        with pytest.raises(CallError) as caught:
            once(endpoint(server), ask("\ud83d"))
        assert (caught.value.cause, caught.value.retry) == ("refused", False)
        found = endpoint(server).generate([ask("\ud83d"), ask("[1] [2]")])
    assert [c.finish for c in found] == ["error", "stop"]


def test_cancelling_passes_and_tells_the_meter():
    heard = Heard()
    with Server(ServerSettings(script=("hang",))) as server:
        generator = endpoint(server)

        async def call() -> None:
            task = asyncio.create_task(generator.answer(PROMPT, Sampling(), meter=heard))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(generator, call)
    assert heard.events == [(1, False, "cancelled")]


def test_samples_share_the_tokens():
    with Server(ServerSettings(most_samples=3)) as server:
        reply = once(endpoint(server, samples_per_request=4), samples=5, temperature=0.7)
        assert server.bodies[0]["n"] == 4
        assert server.counts()["samples"] == {next(iter(server.successes)): 3}
        assert len(once(endpoint(server), samples=5).completions) == 1
    assert len({c.text for c in reply.completions}) == len(reply.completions) == 3
    each = [c.completion_tokens for c in reply.completions]
    assert sum(each) == reply.completion_tokens and max(each) - min(each) <= 2
    assert [c.prompt_tokens for c in reply.completions] == [reply.prompt_tokens, 0, 0]


def test_choices_that_can_be_read_are_kept():
    bad, good = {"message": None}, {"message": {"content": "yes"}, "finish_reason": "stop"}
    script = (Fixed(body={"choices": [bad, good, good], "usage": {"completion_tokens": 5}}),)
    with Server(ServerSettings(script=script)) as server:
        reply = once(endpoint(server, samples_per_request=3), samples=3)
    assert [(c.text, c.completion_tokens) for c in reply.completions] == [("yes", 3), ("yes", 2)]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_apart_from_the_content(name: str):
    settings = ServerSettings(reasoning="It says so.", reasoning_field=name)
    with Server(settings) as server:
        (found,) = once(endpoint(server), ask("[1] [2]")).completions
        (own,) = once(endpoint(server)).completions
        (plain,) = once(endpoint(server, reasoning_fields=["other"]), ask("[1]")).completions
        opened = Prompt(messages=ask("[1]").messages, prefill="<think>\n")
        (continued,) = once(endpoint(server, continue_prefill=True), opened).completions
    assert found.text.startswith("<think>\nIt says so.\n</think>\n[")
    assert own.text.startswith("<think>[") and "It says so." not in own.text
    assert found.reasoning == own.reasoning == "It says so."
    assert (plain.text, plain.reasoning) == ("[1]", "")
    assert continued.text == "It says so.\n</think>\n[1]"


def test_reasoning_without_content_is_an_answer():
    with Server(ServerSettings(script=(replied({"content": "", "reasoning": "r"}),))) as server:
        (found,) = once(endpoint(server)).completions
    assert (found.text, found.reasoning) == ("<think>\nr\n</think>\n", "r")


def test_log_probabilities():
    with Server() as server:
        (found,) = once(endpoint(server), logprobs=2).completions
        assert server.bodies[0]["top_logprobs"] == 2 and server.bodies[0]["logprobs"] is True
    assert found.logprob == -0.25 * found.completion_tokens
    with Server(ServerSettings(logprobs=False)) as server:
        assert once(endpoint(server), logprobs=2).completions[0].logprob is None


def test_length():
    with Server() as server:
        (found,) = once(endpoint(server), max_tokens=2).completions
        renamed = endpoint(server, max_tokens_field="max_completion_tokens")
        assert once(renamed, max_tokens=2).completions[0].finish == "length"
        assert "max_tokens" not in server.bodies[1]
    assert (found.finish, found.completion_tokens) == ("length", 2)


def test_prefill():
    prompt = Prompt(messages=PROMPT.messages, prefill="<think>")
    with Server() as server:
        with pytest.raises(CallError) as caught:
            once(endpoint(server), prompt)
        assert (caught.value.cause, caught.value.retry, server.requests) == ("refused", False, 0)
        once(endpoint(server, continue_prefill=True), prompt)
        body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_extra_fields():
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": None}
    with Server() as server:
        once(endpoint(server, extra=extra))
        body = server.bodies[0]
    assert body["chat_template_kwargs"] == {"enable_thinking": False} and "temperature" not in body


def test_the_key_is_nowhere(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    echo = {"error": {"message": "x" * 285 + f" {KEY} password {KEY}"}}
    script = (
        Fixed(status=401, body=echo),
        Fixed(status=400, body=f"key {KEY}".encode()),
        Fixed(body=f"<html>{KEY}</html>".encode(), headers={"Content-Type": "text/html"}),
        Fixed(body=echo),
    )
    with Server(ServerSettings(script=script, key=KEY)) as server:
        generator = endpoint(server)
        texts = [repr(generator), generator.where]
        for _ in script:
            with pytest.raises(CallError) as caught:
                once(generator)
            texts += [str(caught.value), repr(caught.value), repr(caught.value.__context__)]
            texts += [str(generator.explain(caught.value))]
            assert len(caught.value.detail) <= 300
    texts += [repr(vars(generator)), caplog.text]
    assert "/chat/completions" in caplog.text
    assert not [t for t in texts if KEY[:6] in t]


@pytest.mark.parametrize("url", ["http://me:hunter2@host/v1", "http://host/v1?token=hunter2"])
def test_a_url_holds_no_secrets(url: str):
    with pytest.raises(RecipeError, match="base_url") as caught:
        EndpointGenerator(model="tiny", base_url=url)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_key_stops_the_run():
    with Server(ServerSettings(key="another")) as server, pytest.raises(BackendError) as caught:
        endpoint(server).generate([ask(str(i)) for i in range(50)])
    line = str(caught.value)
    assert line.startswith(f"{server.url}: unauthorised: 401 wrong key")
    assert "OPENAI_API_KEY" in line and KEY not in line and "\n" not in line


def test_generate_keeps_the_order_and_asks_many_at_once():
    prompts = [ask(" ".join(f"[{j}]" for j in range(i + 1))) for i in range(24)]
    seen: list[int] = []
    refused = Fixed(status=400, body={"error": {"message": "too long"}})
    with Server(ServerSettings(delay=0.05, key=KEY)) as server:
        generator = endpoint(server, concurrency=8)
        assert generator.batch_size == 8
        found = generator.generate(prompts, progress=seen.append)
        assert 1 < server.most_in_flight <= 8
        assert generator.generate([]) == []
        server.script.append(refused)
        again = generator.generate(prompts[:3])  # another event loop
    assert [c.text.count("[") for c in found] == list(range(1, 25))
    assert seen == [1] * 24
    assert sorted(c.finish for c in again) == ["error", "stop", "stop"]


def test_paces():
    with Server() as server:
        for pace in ({"requests_per_minute": 600}, {"tokens_per_minute": 6000}):
            generator = endpoint(server, sampling=Sampling(max_tokens=9), **pace)
            started = time.perf_counter()
            found = generator.generate([ask("[1]") for _ in range(15)])  # 9.75 tokens each
            assert time.perf_counter() - started > 0.4
            assert all(c.finish == "stop" for c in found)


def test_the_key_may_be_missing_for_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server(ServerSettings(key="none")) as server:
        assert once(endpoint(server)).completions
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        generator = EndpointGenerator(model="tiny")
        assert generator.where == server.url and once(generator).completions
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(RecipeError, match="MY_KEY is not set"):
        EndpointGenerator(model="tiny", api_key_env="MY_KEY")


def test_without_base_url_it_is_openai():
    assert EndpointGenerator(model="tiny").where == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"samples_per_request": 0}, "samples_per_request"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"max_tokens_field": "max"}, "max_tokens_field"),
        ({"extra": {"stream": True}}, "extra must not hold 'stream'"),
        ({"extra": {"max_tokens": 9}}, "use max_tokens of the question"),
        ({"extra": {"max_tokens": None}}, "use max_tokens of the question"),
        ({"extra": {"max_completion_tokens": 9}}, "use max_tokens of the question"),
        ({"extra": [1]}, "extra is .* docs/teachers.md"),
        ({"extra": {1: 2}}, "extra is"),
        ({"extra": {"day": datetime(2024, 1, 1)}}, "extra is"),
        ({"concurrency": 1.5}, "concurrency is"),
        ({"concurrency": True}, "concurrency is"),
        ({"retries": 0.5}, "retries is"),
        ({"timeout": "3"}, "timeout is"),
        ({"timeout": float("nan")}, "timeout is"),
        ({"tokens_per_minute": "1000"}, "tokens_per_minute is"),
        ({"continue_prefill": "no"}, "continue_prefill is"),
        ({"reasoning_fields": "abc"}, "reasoning_fields is"),
        ({"reasoning_fields": [1]}, "reasoning_fields is"),
        ({"max_tokens_field": ["max_tokens"]}, "max_tokens_field is"),
        ({"base_url": 8000}, "base_url is"),
        ({"api_key_env": 5}, "api_key_env is"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "http://[x:8/v1"}, "base_url"),
        ({"base_url": "http://host:port/v1"}, "base_url"),
        ({"timeuot": 3}, "nearest: timeout"),
        ({"concurrency": "many"}, "endpoint"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], words: str):
    given = {"model": "tiny", "base_url": "http://127.0.0.1:1/v1", **params}
    with pytest.raises(RecipeError, match=words) as caught:
        registry.build("generator", "endpoint", given, generation.TABLE)
    assert "\n" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nsk-b")
    with pytest.raises(RecipeError) as caught:
        EndpointGenerator(model="tiny")
    assert "OPENAI_API_KEY" in str(caught.value) and "sk-" not in str(caught.value)


def test_made_by_name():
    made = generation.make("endpoint", model="tiny", base_url="http://127.0.0.1:1/v1")
    assert isinstance(made, EndpointGenerator)
