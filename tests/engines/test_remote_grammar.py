"""Answers that keep to rules from a server: rounds of choices, over a real loopback server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai_server import Fixed, Server, ServerSettings

from rank_rl import Reranker, formats
from rank_rl.errors import BackendError, RecipeError
from rank_rl.formats.grammar import Fields, Listing
from rank_rl.generation.remote import remote_asker, remote_generator
from rank_rl.generation.remote_grammar import choice_prompt
from rank_rl.generation.remote_rounds import Fork, decode
from rank_rl.generation.ruled import Rules
from rank_rl.records import Candidate, Prompt, Query, RankingTask
from rank_rl.specs import FormatSpec, StrategySpec

pytest.importorskip("openai")
REASONS = {"name": "permutation", "mode": "reason"}


class Obedient(Server):
    """Keeps to choices as vLLM's server does, and takes the last one; thinks in a few words."""

    def _choice(self, body: dict[str, Any], sample: int) -> tuple[dict[str, Any], int]:
        said = body["messages"][-1]
        choices = body.get("structured_outputs", {}).get("choice")
        if choices is None:
            return super()._choice(body, sample)
        assert body["continue_final_message"] or said["role"] == "user"
        if said["role"] == "assistant":
            assert said["content"] == said["content"].rstrip()
        message = {"role": "assistant", "content": choices[-1]}
        assert len(choices[-1].encode()) < body["max_tokens"]
        return {"message": message, "finish_reason": "stop"}, 2


def task(count: int = 4, qid: str = "q") -> RankingTask:
    return RankingTask(
        query=Query(qid=qid, text="who?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"document {i}", rank=i + 1) for i in range(count)
        ),
    )


def reranker(server: Server, spec: dict[str, Any], rules: Rules, **settings: Any) -> Reranker:
    fmt = formats.make(FormatSpec(**spec))
    generator = remote_generator("tiny", base_url=server.url, retries=0, **settings)
    asker = remote_asker(fmt, generator, rules=rules)
    return Reranker(fmt=fmt, asker=asker, generator=generator)


def last(forks: Any) -> list[int]:
    return [len(fork.choices) - 1 for fork in forks]


def test_a_list_takes_one_round_a_place_and_only_where_there_is_a_choice():
    asked: list[list[Fork]] = []

    def choose(forks: Any) -> list[int]:
        asked.append(list(forks))
        return last(forks)

    three, two = Listing(labels=("1", "2", "3"), count=3), Listing(labels=("A", "B"), count=1)
    texts = decode([three, two], ["</answer>", ""], choose)
    assert texts == ["[3] > [2] > [1]</answer>", "[B]"]
    assert [[(f.index, f.text) for f in forks] for forks in asked] == [
        [(0, "["), (1, "[")],
        [(0, "[3] > [")],
    ]
    # What follows a choice is part of it, so that 1 is told from 10.
    assert asked[0][1].choices == ("A]", "B]") and asked[1][0].choices == ("1] > [", "2] > [")


def test_an_answer_whose_choice_could_not_be_made_is_none_and_the_others_go_on():
    grammars = [Fields(texts=("a ", " b ", ""), choices=("1", "2"))] * 2
    texts = decode(grammars, ["", ""], lambda forks: [None if f.index else 0 for f in forks])
    assert texts == ["a 1 b 1", None]


def test_white_space_that_a_template_would_strip_is_part_of_the_choices():
    fork = Fork(index=0, text='{"[1]": ', choices=("7, ", "8, "))
    prompt, texts = choice_prompt(Prompt(messages=(), prefill="[x"), "<answer>", fork)
    assert prompt.prefill == '<answer>{"[1]":' and texts == (" 7, ", " 8, ")


