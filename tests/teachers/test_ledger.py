"""Money and limits: what requests cost, and that no limit is ever passed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from rank_rl.generation.calls import Reply, Sampling
from rank_rl.models.counting import token_counter
from rank_rl.records import Completion, Prompt
from rank_rl.specs import PriceSpec, TeacherSpec
from rank_rl.teachers.ledger import Budget, LimitReached, Meter, cost, ledger, most_tokens
from rank_rl.teachers.store import Asked, Store

TEACHER = TeacherSpec(name="endpoint", model="m", price=PriceSpec(input=2.0, output=10.0))


def asked(*keys: str) -> Asked:
    return Asked(keys=keys, teacher="main", question="list", unit="q1")


def chat(*contents: str, prefill: str = "") -> Prompt:
    roles = ("system", "user", "assistant")
    messages = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))
    return Prompt(messages=messages, prefill=prefill)


def test_cost_is_the_price_of_a_million_tokens() -> None:
    assert cost(PriceSpec(input=2.0, output=10.0), 1_000_000, 0) == 2.0
    assert cost(PriceSpec(input=2.0, output=10.0), 500_000, 100_000) == 2.0
    assert cost(PriceSpec(), 10**9, 10**9) == 0.0


def texts() -> list[str]:
    draw = random.Random(1)
    odd = [
        "",
        " ",
        "\n\n\n",
        "🙂" * 30,
        "漢字かな交じり文",
        "a\u0301" * 20,
        "\x01\x02\x7f",
        "<|im_end|>" * 9,
    ]
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x400, 0x4FF), (0x4E00, 0x9FFF), (0x1F300, 0x1F5FF)]
    drawn = [
        "".join(chr(draw.randint(*draw.choice(blocks))) for _ in range(draw.randint(1, 200)))
        for _ in range(200)
    ]
    return ["The river runs through the old town.", *odd, *drawn]  # fmt: skip


def test_most_tokens_is_never_below_the_real_number(tiny_model_dir: Path) -> None:
    tokens, _ = token_counter(str(tiny_model_dir))
    for text in texts():
        for prompt in (chat(text), chat("sys", text), chat(text, text, text, prefill=text)):
            assert most_tokens(prompt) >= tokens.count_prompt(prompt), prompt


def spend(budget: Budget, sizes: list[tuple[float, float]]) -> tuple[list[float], list[str]]:
    """Run requests of (most, actual) at once; what they cost, and what stopped the others."""
    paid: list[float] = []
    stops: list[str] = []

    async def one(number: int, most: float, actual: float) -> None:
        try:
            await budget.reserve(most)
        except LimitReached as stop:
            stops.append(stop.line())
            assert number >= 0
            return
        assert budget.max_cost is None or budget.spent + budget.reserved <= budget.max_cost + 1e-9
        assert budget.max_requests is None or budget.requests <= budget.max_requests
        for _ in range(number % 5 + 1):
            await asyncio.sleep(0)
        paid.append(actual)
        budget.release(most, actual)

    async def everything() -> None:
        await asyncio.gather(*(one(i, *size) for i, size in enumerate(sizes)))

    asyncio.run(asyncio.wait_for(everything(), 20))
    return paid, stops


def test_without_limits_everything_goes() -> None:
    paid, stops = spend(Budget(), [(5.0, 1.0)] * 300)
    assert (len(paid), stops) == (300, [])


def test_max_requests_is_met_exactly() -> None:
    budget = Budget(max_requests=37, requests=7)
    paid, stops = spend(budget, [(1.0, 1.0)] * 200)
    assert len(paid) == 30
    assert len(stops) == 170
    assert len(set(stops)) == 1
    assert "max_requests 37 is reached" in stops[0] and "raise the limit to go on" in stops[0]
    assert budget.requests == 37


def test_no_request_where_none_is_allowed() -> None:
    assert spend(Budget(max_requests=0), [(1.0, 1.0)])[0] == []
    assert spend(Budget(max_cost=0.0), [(1.0, 1.0)])[0] == []


def test_what_costs_nothing_is_not_stopped_by_max_cost() -> None:
    assert len(spend(Budget(max_cost=0.0), [(0.0, 0.0)] * 50)[0]) == 50


def test_max_cost_is_never_passed_and_nearly_used_up() -> None:
    draw = random.Random(3)
    sizes = [(most, draw.uniform(0, most)) for most in (draw.uniform(0.1, 1) for _ in range(400))]
    budget = Budget(max_cost=20.0, spent=2.0)
    paid, stops = spend(budget, sizes)
    assert stops
    assert budget.spent == pytest.approx(2.0 + sum(paid))
    # It stops when the next one might not fit, not earlier.
    assert 19.0 < budget.spent <= 20.0
    assert budget.in_flight == 0
    assert budget.reserved == pytest.approx(0.0)
    assert "which would pass max_cost 20" in stops[0]


def test_near_the_limit_a_request_waits_for_those_in_flight() -> None:
    budget = Budget(max_cost=1.0)
    events: list[str] = []

    async def first() -> None:
        await budget.reserve(0.8)
        events.append("first goes")
        await asyncio.sleep(0.02)
        events.append("first comes back")
        budget.release(0.8, 0.1)

    async def second() -> None:
        await asyncio.sleep(0.005)
        await budget.reserve(0.8)  # fits only once the first turned out cheap
        events.append("second goes")
        budget.release(0.8, 0.3)

    async def both() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(asyncio.wait_for(both(), 5))
    assert events == ["first goes", "first comes back", "second goes"]
    assert budget.spent == pytest.approx(0.4)


def test_it_stops_only_when_nothing_is_in_flight() -> None:
    budget = Budget(max_cost=1.0)
    events: list[str] = []

    async def first() -> None:
        await budget.reserve(0.9)
        await asyncio.sleep(0.02)
        events.append("first comes back")
        budget.release(0.9, 0.9)

    async def second() -> None:
        await asyncio.sleep(0.005)
        with pytest.raises(LimitReached, match=r"may cost 0.500000, .* max_cost 1 \(0.900000 spe"):
            await budget.reserve(0.5)
        events.append("second is stopped")
        with pytest.raises(LimitReached):  # and nothing goes after that, however small
            await budget.reserve(0.0)

    async def both() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(asyncio.wait_for(both(), 5))
    assert events == ["first comes back", "second is stopped"]


def test_a_meter_writes_attempts_and_what_they_cost(tmp_path: Path) -> None:
    store, budget = Store(tmp_path), Budget(max_cost=1.0)
    prompt = chat("hello")
    meter = Meter(store, budget, asked("k1", "k2"), TEACHER).bound(prompt, Sampling(max_tokens=100))
    assert meter.most == pytest.approx((most_tokens(prompt) * 2 + 200 * 10) / 1e6)

    async def attempts() -> None:
        meter.after(await meter.before(), None, "timeout")
        ticket = await meter.before()
        assert budget.reserved == meter.most
        texts = (Completion(text="a"), Completion(text="b"))
        got = Reply(completions=texts, prompt_tokens=1000, completion_tokens=50)
        meter.after(ticket, got, "")

    asyncio.run(attempts())
    assert budget.spent == pytest.approx(0.0025)
    assert (budget.requests, budget.in_flight, budget.reserved) == (2, 0, 0.0)
    store.begin(asked("k3"))
    found = ledger(store, {"main": TEACHER}, "EUR")
    assert found["teachers"]["main"] == {
        "requests": 3,
        "succeeded": 1,
        "interrupted": 1,
        "failed_attempts": {"timeout": 1},
        "tokens_in": 1000,
        "tokens_out": 50,
        "cost": 0.0025,
    }
    total = {k: found[k] for k in ("requests", "succeeded", "interrupted", "failed_attempts")}
    assert total == {"requests": 3, "succeeded": 1, "interrupted": 1, "failed_attempts": 1}
    assert (found["cost"], found["currency"], found["given_up"]) == (0.0025, "EUR", 0)


def test_a_ledger_of_one_process_leaves_out_the_others(tmp_path: Path) -> None:
    first, second = Store(tmp_path, 0), Store(tmp_path, 1)
    for store, key in ((first, "k1"), (second, "k2")):
        got = Reply(completions=(Completion(text="a"),), prompt_tokens=10, completion_tokens=1)
        store.end(store.begin(asked(key)), asked(key), got, "")
    first.refresh()
    teachers = {"main": TEACHER}
    assert ledger(first, teachers, "USD")["requests"] == 2
    assert ledger(first, teachers, "USD", all_processes=False)["requests"] == 1
