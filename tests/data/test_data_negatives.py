"""Negatives of pools: which are drawn as hard ones, from which depth, and which never."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rank_rl.data.sampling import sample_tasks, sample_views, within
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import SamplerSpec


def task(
    grades: dict[str, int] | None, count: int = 12, texts: dict[str, str] | None = None
) -> RankingTask:
    return RankingTask(
        query=Query(qid="q", text="?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=(texts or {}).get(f"d{i}", f"text {i}"), rank=i)
            for i in range(1, count + 1)
        ),
        grades=grades,
    )


def drawn(given: RankingTask, scores: dict[str, float] | None = None, **spec: object) -> list[set]:
    made = SamplerSpec.model_validate({"name": "pool", "per_query": 12, **spec})
    views, report = sample_views(given, made, seed=0, scores=scores)
    assert len(views) == report.views
    return [set(view.docids) for view in views]


def test_hard_negatives_are_the_best_ranked_that_are_not_relevant() -> None:
    found = drawn(task({"d2": 1, "d9": 1, "d3": 0}), size=5, negatives="hard")
    assert found == [{"d2", "d9", "d1", "d3", "d4"}] * 12


def test_mixed_negatives_are_half_hard_and_half_random() -> None:
    found = drawn(task({"d2": 1}), size=5, negatives="mixed")
    assert all({"d2", "d1", "d3"} <= docids and len(docids) == 5 for docids in found)
    assert len({frozenset(docids) for docids in found}) > 5


def test_given_scores_say_which_negatives_are_hard() -> None:
    scores = {"d1": 5.0, "d2": 9.0, "d7": 3.0, "d11": 4.0, "d5": 3.0}
    mined = {"negatives": "mined", "refresh": 1}
    assert drawn(task({"d2": 1}), scores, size=4, **mined) == [{"d2", "d1", "d11", "d5"}] * 12
    # Ties by first-stage rank, documents without a score last.
    assert (
        drawn(task({"d2": 1}, count=4), {"d4": -3.0}, size=3, **mined) == [{"d2", "d4", "d1"}] * 12
    )
    assert drawn(task({"d2": 1}), size=4, **mined) == [{"d2", "d1", "d3", "d4"}] * 12
    shared = drawn(task({"d2": 1}), scores, size=5, mined_share=0.5, **mined)
    assert all({"d2", "d1", "d11"} <= docids for docids in shared)
    assert len({frozenset(docids) for docids in shared}) > 5


def test_scores_of_a_query_reach_its_own_draws_only() -> None:
    spec = SamplerSpec(size=2, negatives="mined", refresh=1)
    other = RankingTask(query=Query(qid="other", text="?"), candidates=task({}).candidates,
                        grades={"d2": 1})  # fmt: skip
    pairs, _ = sample_tasks([task({"d2": 1}), other], spec, seed=0, scores={"q": {"d7": 1.0}})
    assert [set(view.docids) for _, view in pairs] == [{"d2", "d7"}, {"d2", "d1"}]


def test_negatives_come_from_the_depth_and_relevant_documents_from_anywhere() -> None:
    found = drawn(task({"d2": 1, "d11": 1}), size=5, depth=6)
    assert all(
        {"d2", "d11"} <= docids <= {"d11", *(f"d{i}" for i in range(1, 7))} for docids in found
    )
    groups = drawn(task({"d2": 1}), name="groups", size=4, depth=5)
    assert all(docids <= {f"d{i}" for i in range(1, 6)} for docids in groups)
    windows = drawn(task({"d2": 1}), name="window", size=3, depth=4)
    assert {frozenset(w) for w in windows} == {
        frozenset({"d1", "d2", "d3"}), frozenset({"d2", "d3", "d4"})
    }  # fmt: skip
    assert [c.docid for c in within(task(None), SamplerSpec(depth=2))] == ["d1", "d2"]


def test_strata_fill_a_pool_with_so_many_documents_of_each() -> None:
    # Two of the first four, relevant ones counted, and three of the others.
    strata = {"strata": [[1, 4, 2], [5, 12, 3]], "size": 6}
    for docids in drawn(task({"d3": 1, "d6": 1}), **strata):
        ranks = {int(d[1:]) for d in docids}
        assert {3, 6} <= ranks
        assert (sum(r <= 4 for r in ranks), sum(r > 4 for r in ranks)) == (2, 3)
    hard = drawn(task({"d3": 1}), negatives="hard", **strata)
    assert hard == [{"d3", "d1", "d5", "d6", "d7"}] * 12
    many = {f"d{i}": 1 for i in range(5, 12)}
    assert all(len(docids) == 6 and docids - many.keys() for docids in drawn(task(many), **strata))


def test_strata_divide_a_group() -> None:
    found = drawn(task({f"d{i}": i % 2 for i in range(1, 13)}), name="groups", size=5,
                  strata=[[1, 3, 1], [4, 12, 4]])  # fmt: skip
    assert all(sum(int(d[1:]) <= 3 for d in docids) == 1 and len(docids) == 5 for docids in found)
    short = drawn(task({"d1": 1}, count=4), name="groups", size=5, strata=[[1, 1, 1], [3, 12, 4]])
    assert short == [{"d1", "d3", "d4"}] * 12


def test_the_best_unjudged_documents_are_no_negatives() -> None:
    graded = task({"d2": 1, "d3": 0})
    # d1, d4 are the two best that nobody judged; d3 was judged.
    assert drawn(graded, size=4, negatives="hard", skip_top=2) == [{"d2", "d3", "d5", "d6"}] * 12
    assert all(not docids & {"d1", "d4"} for docids in drawn(graded, size=6, skip_top=2))
    kept = drawn(graded, size=4, negatives="hard", skip_top=1, keep_first=1)
    assert kept == [{"d2", "d3", "d4", "d5"}] * 12


def test_copies_of_a_relevant_document_are_no_hard_negatives() -> None:
    texts = {"d5": "The Rhine, at Basel.", "d1": "the rhine at BASEL", "d2": "The Rhine at Basel!"}
    given = task({"d5": 1, "d2": 0}, texts=texts)
    # d1 nobody judged; d2 people judged not relevant, whatever its text.
    assert drawn(given, size=3, negatives="hard") == [{"d5", "d2", "d3"}] * 12
    assert any("d1" in docids for docids in drawn(given, size=4))  # random draws are as ever
    empty = task({"d5": 1}, texts={"d5": "", "d1": ""})
    assert drawn(empty, size=2, negatives="hard") == [{"d5", "d1"}] * 12


def test_tasks_without_grades_show_the_best_ranked_as_hard() -> None:
    assert drawn(task(None), size=3, negatives="hard", skip_top=2) == [{"d1", "d2", "d3"}] * 12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "groups", "negatives": "hard"}, "belong to sampler pool"),
        ({"name": "window", "skip_top": 1}, "belong to sampler pool"),
        ({"name": "window", "strata": [[1, 2, 1]]}, "samplers pool and groups"),
        ({"least_size": 6, "size": 5}, "least_size 6 is above size 5"),
        ({"name": "rollout", "least_size": 2}, "does not go with sampler rollout or strata"),
        ({"least_size": 2, "strata": [[1, 2, 1]]}, "does not go with sampler rollout or strata"),
        ({"negatives": "mined"}, "need one another"),
        (
            {"negatives": "mined", "refresh": 2, "least_ndcg": 0.1},
            "least_ndcg does not go with negatives: mined",
        ),
        ({"refresh": 5}, "need one another"),
        ({"mined_share": 0.5}, "belongs to negatives: mined"),
        ({"strata": [[1, 4, 2], [4, 9, 2]]}, r"stratum \[4, 9, 2\]: .* ranks of 5 or more"),
        ({"strata": [[3, 1, 2]]}, "expected"),
        ({"strata": [[1, 9, 30]]}, "more documents than size 20"),
    ],
)
def test_combinations_without_effect_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplerSpec.model_validate(wrong)
