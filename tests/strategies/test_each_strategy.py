"""Each strategy on literal lists: which documents are shown, in which order, and what results."""

from __future__ import annotations

import pytest

import rank_rl.strategies as strategies
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Order, Outcome, Query, RankingTask, Scores, View
from rank_rl.specs import StrategySpec
from rank_rl.strategies.base import parts, votes
from rank_rl.strategies.by_score import ByScore
from rank_rl.strategies.drive import run
from rank_rl.strategies.groups import Groups
from rank_rl.strategies.oracle import copy, oracle
from rank_rl.strategies.pairs import Pairs, ring
from rank_rl.strategies.single import Single
from rank_rl.strategies.sliding import Sliding

FAILED = Outcome(status="failed", issues=("no_list",))


def task_of(count: int, qid: str = "q") -> RankingTask:
    """d1 … dn in first-stage order; the last is the best."""
    docs = tuple(Candidate(docid=f"d{i}", text="", rank=i) for i in range(1, count + 1))
    grades = {f"d{i}": i for i in range(1, count + 1)}
    return RankingTask(query=Query(qid=qid, text="?"), candidates=docs, grades=grades)


def docs(*numbers: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in numbers)


def ask(task: RankingTask, strategy, kind="order"):
    """Rank with an answerer that knows the grades."""
    return run([task], strategy, lambda vs: [oracle(v, task.grades, kind) for v in vs])[0]


def shown(result) -> list[tuple[str, ...]]:
    return [view.docids for view, _ in result.outcomes]


def test_single_shows_all():
    result = ask(task_of(4), Single())
    assert shown(result) == [docs(1, 2, 3, 4)]
    assert result.ranking.docids == docs(4, 3, 2, 1)


def test_single_keeps_first_stage_order_below_its_depth():
    result = ask(task_of(5), Single(depth=3))
    assert result.ranking.docids == docs(3, 2, 1, 4, 5)


def test_sliding_runs_on_lists_shorter_than_the_window():
    result = ask(task_of(3), Sliding())
    assert shown(result) == [docs(1, 2, 3)]
    assert result.ranking.docids == docs(3, 2, 1)


def test_sliding_covers_25_candidates_with_20_and_10():
    result = ask(task_of(25), Sliding(window=20, step=10))
    assert shown(result)[0] == docs(*range(6, 26))
    assert len(shown(result)) == result.calls == result.depth == 2
    assert {d for view in shown(result) for d in view} == set(docs(*range(1, 26)))
    assert result.ranking.docids[:10] == docs(*range(25, 15, -1))


def test_sliding_carries_results_into_the_next_window():
    result = ask(task_of(6), Sliding(window=4, step=2))
    assert shown(result) == [docs(3, 4, 5, 6), docs(1, 2, 6, 5)]
    assert result.ranking.docids == docs(6, 5, 2, 1, 4, 3)


def test_sliding_carries_results_into_later_passes():
    result = ask(task_of(6), Sliding(window=4, step=2, passes=2))
    assert shown(result)[2:] == [docs(2, 1, 4, 3), docs(6, 5, 4, 3)]
    assert result.ranking.docids == docs(6, 5, 4, 3, 2, 1)


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1, [0]),
        (20, [0]),
        (21, [1, 0]),
        (30, [10, 0]),
        (35, [15, 5, 0]),
        (100, [*range(80, -1, -10)]),
    ],
)
def test_sliding_windows_of_20_and_10(length, starts):
    assert Sliding(window=20, step=10).starts(length) == starts


@pytest.mark.parametrize("name", strategies.TABLE)
def test_a_failed_outcome_is_not_listened_to_even_if_it_carries_an_answer(name):
    task = task_of(4)
    broken = Outcome(status="failed", answer=Scores(values={"d1": 0, "d2": 1, "d3": 2, "d4": 3}))
    params = {"strategy": {"name": "single"}} if name in ("refine", "repeated") else {}
    strategy = strategies.make(StrategySpec(name=name, params=params))
    result = run([task], strategy, lambda vs: [broken for _ in vs])[0]
    assert result.ranking.docids == docs(1, 2, 3, 4)
    assert result.failed == result.calls


