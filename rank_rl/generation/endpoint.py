"""Answers of a server that speaks OpenAI's chat completions: hosted, vLLM, SGLang, llama.cpp …

Contract: ``once`` is exactly one HTTP request, ended after ``timeout`` seconds whatever the server
does, and either a ``Reply`` or a ``CallError``; ``generate`` never raises for a single prompt. The
API key is read from the environment when it is needed and is in no field, message or log line.
Repeating calls is left to ``calls.with_retries``, storing answers to the callers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from rank_rl.errors import BackendError, RecipeError
from rank_rl.generation import Progress
from rank_rl.generation.calls import CallError, Meter, Reply, Sampling, in_workers, with_retries
from rank_rl.generation.wire import Reading, payload, rejection
from rank_rl.records import Completion, Prompt
from rank_rl.registry import need

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
LIMITS = ("max_tokens", "max_completion_tokens")
OURS = ("model", "messages", "n", "stream", *LIMITS)


@dataclass(kw_only=True, eq=False, repr=False)
class EndpointSettings:
    """One model behind one base URL, and how it may be asked; checked when it is made.

    Args:
        model: its name on the server.
        base_url: up to ``/v1``, without user or query; None is the environment's OPENAI_BASE_URL,
            or else OpenAI's own.
        api_key_env: NAME of the environment variable that holds the key. A server of one's own
            (``base_url``) may do without.
        concurrency: most requests at once.
        requests_per_minute, tokens_per_minute: paces below the server's limits; None is no limit.
            A request counts as a quarter of its prompt's bytes and all tokens it may write.
        timeout: seconds for a whole request.
        retries: how often a failed request is sent again.
        samples_per_request: the largest ``n`` that the server takes.
        max_tokens_field: what the server calls the limit of an answer.
        continue_prefill: the server goes on from the start of an answer (vLLM, SGLang).
        reasoning_fields: where a message may hold its reasoning apart; the first that is there.
        extra: further fields of the request; null takes one out (``temperature: null``). The
            length of an answer is none of them: budgets and paces count on it.
        sampling: how ``generate`` draws answers.
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 300.0
    retries: int = 5
    samples_per_request: int = 1
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    continue_prefill: bool = False
    reasoning_fields: Sequence[str] = ("reasoning_content", "reasoning")
    extra: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        self._check()
        given = self.base_url or os.environ.get("OPENAI_BASE_URL", "").strip()
        self.base_url = given or OPENAI
        self._check_url()
        if not self._key() and not given:
            raise RecipeError(
                f"environment variable {self.api_key_env} is not set",
                where=f"endpoint of {self.model!r}",
                remedy=f"export {self.api_key_env}=…, or give base_url for a server of your own",
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, base_url={self.where!r})"

    def _check(self) -> None:
        fields, where = self.reasoning_fields, f"endpoint of {self.model!r}"
        listed = isinstance(fields, Sequence) and not isinstance(fields, str)
        right = {
            "base_url": isinstance(self.base_url, str | None),
            "api_key_env": isinstance(self.api_key_env, str),
            "concurrency": _whole(self.concurrency, 1),
            "retries": _whole(self.retries, 0),
            "timeout": _positive(self.timeout),
            "samples_per_request": _whole(self.samples_per_request, 1),
            "requests_per_minute": self.requests_per_minute is None
            or _positive(self.requests_per_minute),
            "tokens_per_minute": self.tokens_per_minute is None
            or _positive(self.tokens_per_minute),
            "max_tokens_field": self.max_tokens_field in LIMITS,
            "continue_prefill": isinstance(self.continue_prefill, bool),
            "reasoning_fields": listed and all(isinstance(f, str) for f in fields),
            "extra": _fields(self.extra),
        }
        if found := [name for name, good in right.items() if not good]:
            raise RecipeError(
                f"{found[0]} is out of range or no value of its kind",
                where=where,
                expected="the values that docs/teachers.md names",
            )
        if ours := [name for name in OURS if name in self.extra]:
            own = ours[0] in LIMITS
            raise RecipeError(
                f"extra must not hold {ours[0]!r}, which is set elsewhere",
                where=where,
                remedy="use max_tokens of the question" if own else "leave it out",
            )

    def _check_url(self) -> None:
        # Not in the message: the URL as written. A password in it would be in the HTTP library's
        # log lines and in the recipe, and would be sent in place of the key.
        try:
            parts = urlsplit(self.base_url or "")
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise RecipeError("base_url is not a URL", expected="http://host:port/v1 or https://…")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise RecipeError(
                "base_url holds more than an address",
                expected="no user, password, query or fragment",
                remedy=f"a key belongs in the environment variable {self.api_key_env}",
            )
        if any(not 32 < ord(c) < 127 for c in self._key()):
            # An HTTP library would quote the whole header in its complaint.
            raise RecipeError(f"{self.api_key_env} holds characters that no key has")

    @property
    def where(self) -> str:
        """The base URL, which holds no secret."""
        return self.base_url or OPENAI

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip()

    def _clean(self, text: str) -> str:
        """A server's words without the key, which it may repeat."""
        key = self._key()
        return text.replace(key, "***") if key else text


