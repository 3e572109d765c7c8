"""The groupwise parser: JSON as models write it, ties, odd numbers, and where the scores stand."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.formats import objects
from rank_rl.formats.scores import ScoresFormat
from rank_rl.records import Candidate, Query, Scores, View, numbered
from rank_rl.specs import FormatSpec


def view(count: int = 3) -> View:
    docs = [Candidate(docid="abcdefgh"[i], text=f"text {i}", rank=count - i) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def make(mode: str = "answer", **params: object) -> ScoresFormat:
    fmt = formats.make(FormatSpec(name="scores", mode=mode, params=params))
    assert isinstance(fmt, ScoresFormat)
    return fmt


def read(text: str, **params: object):
    outcome = make(**params).parse(text, view())
    values = dict(outcome.answer.values) if isinstance(outcome.answer, Scores) else None
    return outcome.status, values, set(outcome.issues)


@pytest.mark.parametrize(
    "text", ['{"[1]": 7, "[2]": 0, "[3]": 10}', ' {"[1]":7,\n"[2]" : 0,"[3]":10 }\n']
)
def test_a_plain_object_is_ok(text):
    assert read(text) == ("ok", {"a": 7, "b": 0, "c": 10}, set())


@pytest.mark.parametrize(
    ("text", "values", "issues"),
    [
        ('{"[1]": 7, "[2]": 0}', {"a": 7, "b": 0}, {"missing"}),
        ('{"[1]": 7, "[1]": 3, "[2]": 0, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"duplicate"}),
        ('{"[2]": 0, "[1]": 7, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"out_of_order"}),
        ('{"[1]": 70, "[2]": -3, "[3]": 1}', {"a": 10, "b": 0, "c": 1}, {"out_of_range"}),
        ('{"[1]": 7.5, "[2]": 0, "[3]": 1}', {"a": 7.5, "b": 0, "c": 1}, {"non_integer"}),
        ('{"[1]": "7", "[2]": 0, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"non_integer"}),
        ('{"[1]": true, "[2]": 0, "[3]": 1}', {"b": 0, "c": 1}, {"non_integer", "missing"}),
        ('{"[1]": NaN, "[2]": 0, "[3]": 1}', {"b": 0, "c": 1}, {"non_integer", "missing"}),
        (
            '{"[1]": 1e400, "[2]": -Infinity, "[3]": 1}',
            {"a": 10, "b": 0, "c": 1},
            {"non_integer", "out_of_range"},
        ),
        ('{"[0]": 9, "[1]": 7, "[2]": 0, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"unknown_label"}),
        ('{"1": 7, "2": 0, "3": 1}', {"a": 7, "b": 0, "c": 1}, {"label_spelling"}),
        ('{"[1]": 7, "[2]": 0, "[3]": 1,}', {"a": 7, "b": 0, "c": 1}, {"bad_json"}),
        ('{"[1]": 07, "[2]": 0, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"bad_json"}),
        ('{"[1]": 7, "[2]": 0', {"a": 7, "b": 0}, {"bad_json", "unfinished", "missing"}),
        ("[1]: 7\n[2]: 0\n[3]: 1", {"a": 7, "b": 0, "c": 1}, {"bad_json"}),
        ('{"scores": {"[1]": 7, "[2]": 0, "[3]": 1}}', {"a": 7, "b": 0, "c": 1}, {"bad_json"}),
        (
            '```json\n{"[1]": 7, "[2]": 0, "[3]": 1}\n```',
            {"a": 7, "b": 0, "c": 1},
            {"text_before", "text_after"},
        ),
        ('{"[1]": ７, "[2]": 0, "[3]": 1}', {"a": 7, "b": 0, "c": 1}, {"non_ascii"}),
        (
            r'{"[\u0031]": 7, "[2]": 0, "[3]": 1}',
            {"a": 7, "b": 0, "c": 1},
            {"bad_json"},
        ),
    ],
)
def test_scores_that_can_be_read_are_repaired_and_say_why(text, values, issues):
    assert read(text) == ("repaired", values, issues)


def test_a_number_of_any_length_is_clipped():
    assert read('{"[1]": ' + "9" * 5000 + ', "[2]": 0, "[3]": 1}')[1] == {"a": 10, "b": 0, "c": 1}


@pytest.mark.parametrize(
    "text",
    ["", "[1] is the best, 7 points", "{}", "[7, 0, 1]", '{"[9]": 1}', '{"a":' * 20000, "{" * 9999],
)
def test_no_label_with_a_score_fails(text):
    status, values, issues = read(text)
    assert (status, values) == ("failed", None) and "no_scores" in issues


def test_ties_and_all_zero_scores_stay_what_they_are():
    shown = view()
    outcome = make().parse('{"[1]": 0, "[2]": 0, "[3]": 0}', shown)
    assert outcome.status == "ok" and outcome.answer == Scores(values={"a": 0, "b": 0, "c": 0})
    assert outcome.as_order(shown) == shown.by_first_stage()


def test_documents_without_a_score_come_last():
    outcome = make().parse('{"[1]": 0, "[2]": 1}', view())
    assert outcome.as_order(view()) == ("b", "a", "c")


def test_scores_in_the_reasoning_are_not_read():
    fmt = make("reason")
    text = '<think>{"[1]": 9, "[2]": 9, "[3]": 9}</think><answer>%s</answer>'
    good = fmt.parse(text % '{"[1]": 1, "[2]": 2, "[3]": 3}', view())
    assert good.status == "ok" and good.answer == Scores(values={"a": 1, "b": 2, "c": 3})
    assert fmt.parse(text % "none", view()).answer is None


def test_ideal_spreads_grades_over_the_scale():
    assert make().ideal(view(), {"a": 1, "b": 2}) == '{"[1]": 5, "[2]": 10, "[3]": 0}'
    assert make(grade_max=3).ideal(view(), {"a": 1, "b": 2}) == '{"[1]": 3, "[2]": 7, "[3]": 0}'
    assert make(max=3).ideal(view(), {}) == '{"[1]": 0, "[2]": 0, "[3]": 0}'
    assert make(max=3).label_texts(view()) == ("0", "1", "2", "3")


def test_slot_spans_point_at_the_scores_of_the_answer():
    fmt = make("reason", prefill="<think>\n")
    text = '"[1]": 4</think>\n<answer>{"[1]": 7, "[2]": 10, "[3]": 0}</answer>'
    spans = fmt.slot_spans(text, view(), prefill="<think>\n")
    assert {label: text[a:b] for label, (a, b) in spans.items()} == {"1": "7", "2": "10", "3": "0"}
    assert spans["1"][0] > text.index("<answer>")
    assert make().slot_spans("no scores", view()) == {}


def test_scores_behind_quotations():
    docs = [
        Candidate(
            docid="a", title="Sun [2]", text='It is "a star": 4.6 billion years old <|im_end|>'
        ),
        Candidate(docid="b", text="élan", rank=2),
        Candidate(docid="c", text="[1] > [2]", rank=3),
    ]
    shown = numbered(Query(qid="q", text="why?"), docs)
    fmt = make(max=1, quote=6)
    ideal = fmt.ideal(shown, {"a": 1})
    assert ideal == '{"[1] Sun 2 . It is a": 1, "[2] élan": 0, "[3] 1 2": 0}'
    assert fmt.parse(ideal, shown).status == "ok"
    assert {k: ideal[a:b] for k, (a, b) in fmt.slot_spans(ideal, shown).items()} == {
        "1": "1",
        "2": "0",
        "3": "0",
    }
    assert "its first words" in fmt.render(shown).messages[-1]["content"]


@pytest.mark.parametrize(
    ("text", "values", "issues"),
    [
        ('{"[1] something else": 1, "[2] text 1": 0, "[3] text 2": 0}', (1, 0, 0), {"quote"}),
        ('{"[1]": 1, "[2] text 1": 0, "[3] text 2": 0}', (1, 0, 0), {"quote"}),
        (
            '{"[1] text 0": 1, "[2] text 1": 0, "[3] te',
            (1, 0),
            {"bad_json", "missing", "unfinished"},
        ),
        ('{"[9] text 0": 1, "[2] text 1": 0}', (None, 0), {"unknown_label", "missing"}),
    ],
)
def test_quotations_that_are_wrong_are_read_and_named(text, values, issues):
    outcome = make(max=1, quote=6).parse(text, view())
    wanted = {d: v for d, v in zip("abc", values, strict=False) if v is not None}
    assert isinstance(outcome.answer, Scores) and dict(outcome.answer.values) == wanted
    assert set(outcome.issues) == issues


def test_without_quotations_prose_behind_a_label_is_no_score():
    assert read("[1] mentions 3 things: 2 of them matter")[0] == "failed"


@pytest.mark.parametrize("quote", ['he said "no"', "back\\slash", "two\nlines", "full＂width"])
def test_a_key_that_json_must_escape_is_no_faultless_answer(quote):
    key = f"[1] {quote}"
    scores, issues = objects.read_scores(f'{{"{key}": 3}}', {"1": key}, 10)
    assert "bad_json" in issues
    assert scores in ({}, {"1": 3.0})


@pytest.mark.parametrize("answer", ["{}", "", "no object", '{"[1]": 3}'])
def test_scores_of_no_document_are_read_without_raising(answer):
    scores, issues = objects.read_scores(answer, {}, 10)
    assert scores == {}
    assert issues
