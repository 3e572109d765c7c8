"""Requests, tokens and money: counted from the store, limited before a request is sent.

``Budget`` reserves the most that a request can cost and lets it go only when that fits below the
limits; near a limit requests wait for one another, and when none is left in flight the run stops.
What was spent is what servers reported; a request that was interrupted by a kill counts as a
request and is shown apart, because it may have been paid for.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rank_rl.errors import RankRLError
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Prompt
from rank_rl.specs import PriceSpec, TeacherSpec
from rank_rl.teachers.store import OK, OPEN, Asked, Store, seconds

logger = logging.getLogger(__name__)

MILLION = 1_000_000


class LimitReached(RankRLError):
    """The next request could pass a limit; everything asked so far is stored."""


def cost(price: PriceSpec, tokens_in: float, tokens_out: float) -> float:
    """Price of so many tokens."""
    return (price.input * tokens_in + price.output * tokens_out) / MILLION


def most_tokens(prompt: Prompt) -> int:
    """More tokens than a prompt can have: a token is at least one byte; some for the template."""
    texts = [*(m["content"] for m in prompt.messages), prompt.prefill]
    return sum(len(text.encode("utf-8", "surrogatepass")) + 16 for text in texts) + 64


@dataclass(slots=True)
class Budget:
    """Holds a run below its limits.

    Args:
        max_cost: most money, all runs of the folder together; None is unlimited.
        max_requests: most requests, retries included, all runs together; None is unlimited.
        spent: money spent before.
        requests: requests sent before.
    """

    max_cost: float | None = None
    max_requests: int | None = None
    spent: float = 0.0
    requests: int = 0
    reserved: float = 0.0
    in_flight: int = 0
    stopped: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def reserve(self, most: float) -> None:
        """Wait until a request that costs at most ``most`` fits below the limits.

        Raises:
            LimitReached: it never will.
        """
        while True:
            if self.stopped:
                raise LimitReached(
                    self.stopped,
                    remedy="what was answered is stored and written; raise the limit to go on",
                )
            if self.max_requests is not None and self.requests >= self.max_requests:
                self._stop(f"max_requests {self.max_requests} is reached")
                continue
            if self.max_cost is None or self.spent + self.reserved + most <= self.max_cost:
                break
            if not self.in_flight:
                self._stop(
                    f"the next request may cost {most:.6f}, which would pass max_cost "
                    f"{self.max_cost:g} ({self.spent:.6f} spent)"
                )
                continue
            self._changed.clear()
            await self._changed.wait()
        self.reserved += most
        self.requests += 1
        self.in_flight += 1

    def release(self, most: float, actual: float) -> None:
        """Replace a reservation by what the request did cost."""
        self.reserved -= most
        self.spent += actual
        self.in_flight -= 1
        self._changed.set()

    def _stop(self, why: str) -> None:
        self.stopped = why
        self._changed.set()


class Meter:
    """Writes the attempts of one request into the store and holds them to the budget."""

    def __init__(self, store: Store, budget: Budget, asked: Asked, teacher: TeacherSpec) -> None:
        self.store, self.budget, self.asked, self.teacher = store, budget, asked, teacher
        self.most, self.tokens = 0.0, (0, 0)

    def bound(self, prompt: Prompt, sampling: Sampling) -> Meter:
        """Set the most that the request can cost."""
        self.tokens = (most_tokens(prompt), sampling.max_tokens * len(self.asked.keys))
        self.most = cost(self.teacher.price, *self.tokens)
        return self

    async def before(self) -> int:
        """Reserve, then write down that a request is sent."""
        await self.budget.reserve(self.most)
        return self.store.begin(self.asked)

    def after(
        self, ticket: int, reply: Reply | None, cause: str, error: CallError | None = None
    ) -> None:
        """Write down what came back, and what it cost; a refusal may have cost something too."""
        used = (error.prompt_tokens, error.completion_tokens) if error else (0, 0)
        actual = cost(self.teacher.price, *used)
        if reply is not None:
            if self.most and not reply.prompt_tokens and not reply.completion_tokens:
                # A server that does not say what it used must not look free.
                _warn_of_usage(self.asked.teacher)
                used_in, used_out = self.tokens
                reply = replace(reply, prompt_tokens=used_in, completion_tokens=used_out)
            actual = cost(self.teacher.price, reply.prompt_tokens, reply.completion_tokens)
        self.budget.release(self.most, actual)
        self.store.end(ticket, self.asked, reply, cause, used)


@functools.cache
def _warn_of_usage(teacher: str) -> None:
    logger.warning(
        "teacher %s does not report the tokens it used: the most it can have been is charged",
        teacher,
    )


def ledger(
    store: Store,
    teachers: Mapping[str, TeacherSpec],
    currency: str,
    *,
    all_processes: bool = True,
) -> dict[str, Any]:
    """Everything that was asked in a folder so far, by teacher and in total, JSON-safe.

    ``requests`` were sent; ``succeeded`` brought completions; ``failed_attempts`` did not, by
    cause, and were repeated or given up; ``interrupted`` have no known end (the run was killed).
    """
    by_teacher: dict[str, Any] = {}
    for name, entry in store.totals(own=not all_processes).items():
        states = dict(entry["states"])
        price = teachers[name].price if name in teachers else PriceSpec()
        by_teacher[name] = {
            "requests": sum(states.values()),
            "succeeded": states.pop(OK, 0),
            "interrupted": states.pop(OPEN, 0),
            "failed_attempts": dict(sorted(states.items())),
            "tokens_in": entry["tokens_in"],
            "tokens_out": entry["tokens_out"],
            "cost": round(cost(price, entry["tokens_in"], entry["tokens_out"]), 6),
        }
    keys = ("requests", "succeeded", "interrupted", "tokens_in", "tokens_out", "cost")
    total = {key: round(sum(t[key] for t in by_teacher.values()), 6) for key in keys}
    retries = sum(sum(t["failed_attempts"].values()) for t in by_teacher.values())
    return {
        **total,
        "failed_attempts": retries,
        "given_up": len(store.failures()),
        "currency": currency,
        "seconds": round(seconds(store), 1),
        "teachers": by_teacher,
    }
