"""Near-duplicates of queries: similarity, greedy removal, and the files that name queries."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rank_rl.errors import DataError
from rank_rl.teachers.overlap import Near, read_queries, remove_near

LONG = "why do the tides of the sea follow the course of the moon"


def near(*texts: str) -> Near:
    kept = Near()
    for number, text in enumerate(texts):
        kept.add(str(number), text)
    return kept


def test_equal_but_for_case_and_punctuation_is_one():
    assert near("other words", "What is a Tide?").nearest("what is a tide") == ("1", 1.0)


def test_long_texts_are_compared_by_three_grams():
    other, similarity = near("something else", LONG).nearest(LONG + " above us")
    assert other == "1"
    assert similarity == pytest.approx(11 / 13)
    shuffled = " ".join(sorted(LONG.split()))
    assert near(LONG).nearest(shuffled) == ("", 0.0)


def test_short_texts_are_compared_by_words_too():
    # 3-grams: 0 of 2 shared; words: 3 of 5.
    assert near("moon tide height today").nearest("moon tide strength today")[1] == pytest.approx(
        3 / 9
    )
    # A short and a long text, either way round: 1 of 11 3-grams, 3 of 10 words.
    for kept, asked in ((LONG, "of the moon"), ("of the moon", LONG)):
        assert near(kept).nearest(asked)[1] == pytest.approx(4 / (11 + len(set(LONG.split()))))


def test_the_first_kept_of_equals_wins_and_nothing_shared_is_nothing():
    assert near("red moon", "blue moon").nearest("green moon")[0] == "0"
    assert near("red moon").nearest("tides") == ("", 0.0)
    assert near().nearest("tides") == ("", 0.0)
    assert near("???").nearest("!!!") == ("", 0.0)


def test_removal_is_greedy_and_names_what_was_resembled():
    pairs = [("a", LONG), ("b", "tides at night"), ("c", LONG + " above"), ("d", "Tides at night.")]
    kept, removed = remove_near(pairs, 0.7)
    assert kept == pairs[:2]
    assert [(name, other) for name, other, _ in removed] == [("c", "a"), ("d", "b")]
    assert removed[1][2] == 1.0
    assert remove_near(pairs, 1.0)[0] == pairs[:3]


def test_texts_kept_from_elsewhere_count():
    kept, removed = remove_near([("a", LONG), ("b", "new text here")], 0.7, near(LONG))
    assert kept == [("b", "new text here")]
    assert removed == [("a", "0", 1.0)]


def test_thousands_take_seconds():
    names = [f"w{i}" for i in range(60)]
    pairs = [
        (str(i), " ".join(names[(i * k) % 60] for k in range(1, 9)) + f" the n{i % 1500}")
        for i in range(3000)
    ]
    began = time.perf_counter()
    kept, removed = remove_near(pairs, 0.9)
    assert len(kept) + len(removed) == 3000
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.jsonl", '{"_id": "q1", "text": "tides?"}\n{"_id": "q2", "text": "moon?"}\n'),
        (
            "tasks.jsonl",
            '{"qid": "q1", "query": "tides?", "candidates": [{"docid": "d", "text": "x"}]}\n'
            '{"qid": "q2", "query": "moon?", "candidates": []}\n',
        ),
        ("queries.tsv", "q1\ttides?\nq2\tmoon?\n"),
    ],
)
def test_queries_of_every_kind_of_file(tmp_path: Path, name: str, content: str):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    expected = [("q1", "tides?"), ("q2", "moon?")]
    assert read_queries(path) == expected
    if name == "queries.jsonl":
        assert read_queries(tmp_path) == expected


@pytest.mark.parametrize(
    "content", ["q1 tides\n", "q1\t\n", "", '{"_id": "q1"}\n', '{"text": "x"}\n']
)
def test_a_file_that_names_no_queries_is_an_error(tmp_path: Path, content: str):
    path = tmp_path / "queries.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"queries\.txt"):
        read_queries(path)
