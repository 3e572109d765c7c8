"""Grades in words and grades before their reasons: read strictly, never guessed from prose."""

from __future__ import annotations

import pytest
import yaml

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.pointwise import PointwiseFormat
from rank_rl.records import Candidate, Query, Scores, View, numbered
from rank_rl.specs import FormatSpec

YES_NO = {"wording": "yes_no", "labels": ["no", "yes"]}
THREE = {"wording": "words", "labels": ["irrelevant", "partly", "relevant"]}
FIRST = {"order": "label_first"}


def view() -> View:
    docs = [Candidate(docid="a", text="text", rank=1)]
    return numbered(Query(qid="q", text="who?", instruction="Find causes."), docs)


def make(mode: str = "answer", wording: str = "default", **params: object) -> PointwiseFormat:
    return PointwiseFormat(
        FormatSpec.model_validate(
            {"name": "pointwise", "mode": mode, "wording": wording, "params": params}
        )
    )


def read(text: str, mode: str = "answer", **params: object):
    outcome = make(mode, **params).parse(text, view())
    grade = outcome.answer.values["a"] if isinstance(outcome.answer, Scores) else None
    return outcome.status, grade, set(outcome.issues)


def test_a_label_alone_is_ok():
    assert read("yes", **YES_NO) == ("ok", 1.0, set())
    assert read(" no\n", **YES_NO) == ("ok", 0.0, set())
    assert read("partly", **THREE) == ("ok", 1.0, set())
    assert read("partly", values=[-1, 0.5, 4], **THREE) == ("ok", 0.5, set())


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Yes", 1.0),
        ("yes.", 1.0),
        ("**Yes**", 1.0),
        ("Yes, it names him.", 1.0),
        ("No: another subject", 0.0),
        ("Answer: yes", 1.0),
        ("**Answer:** no", 0.0),
        ("yes\n\nAnswer: yes", 1.0),
        ("It names him.\nYes", 1.0),
    ],
)
def test_a_label_that_can_be_read_is_repaired(text, grade):
    assert read(text, **YES_NO) == ("repaired", grade, {"grade_spelling"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "yes and no",
        "yes or no",
        "yes, no",
        "yes/no",
        "yes\nno",
        "Answer: yes\nAnswer: no",
        "There is no such passage",
        "yesterday",
        "1",
        "maybe",
        "I would say yes to that",
    ],
)
def test_prose_and_both_labels_are_no_grade(text):
    assert read(text, **YES_NO) == ("failed", None, {"no_grade"})


@pytest.mark.parametrize("text", ["0.5", "0/1", "-1", "10", "0 or 1", "2"])
def test_digits_as_labels_are_words(text):
    assert read("1", wording="binary", labels=[0, 1]) == ("ok", 1.0, set())
    assert read(text, wording="binary", labels=[0, 1]) == ("failed", None, {"no_grade"})


def test_a_label_within_another_word_is_not_read():
    assert read("irrelevant", **THREE)[:2] == ("ok", 0.0)
    assert read("Irrelevant.", **THREE)[:2] == ("repaired", 0.0)
    assert read("not relevant", **THREE)[:2] == ("failed", None)
    assert read("Answer: not relevant", **THREE)[:2] == ("failed", None)


def test_words_between_tags_and_never_from_the_reasoning():
    text = "<think>yes? It names her.</think><answer>no</answer>"
    assert read(text, "reason", **YES_NO) == ("ok", 0.0, set())
    assert read("<think>\nyes\n</think><answer></answer>", "reason", **YES_NO)[:2] == (
        "failed",
        None,
    )
    assert read("yes\nis what I would say", "reason", **YES_NO)[:2] == ("failed", None)


@pytest.mark.parametrize(
    ("text", "params", "grade", "note"),
    [
        ("yes. It names him.", YES_NO, 1.0, "It names him."),
        ("no.", YES_NO, 0.0, ""),
        (" no. It says: no\nor yes.", YES_NO, 0.0, "It says: no or yes."),
        ("2. It names 3 fathers.", {}, 2.0, "It names 3 fathers."),
        ("partly. Ｔhe date is missing", THREE, 1.0, "Ｔhe date is missing"),
    ],
)
def test_a_label_first_and_its_reason_are_ok(text, params, grade, note):
    outcome = make("reason", **FIRST, **params).parse(text, view())
    assert (outcome.status, outcome.answer) == ("ok", Scores(values={"a": grade}))
    assert outcome.reasoning == note and outcome.notes == ({"a": note} if note else {})


