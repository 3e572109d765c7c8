"""The better one of two: a label counts, a sentence about both does not, < means the second."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.labels import alphabetic, relabel
from rank_rl.records import Candidate, Order, Query, Scores, View, numbered
from rank_rl.specs import FormatSpec


def view(count: int = 2) -> View:
    """Documents a, b … shown as [1], [2] …; their first-stage order is the reverse."""
    docs = [Candidate(docid="abc"[i], text=f"text {i}", rank=count - i) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def make(mode: str = "answer", hint: str = "none", **params: object) -> formats.Format:
    fields = {"name": "pair", "mode": mode, "first_stage_hint": hint, "params": params}
    return formats.make(FormatSpec.model_validate(fields))


def read(text: str, mode: str = "answer", **params: object):
    outcome = make(mode, **params).parse(text, view())
    said = None
    if isinstance(outcome.answer, Order):
        said = "".join(outcome.answer.docids)
    elif isinstance(outcome.answer, Scores):
        assert set(outcome.answer.values.values()) == {1.0}
        said = "=".join(sorted(outcome.answer.values))
    return outcome.status, said, set(outcome.issues)


@pytest.mark.parametrize(("text", "said"), [("[2]", "ba"), (" [1]\n", "ab")])
def test_a_label_is_ok(text, said):
    assert read(text) == ("ok", said, set())
    assert read(text, ties=True) == ("ok", said, set())


@pytest.mark.parametrize(
    ("text", "said", "issues"),
    [
        ("2", "ba", {"bad_choice"}),
        ("2.", "ba", {"bad_choice"}),
        ("Passage [2]", "ba", {"bad_choice"}),
        ("Passage 2", "ba", {"bad_choice"}),
        ("**[2]**", "ba", {"bad_choice"}),
        ("Answer: [2]", "ba", {"bad_choice"}),
        ("The better passage is 2.", "ba", {"bad_choice"}),
        ("I prefer [2] because it names him", "ba", {"bad_choice"}),
        ("[2] > [1]", "ba", {"bad_choice"}),
        ("[1] < [2]", "ba", {"bad_choice"}),
        ("[1] > [2]", "ab", {"bad_choice"}),
        ("2 > 1", "ba", {"bad_choice"}),
        ("[2] > [1] because [1] is vague", "ba", {"bad_choice"}),
        ("[2] ＞ [1]", "ba", {"non_ascii", "bad_choice"}),
        ("[1] ＜ [2]", "ba", {"bad_choice"}),
        ("［２］", "ba", {"non_ascii"}),
        ("【2】", "ba", {"non_ascii"}),
        ("[2] [2]", "ba", {"bad_choice"}),
        ("[1] = [2]", "a=b", {"bad_choice", "tie"}),
    ],
)
def test_a_choice_that_can_be_read_is_repaired_and_says_why(text, said, issues):
    assert read(text) == ("repaired", said, issues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "both",
        "[1] and [2] are good",
        "[2] is better than [1]",
        "[1] > [2], or rather [2] > [1]",
        "[1] > [1]",
        "1 or 2",
        "I think 2 documents and then 1",
        "There are 2 reasons",
        "2,1",
        "[1, 2]",
    ],
)
def test_both_or_neither_is_no_choice(text):
    status, said, issues = read(text)
    assert (status, said) == ("failed", None)
    assert "no_choice" in issues


@pytest.mark.parametrize("text", ["[0]", "[3]", "3", "[-1]", "[0] > [1]", "Passage [3]"])
def test_a_foreign_label_is_no_choice(text):
    status, said, issues = read(text)
    assert (status, said) == ("failed", None)
    assert {"out_of_range", "no_choice"} <= issues


@pytest.mark.parametrize(
    ("text", "issues"),
    [
        ("[3]", {"out_of_range", "no_choice"}),
        (" [0]\n", {"out_of_range", "no_choice"}),
        ("3", {"bad_choice", "out_of_range", "no_choice"}),
        ("Passage [3]", {"bad_choice", "out_of_range", "no_choice"}),
    ],
)
def test_a_foreign_label_is_a_bad_choice_only_where_it_is_spelled_otherwise(text, issues):
    assert read(text) == ("failed", None, issues)


def test_a_tie_is_ok_where_it_is_allowed():
    assert read("[1] = [2]", ties=True) == ("ok", "a=b", set())
    assert read("[2] = [1]", ties=True) == ("repaired", "a=b", {"bad_choice"})
    assert read("1=2", ties=True) == ("repaired", "a=b", {"bad_choice"})
    prompt = make(ties=True).render(view()).messages[1]["content"]
    assert "write [1] = [2] instead" in prompt
    assert "instead" not in make().render(view()).messages[1]["content"]
    assert make(ties=True).label_texts(view()) == ("[1]", "[2]", "[1] = [2]")


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("<think>[1]? [1] > [2]</think><answer>[2]</answer>", "ok", "ba"),
        ("<think>[1]</think><answer></answer>", "failed", None),
        ("<think>so [1]</think>", "failed", None),
        ("<think>[1] > [2]", "failed", None),
        ("<think>x</think>[2]", "repaired", "ba"),
        ("<think>x</think>[2] it is", "failed", None),
        ("I think\n[2]", "repaired", "ba"),
        ("[1] is vague and so on", "failed", None),
        ("<answer>[1]</answer><answer>[2]</answer>", "repaired", "ba"),
        ("<think>x</think><answer>[2]</answer> not [1]", "repaired", "ba"),
    ],
)
def test_a_choice_is_never_read_from_the_reasoning(text, status, said):
    assert read(text, "reason")[:2] == (status, said)


def test_ideal_chooses_the_better_and_says_what_ties_are():
    assert make().ideal(view(), {"a": 1, "b": 3}) == "[2]"
    assert make().ideal(view(), {}) == "[1]"
    assert make(hint="rank").ideal(view(), {}) == "[2]"
    assert make(ties=True).ideal(view(), {"a": 1, "b": 1}) == "[1] = [2]"
    text = make("reason").ideal(view(), {"b": 1}, "says </think>")
    assert text == "<think>\nsays (/think)\n</think>\n<answer>[2]</answer>"
    assert make("reason").parse(text, view()).reasoning == "says (/think)"


def test_other_numbers_of_documents_are_refused():
    for count in (1, 3):
        with pytest.raises(RecipeError, match=rf"two documents, not {count}.*strategy pairs"):
            make().render(view(count))
        with pytest.raises(RecipeError, match="two documents"):
            make().ideal(view(count), {})
        assert make().parse("[1]", view(count)).as_order(view(count))[0] == "a"


def test_alphabetic_labels():
    shown = relabel(view(), alphabetic(2))
    assert make().parse("[B]", shown).status == "ok"
    assert make().parse("Passage B", shown).as_order(shown) == ("b", "a")
    assert make().parse("A < B", shown).as_order(shown) == ("b", "a")
    assert make().parse("no idea", shown).status == "failed"
    assert "[A] or [B]" in make().render(shown).messages[1]["content"]


def test_bad_parameters_are_refused():
    with pytest.raises(RecipeError, match=r"format\.params\.tie"):
        make(tie=True)
    with pytest.raises(RecipeError, match="prefill"):
        make(prefill="The")
