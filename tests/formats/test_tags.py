"""Splitting completions into reasoning and answer: prefills, repeated blocks, stray tags."""

from __future__ import annotations

import pytest

from rank_rl.formats.tags import harmless, split


def test_right_tags_have_no_issue_and_keep_the_offset_of_the_answer():
    text = "<think>\nbecause\n</think>\n<answer>[2] > [1]</answer>"
    found = split(text)
    assert (found.reasoning, found.answer, found.issues) == ("because", "[2] > [1]", ())
    assert found.marked and text[found.start :].startswith("[2] > [1]")


@pytest.mark.parametrize("prefill", ["<think>\n", "<think>", "<thi", "<think>\nfirst", ""])
def test_a_prefilled_tag_counts_as_part_of_the_text(prefill):
    whole = "<think>\nfirst, because</think><answer>[1]</answer>"
    found = split(whole[len(prefill) :], prefill)
    assert found.issues == () and found.answer == "[1]"
    assert found.reasoning == "first, because"


@pytest.mark.parametrize(
    ("text", "answer", "issues"),
    [
        ("[1] > [2]", "[1] > [2]", {"no_think", "no_answer_tag"}),
        ("<answer>x</answer>", "x", {"no_think"}),
        ("<think>a</think>x", "x", {"no_answer_tag"}),
        ("a</think><answer>x</answer>", "x", {"no_think_open"}),
        ("<think>a</think><answer>x", "x", {"truncated"}),
        ("<think>a", "", {"no_think_close", "no_answer_tag", "truncated"}),
        ("<think>a</think><answer>x</answer> so", "x", {"trailing_text"}),
        ("ok <think>a</think><answer>x</answer>", "x", {"leading_text"}),
        ("<think>a</think> so <answer>x</answer>", "x", {"text_between"}),
        ("<think>a</think><answer>x</answer><answer>y</answer>", "y", {"second_answer"}),
        ("<think>a</think><answer>x</answer><answer>y", "x", {"second_answer", "truncated"}),
        ("<Think>a</think>< answer >x</answer>", "x", {"tag_spelling"}),
        ("<think>a</think><think>b</think><answer>x</answer>", "x", {"repeated_think"}),
        ("<answer>x</answer><think>a</think>", "x", {"stray_tag"}),
    ],
)
def test_every_departure_is_named(text, answer, issues):
    found = split(text)
    assert (found.answer, set(found.issues)) == (answer, issues)


@pytest.mark.parametrize(
    "text",
    [
        "<think>I could write <answer>[3]</answer> but</think>",
        "<think>The form is <answer>[3]</answer>, so I write",
        "I could write <answer>[3]</answer> but</think>",
        "<think>a <think>b</think> <answer>[3]</answer> so</think>",
        "<think>I write <answer>[3] > ",
    ],
)
def test_an_answer_block_inside_the_reasoning_is_not_the_answer(text):
    found = split(text)
    assert "[3]" not in found.answer and not found.marked
    assert "[3]" in found.reasoning


def test_a_block_quoted_in_the_reasoning_does_not_hide_the_answer_after_it():
    found = split("<think>e.g. <answer>[3]</answer></think><answer>[1]</answer>")
    assert found.answer == "[1]" and found.issues == ("second_answer",)
    assert found.reasoning == "e.g. <answer>[3]</answer>"


def test_an_unclosed_reasoning_yields_to_a_complete_answer_at_the_very_end():
    found = split("<think>because <answer>[1] > [2]</answer>\n")
    assert (found.answer, found.reasoning) == ("[1] > [2]", "because")
    assert found.issues == ("no_think_close",)


def test_a_reasoning_inside_the_answer_block_is_not_read_as_answer():
    found = split("<think>a</think><answer><think>[3]</think>[1]</answer>")
    assert "[3]" not in found.answer


def test_odd_letters_that_fold_to_tag_letters_are_no_tags():
    assert split("<thınk>a</thınk><anſwer>x</anſwer>").issues == ("no_think", "no_answer_tag")


def test_harmless_writes_tags_in_round_brackets():
    assert harmless("a </think> <Answer>") == "a (/think) (Answer)"