def test_a_failed_window_keeps_what_was_carried_into_it():
    task = task_of(6)

    def answer(views: list[View]) -> list[Outcome]:
        return [oracle(v, task.grades) if "d3" in v.docids else FAILED for v in views]

    result = run([task], Sliding(window=4, step=2), answer)[0]
    assert result.ranking.docids == docs(1, 2, 6, 5, 4, 3)
    assert result.failed == 1


def test_groups_are_random_even_and_cover_every_document_in_every_repeat():
    result = ask(task_of(21), Groups(size=20, repeats=3), kind="scores")
    assert [len(view) for view in shown(result)] == [11, 10] * 3
    for repeat in range(3):
        both = shown(result)[2 * repeat] + shown(result)[2 * repeat + 1]
        assert sorted(both) == sorted(task_of(21).docids)
        assert both != task_of(21).docids
    assert shown(result)[0] != shown(result)[2]
    assert result.depth == 1


def test_groups_depend_on_seed_and_query_only():
    def drawn(task: RankingTask, seed: int) -> list[tuple[str, ...]]:
        return shown(ask(task, Groups(size=4, seed=seed)))

    assert drawn(task_of(9), 1) == drawn(task_of(9), 1)
    assert drawn(task_of(9), 1) != drawn(task_of(9), 2)
    assert drawn(task_of(9), 1) != drawn(task_of(9, qid="other"), 1)


def test_groups_average_the_scores():
    task = task_of(3)
    rounds = iter([{"d1": 1, "d2": 3, "d3": 4}, {"d1": 9, "d2": 3, "d3": 0}])

    def answer(views: list[View]) -> list[Outcome]:
        return [Outcome(status="ok", answer=Scores(values=next(rounds))) for _ in views]

    ranking = run([task], Groups(size=5, repeats=2), answer)[0].ranking
    assert ranking.docids == docs(1, 2, 3)
    assert ranking.scores == (5.0, 3.0, 2.0)


def test_a_failed_group_casts_no_vote_and_is_counted():
    task = task_of(4)
    rounds = iter([FAILED, Outcome(status="ok", answer=Order(docids=docs(3, 4, 1, 2)))])
    result = run([task], Groups(size=4, repeats=2), lambda vs: [next(rounds) for _ in vs])[0]
    assert result.ranking.docids == docs(3, 4, 1, 2)
    assert result.failed == 1


def test_documents_without_any_vote_keep_their_first_stage_position():
    task = task_of(5)

    def answer(views: list[View]) -> list[Outcome]:
        return [oracle(v, task.grades, "scores") if "d5" in v.docids else FAILED for v in views]

    result = run([task], ByScore(size=3), answer)[0]
    assert shown(result) == [docs(1, 2, 3), docs(4, 5)]
    assert result.ranking.docids == docs(1, 2, 3, 5, 4)
    assert result.ranking.scores == ()


def test_by_score_compares_across_views_and_breaks_ties_by_first_stage():
    task = task_of(5)

    def answer(views: list[View]) -> list[Outcome]:
        values = {"d1": 0, "d2": 1, "d3": 0, "d4": 1, "d5": 2}
        return [
            Outcome(status="ok", answer=Scores(values={d: values[d] for d in v.docids}))
            for v in views
        ]

    ranking = run([task], ByScore(size=2), answer)[0].ranking
    assert ranking.docids == docs(5, 2, 4, 1, 3)
    assert ranking.scores == (2.0, 1.0, 1.0, 0.0, 0.0)


def test_by_score_takes_one_order_but_no_orders_of_several_views():
    assert ask(task_of(3), ByScore()).ranking.docids == docs(3, 2, 1)
    with pytest.raises(RecipeError, match="a format that scores documents"):
        ask(task_of(3), ByScore(size=2))


def test_by_score_of_size_1_asks_each_document_alone_and_leaves_the_unread_in_place():
    task = task_of(4)

    def answer(views: list[View]) -> list[Outcome]:
        return [FAILED if v.docids == docs(2) else oracle(v, task.grades, "scores") for v in views]

    result = run([task], ByScore(size=1), answer)[0]
    assert shown(result) == [docs(1), docs(2), docs(3), docs(4)]
    assert result.ranking.docids == docs(4, 2, 3, 1)
    assert (result.calls, result.depth, result.failed) == (4, 1, 1)


