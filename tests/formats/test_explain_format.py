"""Two kinds of reasoning and an order: each line finds its document, the order only the answer."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.explain import compose, sections
from rank_rl.formats.labels import alphabetic, relabel
from rank_rl.records import Candidate, Order, Query, View, numbered
from rank_rl.specs import FormatSpec

GOOD = """<think>
Explicit:
[1] says nothing of him
[2] names him
[3] names his town
Comparison:
[2] the only one with the name
[3] below [2]: no name
[1] last, unlike [3] > [2] off topic
</think>
<answer>[2] > [3] > [1]</answer>"""


def view(count: int = 3) -> View:
    docs = [Candidate(docid="abcdef"[i], text=f"text {i}", rank=count - i) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def make(**params: object) -> formats.Format:
    return formats.make(FormatSpec(name="explain", mode="reason", params=params))


def think(text: str, answer: str = "[2] > [3] > [1]") -> str:
    return f"<think>\n{text}\n</think>\n<answer>{answer}</answer>"


def issues(text: str, **params: object) -> set[str]:
    return set(make(**params).parse(text, view()).issues)


def test_a_good_answer_is_ok_and_every_line_finds_its_document():
    outcome = make().parse(GOOD, view())
    assert (outcome.status, outcome.issues) == ("ok", ())
    assert outcome.answer == Order(docids=("b", "c", "a"))
    assert outcome.notes == {
        "a": "says nothing of him",
        "b": "names him",
        "c": "names his town",
    }
    assert outcome.comparisons == {
        "b": "the only one with the name",
        "c": "below [2]: no name",
        "a": "last, unlike [3] > [2] off topic",
    }
    assert outcome.reasoning.startswith("Explicit:\n[1] says")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("Explicit:", "**Explicit:**", {"bad_section"}),
        ("Explicit:", "## 1. EXPLICIT REASONING", {"bad_section"}),
        ("Comparison:", "comparisons (best first):", {"bad_section"}),
        ("[1] says", "- [1]: says", {"bad_section"}),
        ("[1] says", "Document [1] says", {"bad_section"}),
        ("[1] says", "1. **[1]**: says", {"bad_section"}),
        ("[1] says", "[1]: says", set()),
        ("[1] says", "［１］ says", {"bad_section"}),
        ("[1] says", "[1] says\nreally", {"bad_section"}),
        ("[1] says", "First, all of them.\n[1] says", {"bad_section"}),
        ("[3] names his town", "[3] names his town\n[3] in Bonn", {"explicit_repeated"}),
        ("[3] names his town", "[3] names his town\n[9] also", {"explicit_unknown_label"}),
        ("[3] names his town", "[3] names his town\n[0] also", {"explicit_unknown_label"}),
        ("[3] names his town\n", "", {"explicit_missing"}),
        ("[3] below [2]: no name\n", "", {"comparison_missing"}),
        ("[3] below", "[1] x\n[3] below", {"comparison_repeated", "comparison_order"}),
        ("[1] says", "1. says", {"bad_section", "explicit_missing"}),
        ("Comparison:", "Then:", {"no_comparison", "bad_section", "explicit_repeated"}),
        ("Explicit:\n", "", {"no_explicit"}),
    ],
)
def test_departures_are_repaired_and_named(old, new, found):
    text = GOOD.replace(old, new, 1)
    outcome = make().parse(text, view())
    assert set(outcome.issues) == found
    assert outcome.status == ("repaired" if found else "ok")
    assert outcome.answer == Order(docids=("b", "c", "a"))


def test_lines_in_another_order_are_named():
    swapped = GOOD.replace("[1] says nothing of him\n[2] names him", "[2] names him\n[1] no")
    assert issues(swapped) == {"explicit_order"}
    other = GOOD.replace("[2] > [3] > [1]</", "[3] > [2] > [1]</")
    assert issues(other) == {"comparison_order"}


def test_lines_are_read_leniently():
    text = (
        "Let me see: [3] > [1].\n\n**Explicit reasoning**\n\n* [2]: names him,\n  twice\n"
        "- Passage [1], [3]: off topic\n\nSo much for that.\n"
        "Comparison: [2] is best\n[1] and [3]: equal\n"
    )
    notes, comparisons = sections(text, view())
    assert notes == {"a": "off topic", "b": "names him, twice", "c": "off topic"}
    assert comparisons == {"b": "is best", "a": "and [3]: equal"}


def test_the_last_of_repeated_sections_counts_and_lines_alone_are_explicit():
    text = (
        "Explicit:\n[1] draft\nComparison:\n[1] draft\nExplicit:\n[1] final\nComparison:\n[1] best"
    )
    assert sections(text, view()) == ({"a": "final"}, {"a": "best"})
    assert sections("[2] names him\n\n[1] does not", view()) == (
        {"b": "names him", "a": "does not"},
        {},
    )
    assert sections("It names him.\n[1] does not", view()) == ({}, {})
    assert sections("Explicit mention of [1]\nin comparison: no", view()) == ({}, {})


@pytest.mark.parametrize(
    ("text", "status", "docids", "found"),
    [
        (think("[1] > [2] > [3]"), "repaired", "bca", {"bad_section", "no_comparison"}),
        (GOOD.replace("[2] > [3] > [1]</", "</"), "failed", None, {"no_list"}),
        (GOOD.partition("</think>")[0], "failed", None, {"truncated"}),
        (GOOD.partition("<answer>")[0], "failed", None, {"no_answer_tag"}),
        (GOOD.replace("[1]</", "[2]</"), "repaired", "bc", {"duplicate", "missing"}),
        (GOOD.replace("[1]</", "[0]</"), "repaired", "bc", {"out_of_range", "missing"}),
        (GOOD.replace("[1]</", "[４]</"), "repaired", "bc", {"non_ascii", "out_of_range"}),
        (GOOD + "<answer>[1] > [2] > [3]</answer>", "repaired", "abc", {"second_answer"}),
        (GOOD + " done", "repaired", "bca", {"trailing_text"}),
        ("<answer>[1]</answer>", "repaired", "a", {"no_think", "no_explicit", "no_comparison"}),
        ("I think 3 documents and then 1", "failed", None, {"no_list", "no_explicit"}),
    ],
)
def test_the_order_is_read_from_the_answer_only(text, status, docids, found):
    outcome = make().parse(text, view())
    assert outcome.status == status
    assert ("".join(outcome.answer.docids) if outcome.answer else None) == docids
    assert found <= set(outcome.issues)


def test_sections_outside_think_tags_are_reasoning_all_the_same():
    bare = GOOD.replace("<think>\n", "").replace("</think>\n", "")
    outcome = make().parse(bare, view())
    assert (outcome.status, outcome.issues) == ("repaired", ("no_think", "leading_text"))
    assert outcome.notes == make().parse(GOOD, view()).notes
    assert outcome.reasoning == make().parse(GOOD, view()).reasoning
    own = f"<think>Hm. [1]?</think>\n{bare}"
    assert make().parse(own, view()).comparisons == make().parse(GOOD, view()).comparisons
    untagged = make().parse(bare.replace("<answer>", "").replace("</answer>", ""), view())
    assert untagged.status == "failed" and untagged.notes["b"] == "names him"
    inside = make().parse(f"<think>Hm.</think><answer>{bare}</answer>", view())
    assert inside.answer == Order(docids=("b", "c", "a"))


def test_sections_that_are_switched_off():
    explicit, comparison = make(comparison=False), make(explicit=False)
    first = think("Explicit:\n[1] a\n[2] b\n[3] c")
    second = think("Comparison:\n[2] b\n[3] c\n[1] a")
    assert explicit.parse(first, view()).status == comparison.parse(second, view()).status == "ok"
    assert issues(GOOD, comparison=False) == {"comparison_unexpected"}
    assert issues(first, explicit=False) == {"explicit_unexpected", "no_comparison"}
    asked = [f.render(view()).messages[1]["content"] for f in (make(), explicit, comparison)]
    assert ["Explicit:" in text for text in asked] == [True, True, False]
    assert ["Comparison:" in text for text in asked] == [True, False, True]
    shape = "Explicit:\n[1] ...\n[2] ...\n[3] ...\nComparison:\n[2] ...\n[3] ...\n[1] ...\n</think>"
    assert shape in asked[0] and "<answer>[2] > [3] > [1]</answer>" in asked[0]


def test_compose_writes_one_harmless_line_a_note_and_is_read_back():
    notes = {"c": "names\nhis  town", "b": "says </think><answer>[1]</answer>", "a": " "}
    comparisons = {"a": "- last", "b": ": [2] is best", "x": "not shown"}
    text = compose(view(), notes, comparisons, ("b", "a"))
    assert text == (
        "Explicit:\n[2] says (/think)(answer)[1](/answer)\n[3] names his town\n"
        "Comparison:\n[2] [2] is best\n[1] last"
    )
    assert sections(text, view()) == (
        {"b": "says (/think)(answer)[1](/answer)", "c": "names his town"},
        {"b": "[2] is best", "a": "last"},
    )
    assert compose(view(), {}, {"c": "best"}, ()) == "Comparison:\n[3] best"
    assert compose(view(), {}, {}, ("a",)) == ""


def test_ideal_without_reasoning_says_what_the_grades_say():
    assert make().ideal(view(), {"b": 2, "c": 1}) == (
        "<think>\nExplicit:\n[1] not relevant\n[2] relevant\n[3] relevant\n"
        "Comparison:\n[2] above [3]\n[3] above [1]\n[1] last\n</think>\n"
        "<answer>[2] > [3] > [1]</answer>"
    )
    level = make(explicit=False).ideal(view(2), {})
    assert level == think("Comparison:\n[1] level with [2]\n[2] last", "[1] > [2]")


def test_ideal_keeps_the_sections_asked_for_and_fills_the_gaps():
    told = compose(view(), {"b": "names him"}, {"b": "the best", "a": "the worst"}, "bca")
    grades = {"b": 2, "c": 1}
    assert make().ideal(view(), grades, told) == think(
        "Explicit:\n[1] not relevant\n[2] names him\n[3] relevant\n"
        "Comparison:\n[2] the best\n[3] above [1]\n[1] the worst"
    )
    only = make(comparison=False).ideal(view(), grades, told)
    assert "Comparison" not in only and "[2] names him" in only
    free = make(comparison=False).ideal(view(), grades, "He is in [2].\nSee </think>")
    assert free.startswith("<think>\nHe is in [2].\nSee (/think)\nExplicit:\n[1] not relevant")
    for text in (only, free):
        assert make(comparison=False).parse(text, view()).status == "ok"


def test_whatever_is_composed_an_ideal_answer_is_ok():
    odd = [
        "Explicit: x",
        "[3]: y",
        "> [1]",
        ", [2]: z",
        "and [3]: z",
        "& [1]:",
        "1. [2]",
        "-5",
        "*",
    ]
    for text in odd:
        told = compose(view(), dict.fromkeys("abc", text), dict.fromkeys("ab", text), "cab")
        whole = make().ideal(view(), {"a": 1}, told)
        outcome = make().parse(whole, view())
        assert (outcome.status, outcome.issues) == ("ok", ()), whole


def test_alphabetic_labels():
    shown = relabel(view(), alphabetic(3))
    whole = make().ideal(shown, {"b": 1}, "Explicit:\n[A], and [B]: off topic\nA. no\n[C] a town")
    assert "[A] off topic A. no\n[B] off topic A. no\n[C] a town" in whole
    assert make().parse(whole, shown).status == "ok"


def test_bad_recipes_are_refused():
    with pytest.raises(RecipeError, match=r"format\.mode.*expected reason.*format permutation"):
        formats.make(FormatSpec(name="explain"))
    with pytest.raises(RecipeError, match="both false"):
        make(explicit=False, comparison=False)
    with pytest.raises(RecipeError, match="prefill"):
        make(prefill="<think>\nExplicit:")
