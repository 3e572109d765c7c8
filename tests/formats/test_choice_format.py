"""The best or the worst document: one label counts, several do not, and never the last by luck."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.labels import alphabetic, relabel
from rank_rl.records import Candidate, Pick, Query, View, numbered
from rank_rl.specs import FormatSpec


def view(count: int = 3) -> View:
    """Documents a, b … shown as [1], [2] …; their first-stage order is the reverse."""
    docs = [Candidate(docid="abcd"[i], text=f"text {i}", rank=count - i) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def make(mode: str = "answer", hint: str = "none", wording: str = "default", **params: object):
    fields = {"name": "choice", "mode": mode, "wording": wording, "first_stage_hint": hint}
    return formats.make(FormatSpec.model_validate({**fields, "params": params}))


def read(text: str, mode: str = "answer", **params: object):
    outcome = make(mode, **params).parse(text, view())
    said = None
    if outcome.answer is not None:
        assert isinstance(outcome.answer, Pick)
        said = outcome.answer.docid
    return outcome.status, said, set(outcome.issues)


@pytest.mark.parametrize(("text", "said"), [("[2]", "b"), (" [1]\n", "a"), ("[3]", "c")])
def test_a_label_is_ok(text, said):
    assert read(text) == ("ok", said, set())
    assert read(text, pick="worst") == ("ok", said, set())


def test_best_and_worst_are_told_apart():
    assert make().parse("[2]", view()).answer == Pick(docid="b")
    outcome = make(pick="worst").parse("[2]", view())
    assert outcome.answer == Pick(docid="b", worst=True)
    assert outcome.as_order(view()) == ("c", "a", "b")


@pytest.mark.parametrize(
    ("text", "said", "issues"),
    [
        ("2", "b", {"bad_choice"}),
        ("2.", "b", {"bad_choice"}),
        ("Passage [2]", "b", {"bad_choice"}),
        ("**[2]**", "b", {"bad_choice"}),
        ("Answer: [2]", "b", {"bad_choice"}),
        ("The best passage is 2.", "b", {"bad_choice"}),
        ("The most relevant document is 3", "c", {"bad_choice"}),
        ("I choose [2] because it names him", "b", {"bad_choice"}),
        ("[2] [2]", "b", {"bad_choice"}),
        ("［2］", "b", {"non_ascii"}),
        ("【2】", "b", {"non_ascii"}),
        ("[٢]", "b", {"non_ascii"}),
    ],
)
def test_a_choice_that_can_be_read_is_repaired_and_says_why(text, said, issues):
    assert read(text) == ("repaired", said, issues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all of them",
        "[1] and [2]",
        "[2] > [1] > [3]",
        "[1, 2]",
        "[3], not [1]",
        "1 or 2",
        "I think 3 documents and then 1",
        "The worst passage is 3",
        "There are 2 reasons",
    ],
)
def test_several_or_none_is_no_choice(text):
    assert read(text) == ("failed", None, {"no_choice"})


def test_the_other_extreme_is_no_answer_without_its_brackets():
    assert read("The worst passage is 3", pick="worst")[:2] == ("repaired", "c")
    assert read("The best passage is 3", pick="worst")[:2] == ("failed", None)


@pytest.mark.parametrize("text", ["[0]", "[4]", "4", "[-1]", "-1", "0", "Passage [9]"])
def test_a_foreign_label_is_no_choice_and_no_document_counted_from_the_end(text):
    for pick in ("best", "worst"):
        status, said, issues = read(text, pick=pick)
        assert (status, said) == ("failed", None)
        assert {"out_of_range", "no_choice"} <= issues


@pytest.mark.parametrize(
    ("text", "issues"),
    [
        ("[4]", {"out_of_range", "no_choice"}),
        (" [0]\n", {"out_of_range", "no_choice"}),
        ("4", {"bad_choice", "out_of_range", "no_choice"}),
        ("Passage [9]", {"bad_choice", "out_of_range", "no_choice"}),
        ("［9］", {"non_ascii", "out_of_range", "no_choice"}),
    ],
)
def test_a_foreign_label_is_a_bad_choice_only_where_it_is_spelled_otherwise(text, issues):
    assert read(text) == ("failed", None, issues)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("<think>[1]? No, [3].</think><answer>[2]</answer>", "ok", "b"),
        ("<think>[1]</think><answer></answer>", "failed", None),
        ("<think>so [1]</think>", "failed", None),
        ("<think>so\n[1]", "failed", None),
        ("<think>x</think>[2]", "repaired", "b"),
        ("<think>x</think>[2] it is", "failed", None),
        ("I think\n[2]", "repaired", "b"),
        ("[1] is vague and so on", "failed", None),
        ("<answer>[1]</answer><answer>[2]</answer>", "repaired", "b"),
        ("<think>x</think><answer>[2]</answer> not [1]", "repaired", "b"),
    ],
)
def test_a_choice_is_never_read_from_the_reasoning(text, status, said):
    assert read(text, "reason")[:2] == (status, said)


def test_ideal_picks_by_grade_and_ties_as_lists_break_them():
    grades = {"a": 1, "b": 3, "c": 0}
    assert make().ideal(view(), grades) == "[2]"
    assert make(pick="worst").ideal(view(), grades) == "[3]"
    tied = {"a": 1, "b": 1}
    assert make().ideal(view(), tied) == "[1]"
    assert make(hint="rank").ideal(view(), tied) == "[2]"
    assert make(pick="worst").ideal(view(4), tied) == "[4]"
    assert make(pick="worst", hint="rank").ideal(view(4), tied) == "[3]"
    text = make("reason", pick="worst").ideal(view(), grades, "says </think>")
    assert text == "<think>\nsays (/think)\n</think>\n<answer>[3]</answer>"


def test_the_label_stands_before_or_behind_its_document():
    user = make().render(view()).messages[1]["content"]
    assert "[1] text 0\n[2] text 1\n[3] text 2\n" in user
    user = make(labels="after", hint="rank").render(view()).messages[1]["content"]
    assert "(rank 3) text 0 [1]\n(rank 2) text 1 [2]\n(rank 1) text 2 [3]\n" in user


def test_the_prompt_says_which_one_is_asked_for():
    for mode in ("reason", "answer"):
        for wording, most, least in (
            ("default", "helps most", "helps least"),
            ("rank_r1", "most relevant", "least relevant"),
        ):
            best = make(mode, wording=wording).render(view()).messages
            worst = make(mode, wording=wording, pick="worst").render(view()).messages
            assert most in best[1]["content"] and least not in best[1]["content"]
            assert least in worst[1]["content"] and most not in worst[1]["content"]
    assert least in worst[0]["content"]


def test_the_choices_follow_what_is_prefilled():
    assert make().lead(view()) == "" and make().choices(view()) == ("[1]", "[2]", "[3]")
    prefilled = make(prefill="[")
    assert prefilled.lead(view()) == "[" and prefilled.choices(view()) == ("1]", "2]", "3]")
    assert make("reason").lead(view()) is None


def test_alphabetic_labels():
    shown = relabel(view(), alphabetic(3))
    assert make().parse("[B]", shown).status == "ok"
    assert make().parse("Passage B", shown).answer == Pick(docid="b")
    assert make().parse("no idea", shown).status == "failed"
    assert make().choices(shown) == ("[A]", "[B]", "[C]")


def test_bad_parameters_are_refused():
    with pytest.raises(RecipeError, match=r"format\.params\.pick"):
        make(pick="middle")
    with pytest.raises(RecipeError, match=r"format\.params\.label"):
        make(label="after")
    with pytest.raises(RecipeError, match="prefill"):
        make(prefill="The")
