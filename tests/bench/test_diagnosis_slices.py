"""Queries by type and length, and who wins where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rank_rl.bench import diagnosis
from rank_rl.records import Candidate, Query, RankingTask


def task(qid: str, text: str = "who?", **metadata: Any) -> RankingTask:
    query = Query(qid=qid, text=text, metadata=metadata)
    return RankingTask(query=query, candidates=(Candidate(docid="d", text="t"),))


def types(*tasks: RankingTask) -> list[str]:
    return [found["type"] for found in diagnosis.slices(tasks).values()]


def test_types_come_from_metadata_or_from_hops():
    assert types(task("a", type="who "), task("b", type="who"), task("c")) == ["who", "who", ""]
    # The first key that any query has counts, as long as it sorts queries into kinds.
    assert types(task("a", category="x", type=3), task("b", category="x")) == ["x", "x"]
    unique = [task(str(i), type=f"text {i}", domain="law" if i else "art") for i in range(3)]
    assert types(*unique) == ["art", "law", "law"]
    hops = [task("2hop__1_2"), task("3hop1__9"), task("3hop2__8"), task("hop")]
    assert types(*hops) == ["2hop", "3hop", "3hop", ""]
    assert types(task("a"), task("b", topic=["x"])) == ["", ""]
    assert diagnosis.slices([]) == {}


def test_lengths_are_thirds_by_words():
    tasks = [task(str(i), "w " * i) for i in range(1, 10)]
    found = [s["length"] for s in diagnosis.slices(tasks).values()]
    assert found == ["short"] * 3 + ["medium"] * 3 + ["long"] * 3
    level = [task(str(i), "two words") for i in range(4)]
    assert {s["length"] for s in diagnosis.slices(level).values()} == {"medium"}
    # Signs stand for words where nothing separates words; what an apostrophe joins is one.
    mixed = [task("a", "谁是他的父亲"), task("b", "who's there"), task("c", "who is it")]
    found = [s["length"] for s in diagnosis.slices(mixed).values()]
    assert found == ["long", "short", "medium"]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_longer_queries_are_never_in_a_shorter_slice(lengths):
    tasks = [task(str(i), "w " * n) for i, n in enumerate(lengths)]
    order = {"short": 0, "medium": 1, "long": 2}
    found = [order[s["length"]] for s in diagnosis.slices(tasks).values()]
    for a, first in zip(lengths, found, strict=True):
        for b, second in zip(lengths, found, strict=True):
            assert not a < b or first <= second
            assert a != b or first == second
    if len(set(lengths)) == len(lengths) and len(lengths) % 3 == 0:
        assert [found.count(i) for i in range(3)] == [len(lengths) // 3] * 3


def test_wins_ties_and_losses():
    system = {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.9, "only here": 1.0}
    baseline = {"a": 0.2, "b": 0.4 + 1e-12, "c": 0.7, "d": 0.5, "only there": 1.0}
    kinds = {
        "a": {"type": "x", "length": "short"},
        "b": {"type": "x", "length": "long"},
        "c": {"type": "", "length": "long"},
        # d was left out when queries were sliced
    }
    found = diagnosis.wins(system, baseline, kinds, name="bm25")
    assert (found["wins"], found["ties"], found["losses"]) == (2, 1, 1)
    assert found["baseline"] == "bm25"
    assert found["difference"] == pytest.approx((0.3 - 0.4 + 0.4) / 4)
    (own,) = found["by_type"]
    assert own == {
        "slice": "x",
        "n": 2,
        "wins": 1,
        "ties": 1,
        "losses": 0,
        "difference": pytest.approx(0.15),
        "small": True,
    }
    assert [(r["slice"], r["n"]) for r in found["by_length"]] == [("short", 1), ("long", 2)]
    json.dumps(found)


def test_slices_of_many_queries_are_not_small():
    values = {str(i): float(i) for i in range(20)}
    kinds = {q: {"type": "x" if q != "0" else "y", "length": "medium"} for q in values}
    found = diagnosis.wins(values, dict.fromkeys(values, 5.0), kinds)
    assert [r["small"] for r in found["by_length"]] == [False]
    assert [r["small"] for r in found["by_type"]] == [True, True]
    assert diagnosis.wins({}, {}, {})["difference"] == 0.0
