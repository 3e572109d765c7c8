"""Fusion with the first stage, computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from strategy_tasks import docs, task_of

from rank_rl.errors import RecipeError
from rank_rl.records import Ranking, RankingTask
from rank_rl.strategies.fusion import METHODS, fuse


def scored(*scores: float | None) -> RankingTask:
    task = task_of(*[0] * len(scores))
    both = zip(task.candidates, scores, strict=True)
    return replace(task, candidates=tuple(replace(c, score=s) for c, s in both))


def ranked(*numbers: int, scores: tuple[float, ...] = ()) -> Ranking:
    return Ranking(qid="q", docids=docs(*numbers), scores=scores)


def test_reciprocal_ranks():
    fused = fuse(scored(9, 5, 1), ranked(3, 1, 2), "rrf")
    assert fused.docids == docs(1, 3, 2)
    hand = [(1 / 61 + 1 / 62) / 2, (1 / 63 + 1 / 61) / 2, (1 / 62 + 1 / 63) / 2]
    assert fused.scores == pytest.approx(hand)
    assert fused.qid == "q"


def test_scores_between_0_and_1():
    # First stage 1, 0.5, 0; reranker d3 1, d2 0.25, d1 0.
    fused = fuse(scored(30, 20, 10), ranked(3, 2, 1, scores=(5.0, 2.0, 1.0)), "min_max")
    assert fused.docids == docs(1, 3, 2)
    assert fused.scores == pytest.approx((0.5, 0.5, 0.375))
    mostly = fuse(scored(30, 20, 10), ranked(3, 2, 1, scores=(5.0, 2.0, 1.0)), "min_max", 0.8)
    assert mostly.docids == docs(3, 2, 1)
    assert mostly.scores == pytest.approx((0.8, 0.3, 0.2))


def test_scores_with_mean_0_and_deviation_1():
    # First stage: mean 2, deviation sqrt(2); reranker: mean 4, deviation 2 * sqrt(2).
    task = scored(4, 2, 1, 1)
    fused = fuse(task, ranked(2, 4, 1, 3, scores=(8.0, 4.0, 4.0, 0.0)), "z_score")
    first = [v / math.sqrt(1.5) for v in (2, 0, -1, -1)]
    second = [v / math.sqrt(8) for v in (0, 4, -4, 0)]
    hand = {d: (a + b) / 2 for d, a, b in zip(docs(1, 2, 3, 4), first, second, strict=True)}
    assert dict(zip(fused.docids, fused.scores, strict=True)) == pytest.approx(hand)
    assert fused.docids == docs(1, 2, 4, 3)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_0_and_1_are_one_side_alone(method):
    task, ranking = scored(3, 2, 1), ranked(2, 3, 1, scores=(0.9, 0.8, 0.1))
    assert fuse(task, ranking, method, 0).docids == docs(1, 2, 3)
    assert fuse(task, ranking, method, 1).docids == docs(2, 3, 1)


@pytest.mark.parametrize("method", ["min_max", "z_score"])
def test_without_scores_places_count(method):
    places = fuse(scored(3, 2, 1), ranked(2, 3, 1, scores=(3, 2, 1)), method, 0.4)
    assert fuse(scored(3, 2, 1), ranked(2, 3, 1), method, 0.4) == places
    assert fuse(scored(None, None, None), ranked(2, 3, 1), method, 0.4) == places
    assert fuse(scored(9, None, 4), ranked(2, 3, 1), method, 0.4) == places
    endless = ranked(2, 3, 1, scores=(math.inf, 0.0, 0.0))
    assert fuse(scored(3, 2, 1), endless, method, 0.4) == places


@pytest.mark.parametrize("method", ["min_max", "z_score"])
def test_equal_scores_say_nothing(method):
    fused = fuse(scored(7, 7, 7), ranked(3, 1, 2, scores=(1.0, 0.5, 0.0)), method)
    assert fused.docids == docs(3, 1, 2)
    both = fuse(scored(7, 7, 7), ranked(3, 1, 2, scores=(1.0, 1.0, 1.0)), method)
    assert (both.docids, both.scores) == (docs(1, 2, 3), (0.0, 0.0, 0.0))
    assert fuse(scored(7), ranked(1, scores=(2.0,)), method).scores == (0.0,)


@pytest.mark.parametrize("method", ["min_max", "z_score"])
def test_scores_of_any_size(method):
    huge = ranked(3, 2, 1, scores=(1e308, 0.0, -1e308))
    assert fuse(scored(3, 2, 1), huge, method, 0.9).docids == docs(3, 2, 1)


def test_ties_follow_the_first_stage():
    assert fuse(scored(2, 1), ranked(2, 1), "rrf").docids == docs(1, 2)


@pytest.mark.parametrize(
    ("method", "weight", "line"),
    [("sum", 0.5, "unknown method 'sum'"), ("rrf", 1.5, "weight is 1.5"), ("rrf", True, "is True")],
)
def test_mistakes(method, weight, line):
    with pytest.raises(RecipeError, match=line):
        fuse(scored(2, 1), ranked(2, 1), method, weight)


def test_rankings_of_other_documents_are_refused():
    with pytest.raises(ValueError, match="not a ranking of its documents"):
        fuse(scored(2, 1), ranked(2, 3), "rrf")