@pytest.mark.parametrize(
    ("text", "params", "grade", "issues"),
    [
        ("yes", YES_NO, 1.0, {"no_note"}),
        ("Yes. It names him.", YES_NO, 1.0, {"grade_spelling"}),
        ("yes, it names him.", YES_NO, 1.0, {"separator"}),
        ("yes\nIt names him.", YES_NO, 1.0, {"separator"}),
        ("Answer: yes. It names him.", YES_NO, 1.0, {"grade_spelling"}),
        ("２. It names him", {}, 2.0, {"non_ascii"}),
        ("2/3. It names him", {}, 2.0, {"grade_spelling"}),
        ("yes*. It names him", YES_NO, 1.0, {"grade_spelling"}),
        ("2*. It names him", {}, 2.0, {"separator"}),
        ("**yes**. It names him", YES_NO, 1.0, {"grade_spelling"}),
        ("2.5. It names him", {}, 2.5, {"grade_spelling", "non_integer"}),
        ("7. It names him", {}, 3.0, {"out_of_range"}),
        ("<think>so</think><answer>yes</answer>", YES_NO, 1.0, {"unexpected_tags", "no_note"}),
    ],
)
def test_a_label_first_that_can_be_read_is_repaired(text, params, grade, issues):
    assert read(text, "reason", **FIRST, **params) == ("repaired", grade, issues)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("It names him. yes", YES_NO),
        ("no idea", YES_NO),
        ("yes or no", YES_NO),
        ("I think 3 documents", {}),
        ("1 or 2. It depends", {}),
        ("2/5. It names him", {}),
        ("2nd", {}),
        ("[1.5.2] x", {}),
        ("", {}),
    ],
)
def test_a_label_that_does_not_come_first_is_no_grade(text, params):
    assert read(text, "reason", **FIRST, **params)[:2] == ("failed", None)


def test_ideal_spreads_grades_over_the_labels():
    fmt = make(grade_max=4, **THREE)
    assert [fmt.ideal(view(), {"a": g}) for g in (0, 1, 2, 3, 4, 9)] == [
        *("irrelevant", "partly", "partly"),
        *("relevant", "relevant", "relevant"),
    ]
    assert [make(**YES_NO).ideal(view(), {"a": g}) for g in (0, 1, 3)] == ["no", "yes", "yes"]
    first = make("reason", **FIRST, **YES_NO)
    assert first.ideal(view(), {"a": 1}, "It names\nhim </think>") == "yes. It names him (/think)"
    assert first.ideal(view(), {}) == "no."


def test_what_a_readout_needs():
    fmt = make(values=[0, 1, 3], **THREE)
    assert fmt.label_texts(view()) == ("irrelevant", "partly", "relevant")
    assert fmt.values == (0.0, 1.0, 3.0) and fmt.lead(view()) == ""
    assert fmt.slot_spans("**Partly**", view()) == {"1": (2, 8)}
    first = make("reason", **FIRST, **YES_NO)
    assert first.lead(view()) == "" and first.choices(view()) == ("no", "yes")
    assert first.slot_spans("Answer: yes. Because no", view()) == {"1": (8, 11)}
    assert make("reason", **YES_NO).lead(view()) is None
    assert make().values == (0.0, 1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("wording", "params", "shown"),
    [
        ("yes_no", {"labels": ["no", "yes"]}, "yes or no"),
        ("words", {"labels": ["bad", "fair", "good"]}, "bad, fair or good"),
        ("binary", {"labels": ["0", "1"]}, "0 or 1"),
        ("binary", {"max": 1}, "0 or 1"),
        ("rubric100", {"max": 100}, "from 0 to 100"),
        ("words", {"max": 100}, "0 to 100"),
    ],
)
def test_wordings_ask_for_the_labels(wording, params, shown):
    for mode, order in (("answer", {}), ("reason", {}), ("reason", FIRST)):
        user = make(mode, wording, **order, **params).render(view()).messages[1]["content"]
        assert shown in user and "Passage: text" in user and "Find causes." in user
        assert ("<answer>" in user) == (mode == "reason" and not order)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"labels": ["no", "yes"]}, r"wording pointwise/default@1 does not ask for no or yes"),
        ({"wording": "yes_no"}, r"pointwise/yes_no@1 does not ask for 0, 1, 2 or 3"),
        ({"wording": "binary"}, r"does not ask for 0, 1, 2 or 3"),
        ({"wording": "rubric100", "max": 10}, r"speaks of grade 81"),
        ({"wording": "words", "labels": ["a", "A"]}, "distinct words"),
        ({"wording": "words", "labels": ["a", ""]}, "distinct words"),
        ({"wording": "words", "labels": ["a", "[b]"]}, "distinct words"),
        ({"wording": "words", "labels": ["a"]}, r"format\.params\.labels"),
        ({"labels": [False, True]}, "put them in quotes"),
        ({**YES_NO, "max": 1}, r"format\.params\.max: labels are a scale of their own"),
        ({**YES_NO, "values": [1, 0]}, "each above the one before"),
        ({**YES_NO, "values": [1]}, "one value a label"),
        ({"values": [1, 0]}, "values without labels"),
        ({"order": "last"}, r"format\.params\.order"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(RecipeError, match=message):
        make(**params)
    with pytest.raises(RecipeError, match="prefill"):
        make("reason", prefill="<think>\n", **FIRST)


def test_yes_and_no_as_yaml_reads_them():
    text = "{name: pointwise, mode: answer, wording: yes_no, params: {labels: LABELS}}"
    for labels, refused in (('["no", "yes"]', False), ("[no, yes]", True)):
        spec = FormatSpec.model_validate(yaml.safe_load(text.replace("LABELS", labels)))
        if refused:
            with pytest.raises(RecipeError, match="put them in quotes"):
                formats.make(spec)
        else:
            assert formats.make(spec).label_texts(view()) == ("no", "yes")
