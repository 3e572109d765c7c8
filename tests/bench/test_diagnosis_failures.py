"""Failures of answers by kind, and a description for every name that a parser can give."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from format_variants import CASES, SIZES, make

from rank_rl import Reranker, formats
from rank_rl.bench import diagnosis
from rank_rl.bench.traces import exchange_record, trace
from rank_rl.errors import DataError
from rank_rl.formats import tags
from rank_rl.generation.canned import CannedGenerator
from rank_rl.records import Candidate, Completion, Exchange, Query, RankingTask, numbered
from rank_rl.specs import FormatSpec, ModelSpec

TASK = RankingTask(
    query=Query(qid="q", text="who is the father?"),
    candidates=tuple(Candidate(docid=f"d{i}", text=f"text {i}", rank=i + 1) for i in range(3)),
)
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<Think >", "[1]", "[2]", "[9]", "[２]",
    "1", "2", " > ", " = ", ", ", "\n", "{", "}", '"[1]": 7', '"[2]": -3', '"[3]": 1.5', ": ",
    '{"[1]": ', "[", "]", "Relevant:", " yes", " no", " yes. ", "YES", ". ", "because",
    "Explicit:\n", "\nComparison:\n", "\n[1] ", "\n[2] says why", "\n[9] x", "Grade: 2", "2/3",
    "[2] > [1]", "[1] = [2]", "good", "-1", "1.5", "Answer: ", "[1] > [1] > [2]", "3 > 1",
    '{"[1] text 0": 1, "[2] tex": 2, "[3] text 2": 0}', '{"1": 3, "[3]": 2, "[2]": 1, "x": 0}',
)  # fmt: skip
WHOLE = (
    '{"[1]": 1, "[2]": 2, "[3]": 0} {',
    "[3] > [1] > [2] > [9]",
    "[3] > [1] > [2] > [3]",
    "<think>a</think>b<answer>[2] > [1] > [3]</answer>",
    "<think>a</think><think>b</think><answer>[2]</answer>",
    "<answer>[2]</answer><think>a</think>",
    "Relevant: yes. So.\nRelevant: no. So.\nRelevant: no\nRelevant: no",
    "Relevant: yes. It does. Relevant: no",
    "yes because",
    "The best is [2], then [1].",
    "Explicit:\n[2] a\n[1] b\n[2] c\nComparison:\n[1] a\n[2] b\n[1] c\n",
)
SECTIONS = (
    "<think>Explicit:\n[2] a\n[1] b\n[2] c\nComparison:\n[1] a\n[2] b\n[1] c\n[3] d\n</think>"
    "<answer>[3] > [2] > [1]</answer>"
)
FURTHER: dict[str, list[dict[str, object]]] = {
    "scores": [{"quote": 2}],
    "permutation": [{"top": 1}],
    "explain": [{"comparison": False}, {"explicit": False}],
}


def test_every_issue_that_parsers_name_is_described():
    drawn = random.Random(0)
    seen: set[str] = set()
    for variant, mode in CASES:
        made = [make(variant, mode, params) for params in [{}, *FURTHER.get(variant, [])]]
        for count in {SIZES.get(variant, 3), 1, 3}:
            view = numbered(TASK.query, TASK.candidates[:count])
            written = [*WHOLE, *("".join(drawn.choices(PIECES, k=6)) for _ in range(150))]
            written += [f"<think>a</think><answer>{text}</answer>" for text in written]
            written.append(SECTIONS)
            for fmt in made:
                for text in written:
                    seen.update(fmt.parse(text, view).issues)
    assert seen - diagnosis.ISSUES.keys() == set()
    assert diagnosis.ISSUES.keys() >= tags.ISSUES
    # Descriptions of names that nothing gives any more would mislead.
    assert diagnosis.ISSUES.keys() - seen - tags.ISSUES == set()


def test_descriptions():
    assert diagnosis.describe("cut_off") == "stopped at the longest answer allowed"
    assert diagnosis.describe("no_list") == "no list of documents"
    assert diagnosis.describe("a_new_one") == "a new one"
    assert not diagnosis.KINDS.keys() & diagnosis.ISSUES.keys()


def answered(fmt: str, completion: Completion, **spec: Any) -> dict[str, Any]:
    made = formats.make(FormatSpec(name=fmt, **spec))
    view = numbered(TASK.query, TASK.candidates)
    return exchange_record(
        Exchange(
            qid="q",
            view=view,
            prompt=made.render(view),
            completion=completion,
            outcome=made.parse(completion.text, view),
        )
    )


def test_failures_by_kind():
    asked = [
        answered("permutation", Completion(text="[2] > [1] > [3]")),
        answered("permutation", Completion(text="[2] > [1] > [", finish="length")),
        answered("permutation", Completion(text="I cannot say", finish="length")),
        answered("permutation", Completion(text=" \n")),
        answered("permutation", Completion(text="", finish="error")),
    ]
    assert diagnosis.failures(asked) == {
        "unreadable": 3,
        "repaired": 1,
        "cut_off": 2,
        "empty": 1,
        "error": 1,
    }
    assert diagnosis.failures(asked[:1]) == {}
    assert diagnosis.failures(asked[:1], {"ok": 8, "failed": 2}) == {"unreadable": 2}
    assert diagnosis.issues(asked) == {
        "no_list": 3,
        "missing": 1,
        "text_after": 1,
        "unfinished": 1,
    }


def test_scorers_are_silent_and_explanations_are_counted_apart(tiny_model_dir):
    from rank_rl.models.loading import load

    scorer = {
        "completion": {"text": "", "finish": "stop"},
        "outcome": {"status": "ok", "answer": {"values": {"a": 0.1}, "unread": []}, "issues": []},
    }
    assert diagnosis.failures([scorer]) == {}
    loaded = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")
    fmt = formats.make(FormatSpec(name="slots", mode="reason"))
    canned = CannedGenerator([" no note of this kind", ". It says who."])
    reranker = Reranker(loaded=loaded, fmt=fmt, generator=canned)
    (result,) = reranker.rank_tasks([TASK], explain=2)
    lines = [json.loads(line) for line in trace(result)]
    found = diagnosis.failures(lines, result.statuses)
    assert found == {"unreadable": 3, "explanation_malformed": 1}
    assert diagnosis.issues(lines) == {"separator": 1}
    # Slots read as they would be written leave documents without a score.
    decoded = Reranker(loaded=loaded, fmt=fmt, generator=canned, readout="decoded")
    (result,) = decoded.rank_tasks([TASK])
    lines = [json.loads(line) for line in trace(result)]
    assert diagnosis.failures(lines)["unreadable"] == 1


def test_files_that_hold_no_exchanges_are_one_line(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(DataError, match=r"x\.jsonl: cannot be read"):
        diagnosis.records(path)
    for text, line in (('{"explains": "d"}\n{', 2), ("[]", 1), ("3", 1), ('{"a": 1}', 1)):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"x\.jsonl, line {line}"):
            diagnosis.records(path)
