"""Sentences about what a reader of the table should not overlook, and none without a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rank_rl.bench import diagnosis
from rank_rl.bench.diagnosis import Facts
from rank_rl.bench.stats import Interval
from rank_rl.records import Candidate, Query, Ranking, RankingTask

FINE = Facts(
    metric="ndcg@10",
    mean=0.6,
    from_input=Interval(mean=0.1, low=0.05, high=0.15),
    from_baseline=0.1,
    random=0.3,
    spread=0.02,
    statuses={"ok": 98, "repaired": 0, "failed": 2},
    cuts={"documents": 10, "cut_documents": 4, "tokens_before": 100, "tokens_after": 80},
    judged={"10": 0.5},
    judged_input={"10": 0.55},
    diagnosis={
        "tied": 0.1,
        "input_tau": 0.4,
        "position": {"pull": {"mean": 0.05, "low": -0.01, "high": 0.1}},
    },
)


def share(value: float, n: int) -> dict[str, float]:
    """A row of top1_share: place 1 for a small share, place 2 for a large one."""
    return {"input_rank": 1 + (value > 0.5), "share": value, "chance": 0.05, "n": n}


def test_a_row_that_is_fine_has_no_warning():
    assert diagnosis.warnings(FINE) == []
    assert diagnosis.warnings(Facts(metric="map", mean=0.0)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"from_input": Interval(mean=-0.08, low=-0.12, high=-0.03)},
            "ndcg@10 is 0.080 below that of the input order (95 % CI of the difference -0.120 to",
        ),
        ({"mean": 0.25}, "ndcg@10 is 0.250, below the 0.300 of a random order"),
        ({"statuses": {"ok": 9, "failed": 3}}, "25% of 12 answers could not be read"),
        ({"diagnosis": {"input_tau": 0.97}}, "almost the input order (mean Kendall tau 0.97)"),
        ({"diagnosis": {"tied": 0.8}}, "80% of its scores are shared with another document"),
        (
            {"diagnosis": {"position": {"pull": {"mean": 0.4, "low": 0.3, "high": 0.5}}}},
            "rank 0.40 places later for each place they are shown further down (95 % CI 0.30",
        ),
        (
            {"diagnosis": {"position": {"pull": {"mean": -0.4, "low": -0.5, "high": -0.3}}}},
            "rank 0.40 places earlier",
        ),
        (
            {"diagnosis": {"position": {"top1_share": [share(0.06, 16), share(0.88, 16)]}}},
            "shown in place 2 comes out first in 88% of random input orders (5% by chance)",
        ),
        ({"judged": {"10": 0.3}}, "30% of its first 10 documents are judged, 55% of the input"),
        ({"judged": {"10": 0.1}, "judged_input": {}}, "only 10% of its first 10 documents"),
        (
            {"cuts": {**FINE.cuts, "tokens_after": 27}},
            "40% of the documents shown were cut, 27% of their tokens kept",
        ),
        ({"from_baseline": -0.01}, "between seeds (standard deviation 0.020) than from the base"),
    ],
)
def test_each_warning_names_its_number(change: dict[str, Any], told: str):
    (found,) = diagnosis.warnings(replace(FINE, **change))
    assert told in found


def test_limits():
    level = replace(FINE, from_input=Interval(mean=0.0, low=0.0, high=0.0))
    assert diagnosis.warnings(level, fall=0.0) == []
    slight = replace(FINE, from_input=Interval(mean=-0.04, low=-0.1, high=0.02))
    assert diagnosis.warnings(slight) == [] and len(diagnosis.warnings(slight, fall=0.03)) == 1
    wide = {"position": {"pull": {"mean": 0.4, "low": -0.1, "high": 0.9}}}
    assert diagnosis.warnings(replace(FINE, diagnosis=wide)) == []
    # One ranking of one query, and a place that two documents share.
    for rows in ([share(1.0, 1)], [{**share(0.55, 40), "chance": 0.5}]):
        position = {"position": {"top1_share": rows}}
        assert diagnosis.warnings(replace(FINE, diagnosis=position)) == []
    unknown = replace(FINE, judged={"5": None, "10": 0.1})
    assert "first 10" in diagnosis.warnings(unknown)[0]
    bad = replace(FINE, mean=0.1, from_input=Interval(mean=-0.3, low=-0.4, high=-0.2))
    assert ["input order" in w for w in diagnosis.warnings(bad)] == [True, False]


def test_how_near_rankings_are_to_their_input():
    documents = tuple(Candidate(docid=f"d{i}", text="t", rank=i + 1) for i in range(3))
    tasks = [RankingTask(query=Query(qid=q, text="?"), candidates=documents) for q in "abc"]
    tasks.append(RankingTask(query=Query(qid="alone", text="?"), candidates=documents[:1]))
    orders = {"a": ("d0", "d1", "d2"), "b": ("d2", "d1", "d0"), "alone": ("d0",)}
    found = {q: Ranking(qid=q, docids=d) for q, d in orders.items()}
    assert diagnosis.input_tau(found, tasks) == 0.0
    assert diagnosis.input_tau({"a": found["a"]}, tasks) == 1.0
    assert diagnosis.input_tau({}, tasks) is None
