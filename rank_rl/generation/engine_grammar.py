"""Answers that keep to rules, through vLLM: under a grammar, reasoning within a budget.

Reasoning is written freely up to its budget and closed where it is not; then every answer takes its
next choice in one go, read off the log-probabilities of the next tokens. Contract: an answer is the
one that ``LocalGenerator.answer`` writes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.generation.endings import trimmed
from rank_rl.generation.ruled import BEGUN, THOUGHT, Request, Rule, bare
from rank_rl.generation.writers import Guided
from rank_rl.records import Completion

if TYPE_CHECKING:
    from rank_rl.generation.engine_text import EngineGenerator

TAGS = 16  # tokens that tags around an answer may take


class Told(Guided):
    """A guided answer that is told log-probabilities by their ids instead of by position."""

    def tell(self, logprobs: Sequence[float]) -> None:
        """Go on by the log-probabilities of ``allowed``."""
        import torch

        row = torch.full((1, self.allowed[-1] + 1), -torch.inf, dtype=torch.float64)
        row[0, self.allowed] = torch.tensor(logprobs, dtype=torch.float64)
        self.take(row, ())


@dataclass(slots=True, kw_only=True)
class _Row:
    """An answer under way: its prompt, its reasoning, and what writes the rest."""

    start: list[int]
    thought: list[int]
    answer: Told

    @property
    def ids(self) -> list[int]:
        """Everything so far."""
        return [*self.start, *self.thought, *self.answer.ids]


def answered(generator: EngineGenerator, requests: Sequence[Request]) -> list[Completion]:
    """Answers by their rules; every request has one.

    Args:
        generator: what writes the reasoning, and whose engine is asked.
        requests: what is wanted.

    Returns:
        One completion a request; ``completion_tokens`` count all of it, given and chosen. One that
        has no room has ``finish="error"`` and no text.

    Raises:
        ModelError: vLLM failed, or the tokenizer joins a choice with what follows it.
    """
    started = time.perf_counter()
    engine = generator.engine
    starts = generator.tokens.encode_prompts([bare(request) for request in requests])
    thoughts = _thoughts(generator, starts, requests)
    rows = [_row(generator, *one) for one in zip(starts, thoughts, requests, strict=True)]
    while still := [r for r in rows if not r.answer.finish and len(r.ids) < engine.window]:
        allowed = [row.answer.allowed for row in still]
        peeks = engine.peek([row.ids for row in still], allowed)
        for row, ids, peek in zip(still, allowed, peeks, strict=True):
            row.answer.tell([peek.logprobs[i] for i in ids])
    share = (time.perf_counter() - started) / max(1, len(rows))
    return [_completion(generator, *pair, share) for pair in zip(rows, requests, strict=True)]


def _row(
    generator: EngineGenerator, start: list[int], thought: list[int], request: Request
) -> _Row:
    rule = _rule(request)
    lead = rule.bridge(generator.tokens.decode(thought)) if rule.thinks else rule.lead
    stop = generator.engine.ends[0]
    answer = Told(rule.grammar, generator.tokens, stop=stop, lead=lead, end=rule.end)
    return _Row(start=start, thought=thought, answer=answer)


def _thoughts(
    generator: EngineGenerator, starts: Sequence[list[int]], requests: Sequence[Request]
) -> list[list[int]]:
    """Ids of the reasoning behind each prompt; none where nothing is thought."""
    budgets: dict[int, int] = {}
    for i, request in enumerate(requests):
        rule = _rule(request)
        if rule.thinks:
            most = generator.max_new_tokens if rule.budget is None else rule.budget
            needed = len(generator.tokens.encode(request.hint)) + TAGS
            room = generator.engine.window - len(starts[i]) - needed
            budgets[i] = max(1, min(most, room))
    found: list[list[int]] = [[] for _ in starts]
    for most in sorted(set(budgets.values())):
        chosen = [i for i, budget in budgets.items() if budget == most]
        writer = generator.drawing(max_new_tokens=most, stop=(THOUGHT, BEGUN))
        for i, ids in zip(chosen, writer.write([starts[i] for i in chosen]), strict=True):
            found[i] = trimmed(ids, generator.engine.ends)
    return found


def _completion(
    generator: EngineGenerator, row: _Row, request: Request, seconds: float
) -> Completion:
    if not row.answer.finish:
        return Completion(text="", finish="error", prompt_tokens=len(row.start))
    rule = _rule(request)
    text = rule.opening + generator.tokens.decode(row.thought) + row.answer.text
    if not rule.thinks:
        text = text.removeprefix(request.prompt.prefill)
    return Completion(
        text=text,
        prompt_tokens=len(row.start),
        completion_tokens=len(row.thought) + len(row.answer.ids),
        seconds=seconds,
    )


def _rule(request: Request) -> Rule:
    if request.rule is None:
        raise ValueError("a request without a rule")
    return request.rule
