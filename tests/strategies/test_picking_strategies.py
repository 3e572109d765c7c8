"""Setwise, elimination and tournament on literal lists: what they show, and what results."""

from __future__ import annotations

import math

import pytest
from strategy_tasks import ask, docs, shown, task_of

import rank_rl.strategies as strategies
from rank_rl.errors import RecipeError
from rank_rl.records import Order, Outcome, Pick, Scores, View, numbered
from rank_rl.specs import StrategySpec
from rank_rl.strategies.base import best, worst
from rank_rl.strategies.drive import run
from rank_rl.strategies.elimination import Elimination
from rank_rl.strategies.oracle import oracle
from rank_rl.strategies.setwise import Setwise, levels
from rank_rl.strategies.tournament import Tournament

FAILED = Outcome(status="failed", issues=("no_list",))
RISING = task_of(1, 2, 3, 4, 5)


def said(answer, status="ok") -> tuple[str | None, str | None]:
    """What an answer about d1, d2, d3, shown as d3, d1, d2, calls the best and the worst."""
    task = task_of(0, 0, 0)
    first, second, third = task.candidates
    view = numbered(task.query, [third, first, second])
    outcome = Outcome(status=status, answer=answer)
    return best(outcome, view), worst(outcome, view)


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (Pick(docid="d2"), ("d2", None)),
        (Pick(docid="d2", worst=True), (None, "d2")),
        (Pick(docid="elsewhere"), (None, None)),
        (Order(docids=docs(2, 3, 1)), ("d2", "d1")),
        (Order(docids=docs(3)), ("d3", "d2")),
        (Order(docids=("elsewhere",)), (None, None)),
        (Order(docids=()), (None, None)),
        (Scores(values={"d1": 1, "d2": 3, "d3": 2}), ("d2", "d1")),
        (Scores(values={"d1": 1, "d2": 1, "d3": 1}), ("d1", "d3")),
        (Scores(values={"d1": 1, "d2": 2}), ("d2", "d3")),
        (Scores(values={"d1": 1, "d2": math.nan, "d3": 2}), ("d3", "d2")),
        (Scores(values={"d1": 1, "d3": 2}, unread=("d2",)), ("d3", "d1")),
        (Scores(values={"d1": 1}, unread=("d2", "d3")), (None, None)),
        (Scores(values={}), (None, None)),
        (None, (None, None)),
    ],
)
def test_the_best_and_the_worst_of_any_answer(answer, ends):
    assert said(answer) == ends
    assert said(answer, status="failed") == (None, None)


def test_heap_sort_shows_parents_and_children_in_first_stage_order():
    result = ask(RISING, Setwise(children=2, top_k=2), "best")
    assert shown(result) == [
        docs(2, 4, 5), docs(1, 3, 5), docs(1, 2, 4),  # built: 5, 4, 3, 1, 2
        docs(2, 3, 4), docs(1, 2),
    ]  # fmt: skip
    assert result.ranking.docids == docs(5, 4, 1, 2, 3)


def test_documents_of_one_level_are_sifted_together():
    assert levels(8, 2) == [range(3, 4), range(1, 3), range(0, 1)]
    assert levels(100, 19) == [range(1, 6), range(0, 1)]
    assert levels(1, 2) == []
    result = ask(task_of(*range(100, 0, -1)), Setwise(top_k=1), "best")
    assert (result.calls, result.depth) == (6, 2)


def test_heap_sort_stays_within_its_bound():
    task = task_of(*range(100))
    result = ask(task, Setwise(children=19, top_k=10), "best")
    heights = [2, 1, 1, 1, 1, 1]
    assert len(heights) <= result.calls <= sum(heights) + 9 * 2
    assert result.ranking.docids[:10] == docs(*range(100, 90, -1))
    assert result.ranking.docids[10:] == docs(*range(1, 91))


def test_bubble_sort_carries_the_best_from_window_to_window():
    result = ask(RISING, Setwise(method="bubble", children=2, top_k=2), "best")
    assert shown(result) == [docs(3, 4, 5), docs(1, 2, 5), docs(1, 3, 4), docs(2, 4)]
    assert result.ranking.docids == docs(5, 4, 1, 2, 3)


def test_bubble_sort_does_not_ask_about_the_same_documents_again():
    task = task_of(5, 1, 2, 3, 4)
    result = ask(task, Setwise(method="bubble", children=2, top_k=2), "best")
    assert shown(result) == [docs(3, 4, 5), docs(1, 2, 5), docs(2, 5)]
    assert result.ranking.docids == docs(1, 5, 2, 3, 4)