def test_a_constrained_list_is_ok_and_its_prompt_counts_once():
    with Obedient() as server:
        one = reranker(server, {"name": "permutation"}, Rules(constrained=True))
        results = one.rank_tasks([task(4, "a"), task(3, "b")])
        bodies = list(server.bodies)
    assert [r.ranking.docids for r in results] == [("d3", "d2", "d1", "d0"), ("d2", "d1", "d0")]
    assert [r.statuses for r in results] == [{"ok": 1, "repaired": 0, "failed": 0}] * 2
    assert [r.exchanges[0].completion.text for r in results] == [
        "[4] > [3] > [2] > [1]",
        "[3] > [2] > [1]",
    ]
    assert len(bodies) == 3 + 2 and [r.completion_tokens for r in results] == [6, 4]
    first = [b for b in bodies if b["messages"][-1]["content"] == "["]
    words = [len(json.dumps(b)) for b in first]
    assert len(first) == 2 and len(set(words)) == 2
    assert all(0 < r.prompt_tokens < 400 for r in results)
    assert results[0].calls == 1 and results[0].seconds > 0


def test_reasoning_is_closed_when_its_budget_is_spent_and_the_answer_follows():
    thinking = ServerSettings(answer=lambda messages, sample: "one two three four five six")
    with Obedient(thinking) as server:
        one = reranker(server, REASONS, Rules(thinking_budget=4))
        (result,) = one.rank_tasks([task(3)])
        bodies = list(server.bodies)
    (exchange,) = result.exchanges
    text = exchange.completion.text
    assert text == "<think>\none two three four\n</think>\n<answer>[3] > [2] > [1]</answer>"
    assert exchange.outcome.status == "ok" and result.ranking.docids == ("d2", "d1", "d0")
    assert bodies[0]["max_tokens"] == 4 and bodies[0]["stop"] == ["</think>", "<answer>"]
    assert bodies[0]["include_stop_str_in_output"] and "structured_outputs" not in bodies[0]
    assert result.completion_tokens == 4 + 2 + 2


def test_a_server_that_ignores_choices_stops_the_ranking_with_one_line():
    with Server() as server:
        one = reranker(server, {"name": "permutation"}, Rules(constrained=True))
        with pytest.raises(BackendError) as error:
            one.rank_tasks([task(3)])
    line = error.value.line()
    assert "none of the choices given" in line and "expected vLLM's server" in line
    assert "\n" not in line


def test_a_server_that_refuses_choices_stops_the_ranking_with_one_line():
    refused = Fixed(status=400, body={"error": {"message": "unknown field structured_outputs"}})
    with Server(ServerSettings(script=(refused,) * 9)) as server:
        one = reranker(server, {"name": "permutation"}, Rules(constrained=True))
        with pytest.raises(BackendError, match="refuses to keep to choices"):
            one.rank_tasks([task(3)])


def test_a_request_that_fails_is_one_failed_answer():
    with Obedient(ServerSettings(script=("", "error_500"))) as server:
        one = reranker(server, {"name": "permutation"}, Rules(constrained=True), concurrency=1)
        results = one.rank_tasks([task(3, "a"), task(4, "b")])
    assert [r.statuses["ok"] for r in results] == [1, 0]
    assert results[1].statuses["failed"] == 1 and results[1].ranking.docids == task(4).docids
    assert results[1].exchanges[0].outcome.issues == ("no_answer",)


def test_what_a_format_cannot_keep_to_is_refused_before_anything_is_asked():
    with Server() as server:
        with pytest.raises(RecipeError, match="nothing is thought before the answer"):
            reranker(server, {"name": "permutation"}, Rules(thinking_budget=5))
        first = {"name": "pointwise", "mode": "reason", "params": {"order": "label_first"}}
        with pytest.raises(RecipeError, match="has no grammar"):
            reranker(server, first, Rules(constrained=True))
        assert server.requests == 0


def test_identical_views_are_asked_once_and_counted():
    with Server() as server:
        fmt = FormatSpec(name="permutation")
        strategy = StrategySpec(name="single")
        one = Reranker.from_endpoint("tiny", base_url=server.url, format=fmt, strategy=strategy)
        first, again = one.rank_tasks([task(3, "a"), task(3, "b")])
        assert server.requests == 1
    assert first.ranking.docids == again.ranking.docids
    assert (first.calls, again.calls) == (1, 1) and first.prompt_tokens > 0
    assert (again.prompt_tokens, again.completion_tokens) == (0, 0)
    assert one.counters.views == 2 and one.counters.queries == 2
    assert one.repeats.repeated == 1
