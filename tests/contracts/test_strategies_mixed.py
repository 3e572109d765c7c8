"""Contracts of strategies where some questions are answered perfectly and others not at all.

Half of the repeats fail, any question may fail, or a document cannot be read: nothing crashes, and
documents of which nothing was said win nothing by it. Where documents are chosen, they never stand
above the best one; elsewhere they keep their first-stage positions.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from test_strategies import CASES, COMPARING, LENGTHS, build, perfect, task_of

from rank_rl.records import Outcome, Pick, View
from rank_rl.strategies.drive import run
from rank_rl.strategies.oracle import oracle

FAILED = Outcome(status="failed")
# Strategies that go on with some of the documents shown.
CHOOSING = COMPARING - {"pairs"}
# Cases that ask everything several times over: of the questions of a round, which repeat asks it.
REPEATS = {
    "groups": lambda at, of: 3 * at // of,
    "groups_whole": lambda at, of: 2 * at // of,
    "pairs": lambda at, of: at % 2,
    "tournament": lambda at, of: 2 * at // of,
    "tournament_twice": lambda at, of: 2 * at // of,
    "repeated": lambda at, of: 3 * at // of,
    "repeated_scores": lambda at, of: 2 * at // of,
    "repeated_sliding": lambda at, of: 2 * at // of,
}


def named(view: View, outcome: Outcome) -> tuple[str, ...]:
    """Documents of which an answer of the oracle says something: all of an order, or its pick."""
    if outcome.answer is None:
        return ()
    return (outcome.answer.docid,) if isinstance(outcome.answer, Pick) else view.docids


@pytest.mark.parametrize("case", REPEATS)
@pytest.mark.parametrize("failing", [0, 1])
def test_half_of_the_repeats_may_fail_and_the_best_document_is_first(case, failing):
    kind = CASES[case][2]
    for task in [task_of(n, seed=n) for n in LENGTHS]:
        plan = build(case).plan(task)
        views = next(plan)
        try:
            while True:
                repeats = [REPEATS[case](i, len(views)) for i in range(len(views))]
                views = plan.send(
                    [
                        FAILED if repeat % 2 == failing else oracle(view, task.grades, kind)
                        for view, repeat in zip(views, repeats, strict=True)
                    ]
                )
        except StopIteration as stop:
            assert stop.value.docids[0] == perfect(task)[0]


@pytest.mark.parametrize("case", CASES)
def test_where_any_question_may_fail_nothing_crashes_and_points_are_for_what_was_said(case):
    kind, draw = CASES[case][2], random.Random(case)
    few = [n for n in LENGTHS if n < 100]
    for task in [task_of(n, seed=s) for s in range(3) for n in (few if s else LENGTHS)]:
        (result,) = run(
            [task],
            build(case),
            lambda vs, task=task: [
                FAILED if draw.random() < 0.5 else oracle(v, task.grades, kind) for v in vs
            ],
        )
        assert sorted(result.ranking.docids) == sorted(task.docids)
        if CASES[case][0] == "tournament":
            placed = {d for v, o in result.outcomes for d in named(v, o)}
            if (best := perfect(task)[0]) in placed:
                above = result.ranking.docids[: result.ranking.docids.index(best)]
                assert set(above) <= placed


@pytest.mark.parametrize(
    "case", [c for c in CASES if CASES[c][0] in CHOOSING and CASES[c][3](9)[2] > 0]
)
def test_unread_documents_are_not_chosen(case):
    for task in [task_of(n, seed=n) for n in LENGTHS]:
        best = perfect(task)[0]

        def answer(view: View, best=best, task=task) -> Outcome:
            said = oracle(view, task.grades, "scores")
            if len(view.docids) < 3:
                return said
            first = next(d for d in view.by_first_stage() if d != best)
            return replace(said, answer=replace(said.answer, unread=(first,)))

        (result,) = run([task], build(case), lambda vs, answer=answer: [answer(v) for v in vs])
        assert result.ranking.docids[0] == best


@pytest.mark.parametrize(
    "case", [c for c in CASES if not any(name in str(CASES[c]) for name in CHOOSING)]
)
def test_an_unread_document_keeps_its_place(case):
    for task in [task_of(n, seed=n) for n in LENGTHS]:

        def answer(view: View, task=task) -> Outcome:
            said = oracle(view, task.grades, "scores")
            return replace(said, answer=replace(said.answer, unread=("d0",)))

        (result,) = run([task], build(case), lambda vs, answer=answer: [answer(v) for v in vs])
        assert result.ranking.docids[0] == "d0"
