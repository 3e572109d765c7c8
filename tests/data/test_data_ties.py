"""The order of tied scores, against trec_eval itself (pytrec_eval)."""

from __future__ import annotations

import pytest
import pytrec_eval

from rank_rl.data.ties import evaluated_order


def by_trec_eval(scores: dict[str, float]) -> tuple[str, ...]:
    """The order that trec_eval gives, found by making each document the only relevant one."""
    places = {}
    for docid in scores:
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {docid: 1}}, {"recip_rank"})
        places[docid] = round(1 / evaluator.evaluate({"q": scores})["q"]["recip_rank"])
    return tuple(sorted(places, key=places.__getitem__))


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ({"a": 1.0, "b": 2.0, "c": 1.0}, "b c a"),
        (dict.fromkeys(["a", "Z", "9", "10", "é", "日", "\U0001f600", "\uffff"], 0.5), None),
        ({"b": 20.0, "a": 20.0 + 1e-9}, "b a"),  # equal in single precision …
        ({"b": 20.0, "a": 20.0 + 1e-5}, "a b"),  # … and not
        ({"b": 16777216.0, "a": 16777217.0}, "b a"),
        ({"b": 1e300, "a": 2e300, "c": -1e300, "d": -2e300}, "b a d c"),
        ({"b": 1e-300, "a": 2e-300}, "b a"),
        ({"a": 0.0, "b": -0.0}, "b a"),
        ({}, ""),
    ],
)
def test_scored_documents_stand_as_trec_eval_ranks_them(
    scores: dict[str, float], order: str | None
) -> None:
    found = evaluated_order(scores)
    assert found == by_trec_eval(scores)
    assert order is None or found == tuple(order.split())