def test_bubble_sort_stays_within_its_bound():
    task = task_of(*range(100))
    result = ask(task, Setwise(method="bubble", children=19, top_k=10), "best")
    assert math.ceil(99 / 19) < result.calls <= sum(math.ceil((100 - p) / 19) for p in range(1, 11))


def test_a_failed_comparison_counts_for_the_first_stage():
    def answer(views: list[View]) -> list[Outcome]:
        return [FAILED if "d3" in v.docids else oracle(v, RISING.grades, "best") for v in views]

    result = run([RISING], Setwise(method="bubble", children=2, top_k=1), answer)[0]
    assert shown(result) == [docs(3, 4, 5), docs(1, 2, 3)]
    assert result.ranking.docids == docs(1, 2, 3, 4, 5)
    assert result.failed == 2


def test_shuffled_views_depend_on_seed_and_query_and_documents():
    def views(seed: int, qid: str = "q") -> list[tuple[str, ...]]:
        return shown(
            ask(task_of(*range(8), qid=qid), Elimination(shuffle=True, seed=seed), "worst")
        )

    assert views(1) == views(1)
    assert views(1) != views(2)
    assert views(1) != views(1, "other")
    assert [sorted(view) for view in views(1)] == [sorted(docs(*range(i, 9))) for i in range(1, 8)]
    assert views(1)[0] != docs(*range(1, 9))
    heap = Setwise(children=3, top_k=3, shuffle=True, seed=4)
    assert shown(ask(RISING, heap)) != shown(ask(RISING, Setwise(children=3, top_k=3)))
    assert ask(RISING, heap).ranking.docids[:3] == docs(5, 4, 3)


@pytest.mark.parametrize(
    ("name", "kind"), [("setwise", "worst"), ("elimination", "best"), ("tournament", "worst")]
)
def test_a_format_that_picks_the_other_end_is_a_mistake_of_the_recipe(name, kind):
    with pytest.raises(RecipeError, match=f"the format picks the {kind}"):
        ask(RISING, strategies.make(StrategySpec(name=name)), kind)


def test_elimination_removes_the_worst_shown():
    result = ask(task_of(2, 3, 1), Elimination(), "worst")
    assert shown(result) == [docs(1, 2, 3), docs(1, 2)]
    assert result.ranking.docids == docs(2, 1, 3)


def test_elimination_from_the_back_when_not_all_can_be_shown():
    result = ask(task_of(1, 5, 4, 3), Elimination(size=2), "worst")
    assert shown(result) == [docs(3, 4), docs(2, 3), docs(1, 2)]
    assert result.ranking.docids == docs(2, 1, 3, 4)


def test_elimination_keeps_some_in_first_stage_order():
    result = ask(task_of(1, 2, 3, 4), Elimination(keep=2), "worst")
    assert result.calls == 2
    assert result.ranking.docids == docs(3, 4, 2, 1)
    assert ask(task_of(1, 2), Elimination(keep=3), "worst").calls == 0


def test_a_failed_elimination_removes_the_last_of_the_first_stage():
    outcomes = iter([FAILED, Outcome(status="ok", answer=Pick(docid="d1", worst=True))])
    result = run([task_of(1, 2, 3)], Elimination(), lambda vs: [next(outcomes) for _ in vs])[0]
    assert result.ranking.docids == docs(2, 1, 3)
    assert result.failed == 1


def test_points_of_a_tournament_are_rounds_won():
    result = ask(task_of(*range(1, 9)), Tournament(size=8, repeats=1))
    assert [len(view) for view in shown(result)] == [8, 4, 2]
    assert result.ranking.docids == docs(8, 7, 5, 6, 1, 2, 3, 4)
    assert result.ranking.scores == (3, 2, 1, 1, 0, 0, 0, 0)
    twice = ask(task_of(*range(1, 9)), Tournament(size=8, repeats=2))
    assert twice.ranking.scores == (6, 4, 2, 2, 0, 0, 0, 0)
    assert (twice.calls, twice.depth) == (6, 3)


def test_groups_of_a_tournament_hold_documents_from_all_of_the_first_stage():
    result = ask(task_of(*range(40, 0, -1)), Tournament(size=20, repeats=2))
    first = [set(view) for view in shown(result)[:4]]
    for group in first:
        for i in range(1, 40, 2):
            assert len(group & set(docs(i, i + 1))) == 1
    assert first[0] not in first[2:]


