"""Foreign teacher data: every schema read, every unusable record counted, nothing raised."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Order, Scores
from rank_rl.registry import resolve
from rank_rl.specs.teach import ImportSpec
from rank_rl.teachers.chats import Chain, judged, read_chain, read_shown
from rank_rl.teachers.imports import (
    IMPORTS,
    Imported,
    read_rankgpt,
    read_reasons,
    read_think_chat,
)

REASONS: dict[str, Any] = {
    "qid": "7",
    "query": "how do tides arise?",
    "passages": ["Boats float.", "The Moon pulls the sea.", "[3] The Sun pulls too."],
    "permutation": [2, 3, 1],
    "reasons": [
        {"identifier": 2, "direct_reason": "Names the Moon.", "listwise_reason": "More than 3."},
        {"identifier": "[3]", "direct_reason": "Names the Sun.", "listwise_reason": ""},
    ],
    "scores": ["0", "1", "0"],
}
LISTED = """<Instruct>: Rank the documents, e.g.
[1] > [2]

<Query>: how do tides arise

<Documents>:
[1] Boats float.
They do.
[2] The Moon pulls [5] the sea.
[3] The Sun pulls too.
 /think"""
SINGLE = "<Query>: how do tides arise\n\n<Document>: The Moon pulls [5] the sea. /think"
HUMAN = """I will provide you with 3 passages, each indicated by a numerical identifier [].
Rank them by their relevance to the search query: how do tides arise?.

[1] Boats float.

[2] The Moon pulls the sea.
[3] The Sun pulls too.