def test_pairs_are_asked_in_both_orders():
    result = ask(task_of(3), Pairs())
    assert shown(result) == [docs(*p) for p in ((1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2))]
    assert result.ranking.docids == docs(3, 2, 1)
    assert result.ranking.scores == (1.0, 0.5, 0.0)
    assert result.depth == 1


def test_pairs_in_one_order_show_the_first_document_first_about_half_the_time():
    views = shown(ask(task_of(40), Pairs(both=False)))
    assert len({frozenset(view) for view in views}) == len(views) == 780
    turned = sum(int(view[0][1:]) > int(view[1][1:]) for view in views)
    assert 340 < turned < 440


def test_pairs_count_a_tie_as_half_a_win_and_a_failure_not_at_all():
    task = task_of(3)

    def answer(views: list[View]) -> list[Outcome]:
        said = {
            docs(1, 2): Outcome(status="ok", answer=Scores(values={"d1": 1.0, "d2": 1.0})),
            docs(1, 3): Outcome(status="ok", answer=Order(docids=docs(3, 1))),
            docs(2, 3): FAILED,
        }
        return [said[tuple(sorted(v.docids))] for v in views]

    ranking = run([task], Pairs(), answer)[0].ranking
    assert ranking.docids == docs(3, 2, 1)
    assert ranking.scores == (1.0, 0.5, 0.25)


def test_pairs_against_position_bias():
    """Who always prefers the first document shown says nothing, and the first stage is kept."""
    first = run([task_of(6)], Pairs(), lambda vs: [copy(v) for v in vs])[0]
    assert first.ranking.docids == docs(1, 2, 3, 4, 5, 6)
    assert set(first.ranking.scores) == {0.5}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 12, 13])
@pytest.mark.parametrize("meetings", [1, 2, 3, 4, 5, 6])
def test_a_ring_gives_each_place_its_meetings(count, meetings):
    pairs = list(ring(count, meetings))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert len(pairs) == count * min(meetings, count - 1) // 2
    met = [sum(place in pair for pair in pairs) for place in range(count)]
    odd = count % 2 and min(meetings, count - 1) % 2
    assert sorted(met)[1 if odd else 0] == max(met) == min(meetings, count - 1)


def test_pairs_that_are_drawn_depend_on_seed_and_query_only():
    def drawn(task: RankingTask, seed: int) -> list[tuple[str, ...]]:
        return shown(ask(task, Pairs(per_document=4, seed=seed)))

    assert drawn(task_of(9), 1) == drawn(task_of(9), 1)
    assert drawn(task_of(9), 1) != drawn(task_of(9), 2)
    assert drawn(task_of(9), 1) != drawn(task_of(9, qid="other"), 1)
    assert len(drawn(task_of(9), 1)) == 36


def test_parts_leave_nobody_alone():
    for size in range(3, 9):
        for count in range(2, 40):
            sizes = [len(p) for p in parts(task_of(count).candidates, size)]
            assert sum(sizes) == count
            assert min(sizes) > 1
            assert max(sizes) <= size


def test_votes_of_orders_scores_and_nothing():
    task = task_of(3)
    view = next(Single().plan(task))[0]
    assert votes(oracle(view, task.grades), view) == {"d3": 1.0, "d2": 0.5, "d1": 0.0}
    partial = Outcome(status="repaired", answer=Scores(values={"d1": 2, "d2": float("nan")}))
    assert votes(partial, view) == {"d1": 2.0, "d2": 1.0, "d3": 1.0}
    unread = Outcome(status="repaired", answer=Scores(values={"d1": 2, "d3": 1}, unread=("d2",)))
    assert votes(unread, view) == {"d1": 2.0, "d3": 1.0}
    nothing = Outcome(status="repaired", answer=Scores(values={"d1": float("nan")}))
    assert votes(nothing, view) is None
    assert votes(FAILED, view) is None
    alone = next(Single().plan(task_of(1)))[0]
    assert votes(copy(alone), alone) == {}


