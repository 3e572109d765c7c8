"""Weights of a training curriculum, against values computed by hand."""

from __future__ import annotations

import math

import pytest

from rank_rl.data.curriculum import ease, sample_weights
from rank_rl.errors import DataError
from rank_rl.records import Candidate


def candidates(*scores: float | None) -> list[Candidate]:
    return [
        Candidate(docid=f"d{i}", text="t", rank=i, score=score) for i, score in enumerate(scores, 1)
    ]


def test_reciprocal_rank_weighs_relevant_and_other_documents_apart() -> None:
    given = candidates(None, None, None, None)
    weights = sample_weights("reciprocal_rank", given, {"d1", "d4"}, 0.0, 0.5)
    assert weights == pytest.approx([1, 1 / 2, 2 / 3, 1 / 4])


def test_weights_grow_to_one_at_the_end_of_the_curriculum() -> None:
    given = candidates(9.0, 4.0)
    # Halfway: D / 2 + 1 / 2; d1 is not relevant, so its D is 1 - 1.
    assert sample_weights("reciprocal_rank", given, {"d2"}, 0.25, 0.5) == [0.5, 0.75]
    assert sample_weights("reciprocal_rank", given, {"d2"}, 0.5, 0.5) == [1, 1]
    assert sample_weights("reciprocal_rank", given, {"d2"}, 0.9, 0.5) == [1, 1]


def test_normalised_scores_lie_between_the_least_and_the_best() -> None:
    weights = sample_weights("normalised_score", candidates(8.0, 5.0, 2.0, 0.0), {"d2"}, 0.0, 1.0)
    assert weights == pytest.approx([0, 0.625, 0.75, 1])
    assert ease("normalised_score", candidates(3.0, 3.0)) == [0.5, 0.5]


def test_density_is_the_distribution_function_of_a_kernel_density_estimate() -> None:
    # Two scores, 0 and 2: standard deviation sqrt(2), Scott's bandwidth sqrt(2) * 2^(-1/5).
    width = math.sqrt(2) * 2**-0.2
    above = 0.5 * (1 + math.erf(2 / (width * math.sqrt(2))))
    assert ease("density", candidates(2.0, 0.0)) == pytest.approx(
        [(0.5 + above) / 2, (0.5 + 1 - above) / 2]
    )
    assert ease("density", candidates(4.0)) == [0.5]
    # An outlier presses the other normalised scores together, not the others' places in density.
    outlier = candidates(1000.0, 3.0, 2.0, 1.0)
    assert ease("normalised_score", outlier)[1] < 0.01 < 0.3 < ease("density", outlier)[1]


def test_density_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = [12.5, 9.0, 8.75, 4.0, 1.5, 1.25]
    estimate = stats.gaussian_kde(scores)  # Scott's rule is its default
    expected = [estimate.integrate_box_1d(-math.inf, score) for score in scores]
    assert ease("density", candidates(*scores)) == pytest.approx(expected)


@pytest.mark.parametrize("heuristic", ["normalised_score", "density"])
def test_heuristics_of_scores_need_scores(heuristic: str) -> None:
    with pytest.raises(DataError, match="1 candidates of a query have no first-stage score"):
        ease(heuristic, candidates(3.0, None))
