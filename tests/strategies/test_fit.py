"""What a strategy refuses of a format is found before anything is asked, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from rank_rl import formats, strategies
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, StrategySpec
from rank_rl.strategies.fit import check_fit


def task(count: int) -> RankingTask:
    return RankingTask(
        query=Query(qid="q", text="who?"),
        candidates=tuple(Candidate(docid=f"d{i}", text="t", rank=i + 1) for i in range(count)),
    )


def check(fmt: tuple[str, dict[str, Any]], strategy: tuple[str, dict[str, Any]], **more: Any):
    name, params = fmt
    made = formats.make(FormatSpec(name=name, mode="answer", params=params))
    strategy_ = strategies.make(StrategySpec(name=strategy[0], params=strategy[1]))
    tasks = [task(n) for n in more.pop("sizes", (5,))]
    check_fit(tasks, strategy_, made, more.pop("readout", "decoded"), **more)


BEST, WORST = ("choice", {}), ("choice", {"pick": "worst"})
BY_TWO = ("by_score", {"size": 2})
ELIMINATION = {"name": "elimination"}


@pytest.mark.parametrize(
    ("fmt", "strategy", "words"),
    [
        (BEST, ("elimination", {}), "the format picks the best document"),
        (WORST, ("setwise", {"children": 2}), "the format picks the worst document"),
        (WORST, ("tournament", {"size": 2}), "the format picks the worst document"),
        (BEST, BY_TWO, "no scores to compare across views"),
        (("permutation", {}), BY_TWO, "no scores to compare across views"),
        (("pair_scores", {}), BY_TWO, "no scores to compare across views"),
        (("pair", {}), ("single", {}), "two documents, not 5"),
        (("pointwise", {}), ("sliding", {"window": 2, "step": 1}), "pointwise"),
        (BEST, ("repeated", {"strategy": ELIMINATION}), "the format picks the best document"),
        (WORST, ("refine", {"strategy": {"name": "setwise"}, "first": ELIMINATION}), "picks the w"),
    ],
)
def test_what_does_not_fit_is_refused(fmt, strategy, words):
    readout = "score" if fmt[0] == "pair_scores" else "decoded"
    with pytest.raises(RecipeError, match=words) as caught:
        check(fmt, strategy, readout=readout, where="bench.systems 'x'")
    assert str(caught.value).startswith("bench.systems 'x': ")


@pytest.mark.parametrize(
    ("fmt", "strategy", "readout"),
    [
        (BEST, ("setwise", {"children": 2}), "decoded"),
        (WORST, ("elimination", {}), "decoded"),
        (WORST, ("groups", {"size": 3}), "decoded"),
        (BEST, ("by_score", {"size": 5}), "decoded"),
        (("pair", {}), ("pairs", {}), "decoded"),
        (("pointwise", {}), ("by_score", {"size": 1}), "decoded"),
        (("scores", {}), BY_TWO, "decoded"),
        (("slots", {}), BY_TWO, "score"),
        (("cross_encoder", {}), BY_TWO, "score"),
        # Label log-probabilities are scores of all documents shown, whichever is picked.
        (BEST, ("elimination", {}), "score"),
        (WORST, ("setwise", {}), "score"),
        (BEST, BY_TWO, "score"),
    ],
)
def test_what_fits_passes(fmt, strategy, readout):
    check(fmt, strategy, readout=readout)


def test_the_task_with_most_candidates_decides():
    check(BEST, BY_TWO, sizes=(2, 1))
    check(BEST, BY_TWO, sizes=())
    with pytest.raises(RecipeError):
        check(BEST, BY_TWO, sizes=(2, 3, 1))
