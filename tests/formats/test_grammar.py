"""Grammars: whatever is chosen, the format reads the answer without a complaint."""

from __future__ import annotations

import random

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.base import with_reasoning
from rank_rl.formats.grammar import check_grammar
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import FormatSpec

VIEW = numbered(
    Query(qid="q", text="Who wrote Faust?"),
    [Candidate(docid=f"d{i}", text=f"Text {i} of it.", rank=i) for i in range(1, 13)],
)
PAIR = numbered(VIEW.query, VIEW.candidates[:2])
ONE = numbered(VIEW.query, VIEW.candidates[:1])
CASES = [
    (FormatSpec(name="permutation"), VIEW),
    (FormatSpec(name="permutation", params={"top": 3}), VIEW),
    (FormatSpec(name="permutation", params={"ties": True}), VIEW),
    (FormatSpec(name="scores"), VIEW),
    (FormatSpec(name="scores", params={"max": 3, "quote": 2}), VIEW),
    (FormatSpec(name="choice"), VIEW),
    (FormatSpec(name="choice", params={"pick": "worst"}), VIEW),
    (FormatSpec(name="pair", params={"ties": True}), PAIR),
    (FormatSpec(name="pointwise", params={"max": 10}, wording="words"), ONE),
]


def write(grammar, draw):
    """A text that the grammar allows, and the choices in it."""
    chosen: list[str] = []
    text = ""
    while True:
        step = grammar.next(chosen)
        text += step.literal
        if not step.choices:
            return text, chosen
        assert len(set(step.choices)) == len(step.choices)
        chosen.append(draw.choice(step.choices))
        text += chosen[-1]


@pytest.mark.parametrize("mode", ["answer", "reason"])
@pytest.mark.parametrize(("spec", "view"), CASES)
def test_whatever_is_chosen_is_read_as_ok(spec, view, mode):
    fmt = formats.make(spec.model_copy(update={"mode": mode}))
    draw = random.Random(7)
    for _ in range(20):
        answer, chosen = write(fmt.grammar(view), draw)
        outcome = fmt.parse(with_reasoning(mode, "Because.", answer), view)
        assert (outcome.status, outcome.issues) == ("ok", ()), answer
        if spec.name == "permutation":
            assert [view.label(d) for d in outcome.answer.docids] == chosen
        if spec.name == "scores":
            assert list(outcome.answer.values.values()) == [float(c) for c in chosen]


def test_an_explained_order_is_one():
    fmt = formats.make(FormatSpec(name="explain", mode="reason"))
    answer, chosen = write(fmt.grammar(VIEW), random.Random(1))
    outcome = fmt.parse(f"<think>\nfree\n</think>\n<answer>{answer}</answer>", VIEW)
    assert [VIEW.label(d) for d in outcome.answer.docids] == chosen


@pytest.mark.parametrize(
    "spec",
    [
        FormatSpec(name="slots"),
        FormatSpec(name="pointwise", mode="reason", params={"order": "label_first"}),
    ],
)
def test_formats_without_a_grammar_say_so(spec):
    with pytest.raises(RecipeError, match="has no grammar"):
        check_grammar(formats.make(spec), where="constrained")