def test_the_run_seed_is_the_default_of_a_strategy_that_draws():
    drawn = StrategySpec(name="groups", params={"size": 5})
    assert strategies.make(drawn, seed=3) == Groups(size=5, seed=3)
    assert strategies.make(drawn) == Groups(size=5, seed=0)
    pairs = StrategySpec(name="pairs", params={"both": False})
    assert strategies.make(pairs, seed=3) == Pairs(both=False, seed=3)
    own = StrategySpec(name="groups", params={"seed": 1})
    assert strategies.make(own, seed=3) == Groups(seed=1)
    assert strategies.make(StrategySpec(name="single"), seed=3) == Single()


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (StrategySpec(name="slidng"), "nearest: sliding"),
        (StrategySpec(name="sliding", params={"windw": 3}), "windw"),
        (
            StrategySpec(name="sliding", params={"window": 10, "step": 10}),
            "smaller than the window",
        ),
        (StrategySpec(name="sliding", params={"window": 1, "step": 1}), "window is 1"),
        (StrategySpec(name="sliding", params={"passes": 0}), "passes is 0"),
        (StrategySpec(name="groups", params={"size": 1}), "size is 1"),
        (StrategySpec(name="groups", params={"repeats": 1.5}), "repeats is 1.5"),
        (StrategySpec(name="pairs", params={"per_document": 0}), "per_document is 0"),
        (StrategySpec(name="pairs", params={"both": 1}), "both is 1"),
        (StrategySpec(name="pairs", params={"aggregate": "elo"}), "aggregate is 'elo'"),
        (StrategySpec(name="setwise", params={"method": "quick"}), "expected heap or bubble"),
        (StrategySpec(name="setwise", params={"children": 0}), "children is 0"),
        (StrategySpec(name="setwise", params={"shuffle": "yes"}), "shuffle is 'yes'"),
        (StrategySpec(name="elimination", params={"size": 1}), "size is 1"),
        (StrategySpec(name="elimination", params={"keep": 0}), "keep is 0"),
        (StrategySpec(name="tournament", params={"advance": 0}), "advance is 0"),
        (StrategySpec(name="tournament", params={"top_k": 0}), "top_k is 0"),
        (StrategySpec(name="single", params={"depth": 0}), "depth is 0"),
        (StrategySpec(name="by_score", params={"size": "8"}), "size is '8'"),
    ],
)
def test_mistakes_in_a_recipe_are_one_readable_line(spec, line):
    with pytest.raises(RecipeError, match=line) as caught:
        strategies.make(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("elimination", "keep"),
        ("groups", "size"),
        ("groups", "repeats"),
        ("groups", "seed"),
        ("repeated", "times"),
        ("setwise", "children"),
        ("sliding", "passes"),
        ("sliding", "step"),
        ("sliding", "window"),
        ("tournament", "repeats"),
        ("tournament", "size"),
    ],
)
def test_null_is_refused_where_it_means_nothing(name, key):
    params = {"strategy": {"name": "single"}} if name == "repeated" else {}
    with pytest.raises(RecipeError, match=rf"^strategy '{name}': {key} is None; expected an int"):
        strategies.make(StrategySpec(name=name, params={**params, key: None}))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("by_score", "size"),
        ("elimination", "size"),
        ("pairs", "per_document"),
        ("refine", "depth"),
        ("setwise", "top_k"),
        ("single", "depth"),
        ("tournament", "advance"),
        ("tournament", "top_k"),
    ],
)
def test_null_is_all_where_it_means_something(name, key):
    params = {"strategy": {"name": "single"}} if name == "refine" else {}
    strategy = strategies.make(StrategySpec(name=name, params={**params, key: None}))
    kind = "worst" if name == "elimination" else "order"
    ranking = ask(task_of(12), strategy, kind).ranking
    assert ranking.docids[0] == "d12"
    with pytest.raises(RecipeError, match="of at least [12] or null"):
        strategies.make(StrategySpec(name=name, params={**params, key: 0}))
