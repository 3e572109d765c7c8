"""One call to a model, and what may happen to it: shared by all backends and by their callers.

``Sampling`` is how an answer is drawn, ``Reply`` what a call brought, ``CallError`` why it brought
nothing and whether asking again can help. ``with_retries`` repeats a call within its bounds and
tells a ``Meter`` before and after every attempt. Sending is left to the backends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rank_rl.errors import BackendError
from rank_rl.records import Completion, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1]; 1 keeps every token.
        max_tokens: most tokens of an answer, reasoning included.
        logprobs: ask for the log-probabilities of so many alternatives a token; 0 asks for none.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 2048
    logprobs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON form, part of the key under which a completion is stored."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one call brought: one completion a sample, and what the server says it used.

    ``model`` is the name that the server answered under.
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""


class CallError(Exception):
    """A call that brought no completion.

    Attributes:
        cause: a short name: ``rate_limit``, ``server_error``, ``timeout``, ``connection``,
            ``malformed``, ``empty``, ``refused`` …; failures are counted by it.
        retry: whether asking again can help.
        after: seconds that the server asked to wait, if it did.
        fatal: no other call can succeed either (wrong key, no credit): the run stops.
        prompt_tokens, completion_tokens: what the server says it used all the same (``usage``);
            it is paid for.
    """

    def __init__(
        self,
        cause: str,
        detail: str = "",
        *,
        retry: bool = True,
        after: float | None = None,
        fatal: bool = False,
        usage: tuple[int, int] = (0, 0),
    ) -> None:
        self.cause, self.detail, self.retry = cause, " ".join(detail.split())[:300], retry
        self.after, self.fatal = after, fatal
        self.prompt_tokens, self.completion_tokens = usage
        super().__init__(f"{cause}: {self.detail}" if detail else cause)


class Meter(Protocol):
    """Hears of every attempt; may delay one, or forbid it by raising."""

    async def before(self) -> int:
        """Called before a request is sent; returns a ticket for ``after``."""
        ...

    def after(
        self, ticket: int, reply: Reply | None, cause: str, error: CallError | None = None
    ) -> None:
        """Called when it came back (``reply``) or failed (``cause``).

        ``error`` is the failure, with the tokens that it took; None when it was cancelled.
        """
        ...


async def in_workers(work: Callable[[], Awaitable[None]], count: int) -> None:
    """Run ``count`` copies of ``work`` side by side; when one fails, the others are ended first."""
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


class Backend(Protocol):
    """What answers prompts one by one, many at a time; ``concurrency`` says how many.

    One that draws sample number ``i`` of a prompt by its number has ``numbered_samples = True``,
    and its ``once`` takes ``first``, the number (from 0) of the first sample asked for.
    """

    concurrency: int
    retries: int

    async def once(self, prompt: Prompt, sampling: Sampling, *, samples: int = 1) -> Reply:
        """Send one request.

        Raises:
            CallError: it brought nothing.
        """
        ...


async def with_retries(
    send: Callable[[], Awaitable[Reply]],
    *,
    retries: int,
    meter: Meter | None = None,
    first_wait: float = 0.5,
    longest_wait: float = 60.0,
) -> Reply:
    """Repeat a call until it brings completions, at most ``retries`` times more.

    Waits double from ``first_wait`` to ``longest_wait`` seconds with full jitter; a server's own
    Retry-After counts where it is longer (up to ten times ``longest_wait``).

    Raises:
        CallError: the last failure, when no attempt is left or none can help.
    """
    wait, jitter = first_wait, random.SystemRandom()
    for attempt in range(retries + 1):
        ticket = await meter.before() if meter else 0
        try:
            reply = await send()
        except CallError as error:
            if meter:
                meter.after(ticket, None, error.cause, error)
            if error.fatal or not error.retry or attempt == retries:
                raise
            pause = jitter.random() * wait
            if error.after is not None:
                pause = max(pause, min(error.after, 10 * longest_wait))
            await asyncio.sleep(pause)
            wait = min(2 * wait, longest_wait)
            continue
        except BaseException:  # cancelled, or a bug: the ticket must not stay open
            if meter:
                meter.after(ticket, None, "cancelled")
            raise
        if meter:
            meter.after(ticket, reply, "")
        return reply
    raise BackendError("no attempt was made", where="retries", expected="0 or more")