Search Query: how do tides arise?.
Rank the 3 passages above. The output format should be [] > [], e.g. [4] > [2]."""


def chat(user: str, answer: str) -> dict[str, Any]:
    roles = (("system", "Be brief."), ("user", user), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in roles]}


def thought(answer: str) -> str:
    return f"<think>\nThe Moon pulls.\n</think>\n\n{answer}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def take(tmp_path: Path, name: str, *records: Any, **params: Any) -> Imported:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    spec = ImportSpec(name=name, path=str(path), params=params, licence="CC0")
    readers = {"reasons": read_reasons, "think_chat": read_think_chat, "rankgpt": read_rankgpt}
    return readers[name](spec)


def test_every_name_of_the_table_is_a_reader():
    assert set(IMPORTS) == {"reasons", "think_chat", "rankgpt"}
    for name in IMPORTS:
        assert callable(resolve("import", name, IMPORTS))


def test_reasons_become_notes_comparisons_and_grades(tmp_path: Path):
    found = take(tmp_path, "reasons", REASONS, teacher="gpt")
    (lesson,) = found.lessons
    assert lesson.view.query.qid == lesson.unit == "7"
    assert lesson.view.docids == ("7-1", "7-2", "7-3")
    assert lesson.view.candidates[2].text == "[3] The Sun pulls too."
    assert lesson.answer == Order(docids=("7-2", "7-3", "7-1"))
    assert lesson.notes == {"7-2": "Names the Moon.", "7-3": "Names the Sun."}
    assert lesson.comparisons == {"7-2": "More than 3."}
    assert lesson.grades == {"7-1": 0, "7-2": 1, "7-3": 0}
    assert (lesson.question, lesson.teacher, lesson.licence) == ("reasons", "gpt", "CC0")
    assert (
        found.files["data.jsonl"]
        == hashlib.sha256(Path(tmp_path, "data.jsonl").read_bytes()).hexdigest()
    )


def test_scores_that_are_all_zero_are_unknown(tmp_path: Path):
    found = take(tmp_path, "reasons", REASONS | {"scores": ["0", "0", "0"]})
    assert found.lessons[0].grades is None
    assert take(tmp_path, "reasons", REASONS | {"scores": None}).lessons[0].grades is None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"query": " "}, "no_query"),
        ({"passages": None}, "no_passages"),
        ({"passages": ["a", 3, "c"]}, "no_passages"),
        ({"permutation": "none"}, "no_answer"),
        ({"permutation": []}, "no_answer"),
        ({"permutation": [2, 4, 1]}, "labels_unknown"),
        ({"permutation": [2, None, 1]}, "labels_unknown"),
        ({"permutation": [2, 2, 1]}, "not_a_permutation"),
        ({"permutation": [2, 1]}, "not_a_permutation"),
        ({"reasons": []}, "no_reasoning"),
        ({"reasons": [{"identifier": 1, "direct_reason": " "}]}, "no_reasoning"),
        ({"reasons": [{"identifier": 9, "direct_reason": "x"}]}, "labels_unknown"),
        ({"scores": [1, 0]}, "bad_scores"),
        ({"scores": [1, 0, float("nan")]}, "bad_scores"),
    ],
)
def test_an_unusable_record_is_counted_under_its_cause(tmp_path: Path, change: Any, cause: str):
    found = take(tmp_path, "reasons", REASONS, REASONS | change)
    assert len(found.lessons) == 1
    assert found.refused == {cause: 1}
    assert found.examples[cause].startswith(f"{tmp_path / 'data.jsonl'}:2")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[3] > [2] > [1]", Order(docids=("3", "2", "1"))),
        ("[1] < [3] < [2]", Order(docids=("2", "3", "1"))),
        ("[2] = [3] > [1]", Scores(values={"1": 1, "2": 2, "3": 2})),
        ("[2] = [3] = [1]", Scores(values={"1": 1, "2": 1, "3": 1})),
        ("[2](4) > [3](3.5) > [1](0)", Scores(values={"1": 0, "2": 4, "3": 3.5})),
        ("The order is:\n[3]>[2]>[1].", Order(docids=("3", "2", "1"))),
        ("<answer>[3] > [2] > [1]</answer>", Order(docids=("3", "2", "1"))),
    ],
)
def test_a_list_is_read_with_ties_and_grades(tmp_path: Path, answer: str, expected: Any):
    (lesson,) = take(tmp_path, "think_chat", chat(LISTED, thought(answer))).lessons
    assert lesson.question == "listwise" and lesson.reasoning == "The Moon pulls."
    names = dict(zip(lesson.view.docids, lesson.view.labels, strict=True))
    if isinstance(expected, Order):
        assert isinstance(lesson.answer, Order)
        assert tuple(names[d] for d in lesson.answer.docids) == expected.docids
    else:
        assert isinstance(lesson.answer, Scores)
        assert {names[d]: v for d, v in lesson.answer.values.items()} == expected.values


def test_documents_and_query_are_those_of_the_prompt(tmp_path: Path):
    (lesson,) = take(tmp_path, "think_chat", chat(LISTED, thought("[3] > [2] > [1]"))).lessons
    assert lesson.view.query.text == "how do tides arise"
    assert lesson.view.query.qid == short_hash("how do tides arise")
    assert [c.text for c in lesson.view.candidates] == [
        "Boats float.\nThey do.",
        "The Moon pulls [5] the sea.",
        "The Sun pulls too.",
    ]
    assert lesson.view.docids[2] == short_hash("The Sun pulls too.")


@pytest.mark.parametrize(
    ("answer", "value"), [("yes", 1), ("No.", 0), ("yes(3)", 3), ("no (0)", 0), ("4", 4)]
)
def test_a_single_document_is_judged(tmp_path: Path, answer: str, value: float):
    found = take(
        tmp_path,
        "think_chat",
        chat(SINGLE, thought(answer)),
        chat(LISTED, thought("[1] > [2] > [3]")),
    )
    lesson, listed = found.lessons
    assert lesson.question == "pointwise"
    docid = short_hash("The Moon pulls [5] the sea.")
    assert lesson.answer == Scores(values={docid: value})
    assert docid in listed.view.docids
    assert lesson.view.query == listed.view.query


def test_a_pair_and_the_other_chat_schema(tmp_path: Path):
    user = "Query: tides\n[1] Boats float.\n[2] The Moon pulls.\n /no_think"
    turns = [{"from": "human", "value": user}, {"from": "gpt", "value": "[1](0) < [2](3)"}]
    (lesson,) = take(tmp_path, "think_chat", {"conversations": turns}).lessons
    assert lesson.question == "pairwise" and lesson.reasoning == ""
    assert [c.text for c in lesson.view.candidates] == ["Boats float.", "The Moon pulls."]
    assert isinstance(lesson.answer, Scores) and sorted(lesson.answer.values.values()) == [0, 3]


@pytest.mark.parametrize(
    ("user", "answer", "cause"),
    [
        ("<Query>: q", thought("[1]"), "no_passages"),
        (LISTED.replace("<Query>: how do tides arise", ""), thought("[1]"), "no_query"),
        (LISTED.replace("[3] The", "[5] The"), thought("[1]"), "ambiguous_documents"),
        (LISTED.replace("They do.", "[1] They do."), thought("[1]"), "ambiguous_documents"),
        (LISTED.replace("The Sun pulls too.", ""), thought("[1]"), "no_passages"),
        (
            LISTED.replace("The Sun pulls too.", "The Moon pulls [5] the sea."),
            thought("[1] > [2] > [3]"),
            "duplicate_documents",
        ),
        (LISTED, "[1] > [2] > [3]", "no_reasoning"),
        (LISTED, "<think>The Moon", "no_answer"),
        (LISTED, thought("All of them."), "no_answer"),
        (LISTED, thought("[1] > [2] < [3]"), "no_answer"),
        (LISTED, thought("[1](2) > [2] > [3]"), "no_answer"),
        (LISTED, thought("[1] > [2] > [4]"), "labels_unknown"),
        (LISTED, thought("[1] > [2]"), "not_a_permutation"),
        (LISTED, thought("[1](1) > [2](2) > [3](0)"), "grades_contradict"),
        (SINGLE, thought("perhaps"), "no_answer"),
    ],
)
def test_an_unusable_chat_is_counted_under_its_cause(
    tmp_path: Path, user: str, answer: str, cause: str
):
    found = take(tmp_path, "think_chat", chat(user, answer))
    assert found.lessons == () and found.refused == {cause: 1}


def test_kinds_and_long_reasoning_can_be_left_out(tmp_path: Path):
    records = chat(SINGLE, thought("yes")), chat(LISTED, thought("[1] > [2] > [3]"))
    found = take(tmp_path, "think_chat", *records, kinds=["listwise"])
    assert [x.question for x in found.lessons] == ["listwise"]
    assert found.refused == {"kind_not_wanted": 1}
    found = take(tmp_path, "think_chat", *records, max_reasoning_words=2)
    assert found.refused == {"long_reasoning": 2}
    assert len(take(tmp_path, "think_chat", *records, max_reasoning_words=3).lessons) == 2


def test_rankgpt_conversations(tmp_path: Path):
    turns = [
        {"from": "system", "value": "You are a ranker."},
        {"from": "human", "value": HUMAN},
        {"from": "gpt", "value": "[3] > [1] > [2]"},
    ]
    (lesson,) = take(tmp_path, "rankgpt", {"conversations": turns}).lessons
    assert lesson.view.query.text == "how do tides arise?"
    assert [c.text for c in lesson.view.candidates] == [
        "Boats float.",
        "The Moon pulls the sea.",
        "The Sun pulls too.",
    ]
    d = lesson.view.docids
    assert lesson.answer == Order(docids=(d[2], d[0], d[1]))
    assert (lesson.question, lesson.reasoning) == ("rankgpt", "")


def test_rankgpt_passages_that_came_one_a_turn(tmp_path: Path):
    said = [
        ("user", "I will rank 2 passages by their relevance to query: tides."),
        ("assistant", "Okay, please provide the passages."),
        ("user", "[1] Boats float."),
        ("assistant", "Received passage [1]."),
        ("user", "[2] The Moon pulls."),
        ("assistant", "Received passage [2]."),
        ("user", "Search Query: tides. \nRank the 2 passages above."),
        ("assistant", "[2] > [1]"),
    ]
    record = {"messages": [{"role": role, "content": text} for role, text in said]}
    (lesson,) = take(tmp_path, "rankgpt", record).lessons
    assert lesson.view.query.text == "tides"
    assert lesson.order == (short_hash("The Moon pulls."), short_hash("Boats float."))


@pytest.mark.parametrize("permutation", [[3, 1, 2], ["3", "1", "2"], "[3] > [1] > [2]"])
@pytest.mark.parametrize("array", [False, True])
def test_rankgpt_plain_records(tmp_path: Path, permutation: Any, array: bool):
    hits = [{"content": "Boats float.", "docid": 5}, {"text": "The Moon."}, {"content": "Sun."}]
    record = {"qid": 3, "query": "tides", "hits": hits, "permutation": permutation}
    path = tmp_path / "plain.json"
    path.write_text(json.dumps([record, 4], indent=1) if array else json.dumps(record) + "\n4\n")
    found = read_rankgpt(ImportSpec(name="rankgpt", path=str(path)))
    (lesson,) = found.lessons
    assert lesson.view.query.qid == "3"
    assert lesson.order == (short_hash("Sun."), "5", short_hash("The Moon."))
    assert found.refused == {"not_an_object": 1}


@pytest.mark.parametrize("text", ["", "not json\n", "[1, 2\n", '["a"]', "\xff\xfe"])
def test_a_file_without_records_is_one_error(tmp_path: Path, text: str):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    for name in IMPORTS:
        with pytest.raises(DataError, match=r"bad\.jsonl"):
            resolve("import", name, IMPORTS)(ImportSpec(name=name, path=str(path)))
    with pytest.raises(DataError, match="no such file"):
        read_reasons(ImportSpec(name="reasons", path=str(tmp_path / "absent.jsonl")))


def test_a_broken_line_costs_only_itself(tmp_path: Path):
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(REASONS) + "\n" + json.dumps(REASONS)[:40] + "\n" + "[" * 9000)
    found = read_reasons(ImportSpec(name="reasons", path=str(path)))
    assert len(found.lessons) == 1 and found.refused == {"not_an_object": 2}
    assert all("\n" not in text for text in found.examples.values())


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("reasons", {"kinds": ["listwise"]}, "expected one of teacher"),
        ("rankgpt", {"x": 1}, "expected one of teacher"),
        ("think_chat", {"x": 1}, "expected one of kinds, max_reasoning_words, teacher"),
        ("think_chat", {"kinds": ["setwise"]}, "listwise"),
        ("think_chat", {"kinds": "listwise"}, "listwise"),
        ("think_chat", {"max_reasoning_words": 0}, "1 or more"),
        ("think_chat", {"teacher": 5}, "a name"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, name: str, params: Any, message: str):
    with pytest.raises(RecipeError, match=message):
        take(tmp_path, name, REASONS, **params)


def test_chains_and_judgements():
    assert read_chain("[02] = [1]") == Chain(groups=(("2", "1"),))
    assert read_chain("[1], [2]") is None
    assert read_chain("") is None
    assert judged("maybe") is None and judged("-1") == -1


def test_a_query_may_stand_behind_its_documents():
    shown = read_shown("[1] A.\n[2] B. query: x\n<Query>: what is\nthis?")
    assert shown.query == "what is\nthis?"
    assert shown.documents == {"1": "A.", "2": "B. query: x"}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
KEYS = ("qid", "query", "passages", "hits", "permutation", "reasons", "scores", "messages")
CHATTY = st.sampled_from(
    [LISTED, SINGLE, HUMAN, "[1] > [2]", "<think>", "</think>", "/think", "[1]"]
)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), ANY),
    st.lists(CHATTY | st.text(max_size=10), max_size=5),
    st.text(max_size=10),
)
def test_no_record_raises(change: dict[str, Any], parts: list[str], text: str):
    records = [change, REASONS | change, chat("\n".join(parts), " ".join(reversed(parts)) + text)]
    with TemporaryDirectory() as folder:
        for name in IMPORTS:
            found = take(Path(folder), name, *records)
            assert len(found.lessons) + sum(found.refused.values()) == len(records)
            assert set(found.examples) == set(found.refused)
