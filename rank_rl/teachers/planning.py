"""What a run would send, and what that costs: its questions walked through without asking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rank_rl.strategies.oracle import copy
from rank_rl.teachers.asking import NO_ANSWER, Request, Requests
from rank_rl.teachers.ledger import cost
from rank_rl.teachers.units import Answer, Ask, Question, Unit, walk


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a run would send: by question, requests, samples and prompt tokens; what is stored."""

    requests: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    too_long: int = 0
    _seen: set[str] = field(default_factory=set)

    def add(self, request: Request, requests: Requests) -> None:
        """Count one ask; a prompt that came before is sent once."""
        spec = request.ask.question.spec
        missing = requests.missing(request)
        for table in (self.requests, self.samples, self.prompt_tokens, self.stored):
            table.setdefault(spec.name, 0)
        self.stored[spec.name] += len(request.keys) - len(missing)
        missing = [key for key in missing if key not in self._seen]
        self._seen.update(missing)
        if request.error or not missing:
            self.too_long += bool(request.error)
            return
        most = getattr(requests.teachers[spec.teacher], "samples_per_request", 1)
        calls = -(-len(missing) // most)
        self.requests[spec.name] += calls
        self.samples[spec.name] += len(missing)
        self.prompt_tokens[spec.name] += calls * requests.tokens.count_prompt(request.prompt)

    def total(self) -> int:
        """Requests of all questions."""
        return sum(self.requests.values())

    def merge(self, other: Plan) -> None:
        """Add a plan about other questions."""
        for table, more in (
            (self.requests, other.requests),
            (self.samples, other.samples),
            (self.prompt_tokens, other.prompt_tokens),
            (self.stored, other.stored),
        ):
            table.update(more)
        self.too_long += other.too_long


def plan(units: Iterable[Unit], questions: Sequence[Question], requests: Requests) -> Plan:
    """Count what a run would send, by walking it with stand-in answers where none is stored.

    Exact while answers can be read and servers return as many samples as they are asked for:
    questions about what another one left out do not depend on what it said, only on how many
    documents it may name. A question whose predecessor cannot be read is not asked.
    """
    planned = Plan()
    for unit in units:
        going = walk(unit, questions)
        try:
            asks = next(going)
            while True:
                asks = going.send([_stand_in(a, planned, requests) for a in asks])
        except StopIteration:
            continue
    return planned


def _stand_in(ask: Ask, planned: Plan, requests: Requests) -> list[Answer]:
    request = requests.of(ask)
    planned.add(request, requests)
    answers = []
    for key in request.keys:
        if key in requests.store or requests.store.failed(key):
            answers.append(requests.answer(request, key))
            continue
        outcome = NO_ANSWER if request.error else copy(ask.view, "scores")
        answers.append(Answer(view=ask.view, outcome=outcome, completion=None, key=key))
    return answers


def facts(planned: Plan, questions: Sequence[Question], requests: Requests) -> list[dict[str, Any]]:
    """The estimate as table rows: calls, tokens and money, at most and (once known) about."""
    rows = []
    for question in questions:
        spec = question.spec
        name, price = spec.name, requests.specs[spec.teacher].price
        samples = planned.samples.get(name, 0)
        tokens_in = planned.prompt_tokens.get(name, 0)
        mean = requests.store.mean_tokens(name)
        row: dict[str, Any] = {
            "question": name,
            "teacher": spec.teacher,
            "requests": planned.requests.get(name, 0),
            "samples": samples,
            "stored": planned.stored.get(name, 0),
            "tokens in": tokens_in,
            "tokens out at most": samples * spec.max_tokens,
            "cost at most": round(cost(price, tokens_in, samples * spec.max_tokens), 6),
        }
        if mean is not None:
            row["tokens out about"] = round(samples * mean)
            row["cost about"] = round(cost(price, tokens_in, samples * mean), 6)
        rows.append(row)
    return rows
