"""Rows for trainers: Arrow holds them, views come back from them, completions are parsed again."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pyarrow as pa
import pytest

from rank_rl import formats
from rank_rl.data import annotations, rows
from rank_rl.errors import DataError
from rank_rl.records import Candidate, Outcome, Pick, Query, RankingTask, Scores, View, numbered
from rank_rl.specs import FormatSpec

TASK = RankingTask(
    query=Query(
        qid="q1",
        text="What is the seat of the county of Elm?",
        instruction="Find the passages.",
        metadata={"decomposition": "1) Elm >> in => Ward; 2) #1 >> capital => Minot"},
    ),
    candidates=(
        Candidate(docid="a", text="Ash is a tree.", title="Ash", rank=1, score=7.25),
        Candidate(docid="b", text="Elm lies in Ward.", title="Elm", rank=2, score=0.1),
        Candidate(docid="c", text="Its seat is Minot.", title="Ward", rank=3),
        Candidate(docid="d", text="Oak is a tree.", rank=9),
    ),
    grades={"b": 1, "c": 2, "d": -1, "elsewhere": 1},
)
VIEW = numbered(TASK.query, [TASK.candidates[i] for i in (2, 0, 3, 1)])
REASONS = annotations.reasoning(TASK)


def make(name: str, mode: str) -> Any:
    return formats.make(FormatSpec(name=name, mode=mode))  # type: ignore[arg-type]


def through_arrow(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = pa.Table.from_pylist(made).to_pylist()
    assert kept == made
    return kept


def without_metadata(view: View) -> View:
    return dataclasses.replace(view, query=dataclasses.replace(view.query, metadata={}))


@pytest.mark.parametrize("name", ["permutation", "scores"])
@pytest.mark.parametrize("mode", ["reason", "answer"])
def test_group_rows_survive_arrow_and_give_the_view_back(name: str, mode: str) -> None:
    fmt = make(name, mode)
    plain = dataclasses.replace(TASK, query=Query(qid="q2", text="?"))
    other = numbered(plain.query, plain.candidates[1:3])
    made = rows.group_rows(TASK, [VIEW], fmt) + rows.group_rows(plain, [other], fmt)
    for row, view in zip(through_arrow(made), (VIEW, other), strict=True):
        rebuilt, grades = rows.view_of(row)
        assert rebuilt == without_metadata(view)
        assert grades == view.grades(TASK.grades or {})
        assert row["prompt"] == [dict(m) for m in fmt.render(view).messages]
        assert row["prefill"] == fmt.render(view).prefill
        assert row["format"] == fmt.version


@pytest.mark.parametrize("name", ["permutation", "scores"])
@pytest.mark.parametrize("mode", ["reason", "answer"])
def test_sft_completions_are_ideal_and_parse_as_such(name: str, mode: str) -> None:
    fmt = make(name, mode)
    (row,) = through_arrow(rows.sft_rows(TASK, [VIEW], fmt, "annotations"))
    ((message),) = row["completion"]
    assert message["role"] == "assistant" and message["content"].startswith(row["prefill"])
    outcome = fmt.parse(
        message["content"].removeprefix(row["prefill"]), VIEW, prefill=row["prefill"]
    )
    assert outcome.status == "ok"
    assert outcome.as_order(VIEW)[:2] == ("c", "b")
    told = "Step 1: Elm, in: Ward [4]. Step 2: Ward, capital: Minot [1]."
    assert (told in message["content"]) == (mode == "reason")
    (row,) = rows.sft_rows(TASK, [VIEW], fmt, "explicit")
    judged = row["completion"][0]["content"].partition("</think>")[0].splitlines()[1:]
    relevant = [f"[{VIEW.label(d)}]" for d in VIEW.docids if (TASK.grades or {}).get(d, 0) > 0]
    assert [x.split()[0] for x in judged if " Relevant: yes." in x] == relevant * (mode == "reason")
    assert len(judged) == len(VIEW.labels) * (mode == "reason")


@pytest.mark.parametrize("mode", ["reason", "answer"])
@pytest.mark.parametrize(("pick", "picked"), [("best", "c"), ("worst", "d")])
def test_sft_rows_of_a_choice_judge_every_document_and_pick_one(mode, pick, picked) -> None:
    spec = FormatSpec.model_validate({"name": "choice", "mode": mode, "params": {"pick": pick}})
    fmt = formats.make(spec)
    for style in ("explicit", "annotations", "none"):
        (row,) = through_arrow(rows.sft_rows(TASK, [VIEW], fmt, style))
        view, _ = rows.view_of(row)
        text = row["completion"][0]["content"]
        outcome = fmt.parse(text, view)
        assert outcome.status == "ok"
        assert outcome.answer == Pick(docid=picked, worst=pick == "worst")
        judged = re.findall(r"^\[(.)\] .* Relevant: (yes|no)\.", outcome.reasoning, re.M)
        wanted = list(VIEW.labels) if mode == "reason" and style == "explicit" else []
        assert [label for label, _ in judged] == wanted


@pytest.mark.parametrize("mode", ["reason", "answer"])
def test_slot_rows_ask_for_each_document_and_explain_it(mode: str) -> None:
    fmt = make("slots", mode)
    made = through_arrow(rows.slot_rows(TASK, [VIEW], fmt, REASONS))
    lead = fmt.slots(VIEW).lead
    assert [row["docids"] for row in made] == [["c"], ["a"], ["d"], ["b"]]
    for index, row in enumerate(made):
        assert row["prompt"] == [dict(m) for m in fmt.slot_messages(VIEW, index)]
        assert row["prefill"] == lead
        text = row["completion"][0]["content"]
        view, grades = rows.view_of(row)
        outcome: Outcome = fmt.parse(text.removeprefix(lead), view, prefill=lead)
        assert outcome.status == "ok" and isinstance(outcome.answer, Scores)
        relevant = grades[row["docids"][0]] > 0
        assert (outcome.answer.values[row["docids"][0]] > 0) == relevant
        assert outcome.notes.get(row["docids"][0], "") == (
            REASONS.note(row["docids"][0]) if mode == "reason" else ""
        )
    if mode == "reason":
        assert made[0]["completion"][0]["content"].startswith(f"{lead} yes. It answers step 2")


def test_negatives_can_be_balanced_and_depend_on_the_seed_alone() -> None:
    fmt = make("slots", "answer")
    candidates = [Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in range(1, 21)]
    task = RankingTask(
        query=Query(qid="q", text="?"), candidates=tuple(candidates), grades={"d3": 1, "d9": 1}
    )
    view = numbered(task.query, candidates)

    def kept(seed: int, ratio: float | None) -> list[str]:
        made = rows.slot_rows(task, [view], fmt, seed=seed, negatives_per_positive=ratio)
        return [row["docids"][0] for row in made]

    assert len(kept(0, None)) == 20 and len(kept(0, 1.5)) == 2 + 3 and len(kept(0, 99)) == 20
    assert {"d3", "d9"} <= set(kept(0, 0.0)) and len(kept(0, 0.0)) == 3
    assert kept(0, 2) == kept(0, 2) != kept(1, 2)
    views = rows.slot_rows(task, [view, view], fmt, negatives_per_positive=1)
    first, second = views[: len(views) // 2], views[len(views) // 2 :]
    assert [r["docids"] for r in first] != [r["docids"] for r in second]


def test_rows_need_grades_and_reasoning_is_optional() -> None:
    unjudged = dataclasses.replace(TASK, grades=None)
    fmt = make("permutation", "reason")
    with pytest.raises(DataError, match=r"query 'q1': the task has no grades"):
        rows.group_rows(unjudged, [VIEW], fmt)
    (row,) = rows.sft_rows(TASK, [VIEW], fmt)
    outcome = fmt.parse(row["completion"][0]["content"], VIEW)
    assert (outcome.status, outcome.reasoning) == ("ok", "")
