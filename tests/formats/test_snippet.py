"""Query-biased snippets: the nearest sentence first, nothing lost."""

from __future__ import annotations

from rank_rl.formats.snippet import content_words, query_first

TEXT = "He was born in Bonn. His father was Karl. Karl painted ships! He died old."


def test_the_nearest_sentence_comes_first_then_what_follows_then_what_precedes():
    assert query_first(TEXT, "Who painted the ships of Karl?") == (
        "Karl painted ships! He died old. He was born in Bonn. His father was Karl."
    )


def test_the_first_of_equally_near_sentences_counts():
    assert query_first(TEXT, "Who was Karl?").startswith("His father was Karl.")


def test_nothing_shared_or_nothing_to_choose_from_leaves_the_text():
    assert query_first(TEXT, "who was in the of") == TEXT
    assert query_first(TEXT, "quantum chromodynamics") == TEXT
    assert query_first("One sentence only", "sentence") == "One sentence only"
    assert query_first("", "sentence") == ""


def test_twice_changes_no_more():
    once = query_first(TEXT, "ships of Karl")
    assert query_first(once, "ships of Karl") == once


def test_function_words_do_not_count():
    assert content_words("Who is the father of Edward?") == {"father", "edward"}