def test_places_played_out_ask_only_groups_that_have_changed():
    task = task_of(*range(1, 10))
    one = ask(task, Tournament(size=3, advance=1, repeats=1), "best")
    two = ask(task, Tournament(size=3, advance=1, repeats=1, top_k=2), "best")
    assert (one.calls, one.depth) == (4, 2)
    assert (two.calls, two.depth) == (6, 4)
    again = shown(two)[4:]
    assert [len(view) for view in again] == [2, 3]
    assert "d9" not in {d for view in again for d in view}
    assert two.ranking.docids[:2] == docs(9, 8)
    assert two.ranking.scores[:3] == (3, 2, 1)


def test_a_failed_group_gives_no_points():
    outcomes = iter([FAILED, *[Outcome(status="ok", answer=Pick(docid="d4"))] * 2])
    strategy = Tournament(size=2, advance=1, repeats=1, seed=1)
    result = run([task_of(0, 0, 0, 0)], strategy, lambda vs: [next(outcomes) for _ in vs])[0]
    # d4 is not in the first group of this draw: the other group's winner comes in without a point.
    assert "d4" not in shown(result)[0]
    assert result.ranking.docids == docs(4, 1, 2, 3)
    assert result.ranking.scores == (2, 0, 0, 0)


def with_failed(task, strategy: Tournament, failed, kind="best"):
    """Rank with an answerer that knows the grades and fails where ``failed(docids)`` says so."""

    def answer(view: View) -> Outcome:
        return FAILED if failed(set(view.docids)) else oracle(view, task.grades, kind)

    return run([task], strategy, lambda vs: [answer(v) for v in vs])[0].ranking


@pytest.mark.parametrize("top_k", [1, 5, None])
def test_a_bracket_without_any_answer_casts_no_vote(top_k):
    task = task_of(*range(12))
    strategy = Tournament(size=4, advance=1, repeats=1, top_k=top_k)
    ranking = with_failed(task, strategy, lambda docids: True)
    assert ranking.docids == task.docids and set(ranking.scores) == {0.0}


def test_a_failed_final_is_not_won():
    task = task_of(*range(12))
    strategy = Tournament(size=4, advance=1, repeats=1, seed=1)
    firsts = [set(v) for v in shown(ask(task, strategy, "best"))[:3]]
    ranking = with_failed(task, strategy, lambda docids: docids not in firsts)
    assert sorted(ranking.scores) == [0.0] * 9 + [1.0] * 3
    # The best of the first stage among the finalists is only first of equals.
    winners = [max(group, key=task.grades.__getitem__) for group in firsts]
    assert set(ranking.docids[:3]) == set(winners)
    assert ranking.docids[:3] == tuple(sorted(winners, key=task.docids.index))


def test_an_unread_document_goes_on_last_and_without_a_point():
    def rank(unread: tuple[str, ...], advance: int):
        task = task_of(1, 2, 3, 4)
        values = {d: float(g) for d, g in task.grades.items() if d not in unread}
        said = Outcome(status="ok", answer=Scores(values=values, unread=unread))
        strategy = Tournament(size=4, advance=advance, repeats=1)
        return run([task], strategy, lambda vs: [said for _ in vs])[0].ranking

    assert rank(("d1",), 1).docids[0] == "d4"
    assert rank(("d1",), 1).scores == (1, 0, 0, 0)
    assert rank(("d1", "d2"), 2).docids == docs(4, 3, 1, 2)
    assert rank(("d1", "d2", "d3"), 2).scores == (0, 0, 0, 0)


def test_only_the_document_picked_wins_a_point():
    ranking = ask(task_of(1, 2, 3, 4), Tournament(size=4, advance=2, repeats=1), "best").ranking
    assert ranking.docids == docs(4, 1, 2, 3)
    assert ranking.scores == (2, 0, 0, 0)


def test_the_seed_of_a_tournament():
    def groups(seed: int) -> list[tuple[str, ...]]:
        return shown(ask(task_of(*range(30)), Tournament(size=10, seed=seed)))

    assert groups(1) == groups(1)
    assert groups(1) != groups(2)
    made = strategies.make(StrategySpec(name="tournament"), seed=5)
    assert made == Tournament(seed=5)