@dataclass(kw_only=True, eq=False, repr=False)
class EndpointGenerator(EndpointSettings):
    """Answers of a server, one request a call; the parameters are those of the settings."""

    batch_size: int = field(init=False)
    _answered: bool = field(init=False, default=False)
    _sessions: dict[asyncio.AbstractEventLoop, _Session] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.batch_size = self.concurrency
        need("openai", "endpoint")

    async def once(self, prompt: Prompt, sampling: Sampling, *, samples: int = 1) -> Reply:
        """Send one request, at the pace allowed; it may bring fewer samples than asked.

        Raises:
            CallError: it brought nothing.
        """
        asked = min(samples, self.samples_per_request)
        body = self._body(prompt, sampling, asked)
        session = self._session()
        await session.requests.take(1)
        await session.tokens.take(estimate(prompt) + asked * sampling.max_tokens)
        started = time.perf_counter()
        response = await self._send(session.client, body)
        seconds = time.perf_counter() - started
        data = payload(response, self._clean)
        opened = "<think>" in prompt.prefill and "</think>" not in prompt.prefill
        read = Reading(reasoning_fields=tuple(self.reasoning_fields), thinking=opened)
        reply = read.reply(data, most=asked)
        self._answered = True
        timed = tuple(replace(c, seconds=seconds) for c in reply.completions)
        return replace(reply, completions=timed, model=reply.model or self.model)

    async def answer(
        self, prompt: Prompt, sampling: Sampling, *, samples: int = 1, meter: Meter | None = None
    ) -> Reply:
        """Send a request, and again while that can help.

        Raises:
            CallError: the last failure.
        """
        return await with_retries(
            lambda: self.once(prompt, sampling, samples=samples), retries=self.retries, meter=meter
        )

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion a prompt; a failed one has ``finish="error"`` and no text.

        Raises:
            BackendError: no prompt can be answered (key, credit, model).
        """
        try:
            return asyncio.run(self._all(prompts, progress))
        except CallError as error:
            raise self.explain(error) from None

    def explain(self, error: CallError) -> BackendError:
        """The one line for a user whose run stops at this failure."""
        remedies = {
            "unauthorised": f"set {self.api_key_env} to a key that the server takes",
            "no_credit": "the account has no credit left, or its quota is used up",
            "no_model": f"{self.where}/models lists what the server has; it was {self.model!r}",
        }
        return BackendError(str(error), where=self.where, remedy=remedies.get(error.cause, ""))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.client.close()

    async def _all(self, prompts: Sequence[Prompt], progress: Progress | None) -> list[Completion]:
        done: dict[int, Completion] = {}
        left = iter(enumerate(prompts))

        async def work() -> None:
            for i, prompt in left:
                done[i] = await self._one(prompt)
                if progress is not None:
                    progress(1)

        try:
            await in_workers(work, min(self.concurrency, len(prompts)))
        finally:
            await self.aclose()
        return [done[i] for i in range(len(prompts))]

    async def _one(self, prompt: Prompt) -> Completion:
        try:
            return (await self.answer(prompt, self.sampling)).completions[0]
        except CallError as error:
            if error.fatal:
                raise
            log.warning("%s gave no answer: %s", self.where, error)
            return Completion(text="", finish="error")

    def _body(self, prompt: Prompt, sampling: Sampling, samples: int) -> dict[str, Any]:
        messages = [dict(m) for m in prompt.messages]
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.max_tokens_field: sampling.max_tokens,
        }
        if samples > 1:
            fields["n"] = samples
        if sampling.logprobs:
            fields |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if prompt.prefill:
            if not self.continue_prefill:
                raise CallError(
                    "refused",
                    "the prompt begins the answer; continue_prefill: true if the server takes that",
                    retry=False,
                )
            messages.append({"role": "assistant", "content": prompt.prefill})
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        fields |= self.extra
        fields = {name: value for name, value in fields.items() if value is not None}
        return {"model": self.model, "messages": messages, "extra_body": fields}

    def _session(self) -> _Session:
        """The connections of the running loop; a client must not be used from two."""
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for old in [known for known in self._sessions if known.is_closed()]:
                del self._sessions[old]
            self._sessions[loop] = self._open()
        return self._sessions[loop]

    def _open(self) -> _Session:
        openai, httpx2 = need("openai", "endpoint"), need("httpx2", "endpoint")
        # The callers bound how many run at once; a bound here would count waiting as a timeout.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
        client = openai.AsyncOpenAI(
            api_key=self._key() or NO_KEY,
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits),
        )
        return _Session(
            client=client,
            requests=Pace(self.requests_per_minute),
            tokens=Pace(self.tokens_per_minute),
        )

    async def _send(self, client: Any, body: dict[str, Any]) -> Any:
        """The HTTP response of a success.

        Raises:
            CallError: outside the except clauses, so that it keeps no hold of the library's
                exception, whose request bears the key.
        """
        openai = need("openai", "endpoint")
        send = client.chat.completions.with_raw_response.create
        try:
            # The library's timeout is one between two bytes; a trickle would never end.
            return (await asyncio.wait_for(send(**body), self.timeout)).http_response
        except (asyncio.TimeoutError, openai.APITimeoutError):
            failure = CallError("timeout", f"no answer within {self.timeout:g} s")
        except openai.APIStatusError as error:
            failure = rejection(
                error.response, self._clean, model=self.model, answered=self._answered
            )
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            words = f"{type(reason).__name__}: {reason}"
            failure = CallError("connection", self._clean(words))
        except Exception as error:  # a request that cannot be written; it fails alone
            words = f"{type(error).__name__}: {error}"
            failure = CallError("refused", self._clean(words), retry=False)
        raise failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What belongs to one event loop."""

    client: Any
    requests: Pace
    tokens: Pace


class Pace:
    """So much a minute, in the order asked: any minute stays within it, a burst is a second's."""

    def __init__(self, per_minute: float | None) -> None:
        self.limiter: Any = None
        if per_minute is not None:
            burst = max(1.0, per_minute / 60)
            # The burst is part of the minute it happens in.
            rate = (per_minute - burst if per_minute > 60 else per_minute) / 60
            self.limiter = need("aiolimiter", "endpoint").AsyncLimiter(burst, burst / rate)
            self.turn = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Wait until so much more is allowed."""
        if self.limiter is None:
            return
        async with self.turn:
            while amount > 0:
                piece = min(amount, self.limiter.max_rate)
                await self.limiter.acquire(piece)
                amount -= piece


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _fields(value: object) -> bool:
    """Whether it is a JSON object."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def estimate(prompt: Prompt) -> float:
    """About how many tokens a prompt takes: a quarter of its bytes."""
    texts = [*(m["content"] for m in prompt.messages), prompt.prefill]
    return sum(len(t.encode("utf-8", "replace")) for t in texts) / 4
