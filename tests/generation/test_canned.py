"""Replayed answers."""

from __future__ import annotations

import pytest

from rank_rl import generation
from rank_rl.errors import RecipeError
from rank_rl.generation.canned import CannedGenerator
from rank_rl.records import Prompt


def ask(text: str) -> Prompt:
    return Prompt(messages=({"role": "system", "content": "s"}, {"role": "user", "content": text}))


def test_answers_in_turn_start_again():
    generator = CannedGenerator(["a", "b"])
    texts = [c.text for c in generator.generate([ask("1"), ask("2")])]
    texts += [c.text for c in generator.generate([ask("3")])]
    assert texts == ["a", "b", "a"]
    assert [p.messages[-1]["content"] for p in generator.asked] == ["1", "2", "3"]


def test_answers_by_prompt_and_an_unknown_prompt_fails_alone():
    seen: list[int] = []
    generator = CannedGenerator({"known": "yes"})
    found = generator.generate([ask("known"), ask("unknown")], progress=seen.append)
    assert [(c.text, c.finish) for c in found] == [("yes", "stop"), ("", "error")]
    assert seen == [1, 1]


def test_generators_by_name():
    assert isinstance(generation.make("canned", answers=["x"]), CannedGenerator)
    with pytest.raises(RecipeError, match="nearest: canned"):
        generation.make("caned")
