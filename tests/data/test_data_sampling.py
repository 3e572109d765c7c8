"""Views drawn from tasks: which documents, in which order, and what the report counts."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from rank_rl.data.sampling import SampleReport, sample_tasks, sample_views
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import SamplerSpec


def task(relevant: dict[str, int] | None, count: int = 12, qid: str = "q") -> RankingTask:
    return RankingTask(
        query=Query(qid=qid, text="?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"text {i}", rank=i, score=-float(i))
            for i in range(1, count + 1)
        ),
        grades=relevant,
    )


def test_a_pool_keeps_the_relevant_documents_and_fills_up_with_others() -> None:
    spec = SamplerSpec(name="pool", size=5, per_query=20)
    views, report = sample_views(task({"d3": 1, "d11": 2, "not retrieved": 1}), spec, seed=0)
    assert report == SampleReport(draws=20, views=20)
    assert all(len(v.docids) == 5 and {"d3", "d11"} <= set(v.docids) for v in views)
    assert len({frozenset(v.docids) for v in views}) > 5
    assert all(v.labels == ("1", "2", "3", "4", "5") for v in views)


def test_a_pool_keeps_the_best_of_the_first_stage() -> None:
    spec = SamplerSpec(name="pool", size=6, per_query=20, keep_first=3)
    views, _ = sample_views(task({"d2": 1, "d11": 2}), spec, seed=0)
    assert all({"d1", "d2", "d3", "d11"} <= set(v.docids) for v in views)
    assert len({frozenset(v.docids) for v in views}) > 5
    full = SamplerSpec(size=3, per_query=5, keep_first=5)
    views, _ = sample_views(task({f"d{i}": 1 for i in range(5, 13)}), full, seed=0)
    assert all(len(v.docids) == 3 and "d1" in v.docids for v in views)


def test_a_pool_of_many_relevant_documents_keeps_a_place_for_another() -> None:
    relevant = {f"d{i}": 1 for i in range(1, 10)}
    views, _ = sample_views(task(relevant), SamplerSpec(size=4, per_query=8), seed=0)
    assert [sum(d in relevant for d in v.docids) for v in views] == [3] * 8


def test_first_stage_ranks_and_scores_stay_those_of_the_task() -> None:
    (view,), _ = sample_views(task({"d3": 1}), SamplerSpec(size=6), seed=5)
    assert all(c.docid == f"d{c.rank}" and c.score == -c.rank for c in view.candidates)
    assert [c.rank for c in view.candidates] != sorted(c.rank for c in view.candidates)
    (view,), _ = sample_views(task({"d3": 1}), SamplerSpec(size=6, shuffle=False), seed=5)
    assert [c.rank for c in view.candidates] == sorted(c.rank for c in view.candidates)


@pytest.mark.parametrize("name", ["pool", "groups", "window"])
def test_draws_have_random_sizes_within_their_range(name: str) -> None:
    relevant = {f"d{i}": 1 for i in range(2, 13, 3)}
    spec = SamplerSpec.model_validate(
        {"name": name, "least_size": 5, "size": 8, "per_query": 60, "shuffle": False}
    )
    views, report = sample_views(task(relevant), spec, seed=3)
    assert report.views == 60
    sizes = Counter(len(v.docids) for v in views)
    assert set(sizes) == {5, 6, 7, 8} and max(sizes.values()) < 30
    assert views == sample_views(task(relevant), spec, seed=3)[0]
    few, _ = sample_views(task(relevant, count=6), spec, seed=3)
    assert {len(v.docids) for v in few} == {5, 6}


def test_a_window_is_consecutive_in_first_stage_order() -> None:
    spec = SamplerSpec(name="window", size=4, per_query=30, shuffle=False)
    views, _ = sample_views(task({f"d{i}": 1 for i in range(2, 13, 2)}), spec, seed=0)
    ranks = [[c.rank for c in v.candidates] for v in views]
    assert all(r == list(range(r[0], r[0] + 4)) for r in ranks)
    assert {r[0] for r in ranks} == set(range(1, 10))


def test_groups_without_variance_are_drawn_again_then_dropped_and_counted() -> None:
    spec = SamplerSpec(name="groups", size=3, per_query=40, retries=10)
    views, report = sample_views(task({"d7": 1}), spec, seed=0)
    assert all("d7" in v.docids for v in views)
    assert report.draws == 40 == report.views + report.dropped
    assert len(views) == report.views and report.redrawn > 40
    nothing, report = sample_views(task({"d7": 0}), spec, seed=0)
    assert (nothing, report.dropped, report.redrawn) == ([], 40, 400)
    everything = {f"d{i}": 1 for i in range(1, 13)}
    _, report = sample_views(task(everything), SamplerSpec(size=4, retries=2), seed=0)
    assert report == SampleReport(draws=1, redrawn=2, dropped=1)


def test_groups_without_variance_are_kept_where_the_recipe_says_so() -> None:
    spec = SamplerSpec(name="groups", size=3, per_query=40, keep_flat=True)
    views, report = sample_views(task({"d7": 1}), spec, seed=0)
    assert report == SampleReport(draws=40, views=40)
    # One of twelve documents is in a quarter of the groups of three.
    assert 3 <= sum("d7" in v.docids for v in views) <= 20
    with pytest.raises(ValidationError, match="keep_flat and least_ndcg exclude one another"):
        SamplerSpec(keep_flat=True, least_ndcg=0.1)


def test_unjudged_tasks_keep_every_draw_and_short_lists_are_shown_whole() -> None:
    views, report = sample_views(task(None, count=3), SamplerSpec(size=20, per_query=2), seed=0)
    assert report == SampleReport(draws=2, views=2)
    assert [sorted(v.docids) for v in views] == [["d1", "d2", "d3"]] * 2


@pytest.mark.parametrize("name", ["pool", "groups", "window"])
def test_the_same_seed_gives_the_same_views_whatever_else_is_drawn(name: str) -> None:
    many = SamplerSpec(name=name, size=5, per_query=6)  # type: ignore[arg-type]
    graded = {f"d{i}": 1 for i in (2, 6, 9)}
    both, report = sample_tasks([task(graded, qid="a"), task(graded, qid="b")], many, seed=3)
    alone, _ = sample_views(task(graded, qid="b"), many, seed=3)
    assert [view for t, view in both if t.query.qid == "b"] == alone
    assert (
        alone[:2]
        == sample_views(task(graded, qid="b"), SamplerSpec(name=name, size=5, per_query=2), seed=3)[
            0
        ]
    )  # type: ignore[arg-type]
    assert alone != sample_views(task(graded, qid="b"), many, seed=4)[0]
    assert report.draws == 12
    assert report.line().startswith(f"{report.views} views from 12 draws")


def test_the_order_shown_does_not_reveal_the_grades() -> None:
    graded = {"d1": 2, "d2": 1}  # the first stage is perfect: any trace of its order would show
    for name in ("pool", "groups"):
        spec = SamplerSpec(name=name, size=4, per_query=3000)  # type: ignore[arg-type]
        views, _ = sample_views(task(graded), spec, seed=0)
        places = Counter(v.docids.index("d1") for v in views if {"d1", "d2"} <= set(v.docids))
        expected = sum(places.values()) / 4
        assert all(abs(places[i] - expected) < 5 * expected**0.5 for i in range(4))
        before = sum(
            v.docids.index("d1") < v.docids.index("d2")
            for v in views
            if {"d1", "d2"} <= set(v.docids)
        )
        total = sum(places.values())
        assert abs(before - total / 2) < 5 * (total / 4) ** 0.5


def test_sets_shown_in_a_bad_order_are_left_out() -> None:
    given = task({"d3": 1}, count=20)
    spec = SamplerSpec(name="groups", size=20, per_query=40, retries=0)
    views, _ = sample_views(given, spec, seed=0)
    places = [v.docids.index("d3") for v in views]
    assert min(places) < 10 <= max(places)
    # nDCG@10 is 0 below the tenth place and at least 0.28 above it.
    asked = spec.model_copy(update={"least_ndcg": 0.1})
    kept, report = sample_views(given, asked, seed=0)
    assert [v.docids for v in kept] == [v.docids for v in views if v.docids.index("d3") < 10]
    assert report.dropped == sum(place >= 10 for place in places)
    again, report = sample_views(given, asked.model_copy(update={"retries": 50}), seed=0)
    assert len(again) == 40 and not report.dropped and report.redrawn
