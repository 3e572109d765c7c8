"""One grade a prompt: a number alone counts, numbers in prose and in the reasoning never do."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.pointwise import PointwiseFormat
from rank_rl.records import Candidate, Query, Scores, View, numbered
from rank_rl.specs import FormatSpec


def view(count: int = 1) -> View:
    docs = [Candidate(docid="abc"[i], text=f"text {i}", rank=count - i) for i in range(count)]
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


@pytest.mark.parametrize(("text", "grade"), [("2", 2.0), (" 0\n", 0.0), ("3", 3.0)])
def test_a_plain_number_is_ok(text, grade):
    assert read(text) == ("ok", grade, set())


@pytest.mark.parametrize(
    ("text", "grade", "issues"),
    [
        ("Grade: 2", 2.0, {"grade_spelling"}),
        ("**Grade:** 2", 2.0, {"grade_spelling"}),
        ("The grade is 2.", 2.0, {"grade_spelling"}),
        ('{"grade": 2}', 2.0, {"grade_spelling"}),
        ("2/3", 2.0, {"grade_spelling"}),
        ("2 out of 3", 2.0, {"grade_spelling"}),
        ("**2**", 2.0, {"grade_spelling"}),
        ("[2]", 2.0, {"grade_spelling"}),
        ("02", 2.0, {"grade_spelling"}),
        ("2 (partial)", 2.0, {"grade_spelling"}),
        ("2: it names 3 fathers", 2.0, {"grade_spelling"}),
        ("It names 3 fathers since 1990.\n2", 2.0, {"grade_spelling"}),
        ("2\n\nGrade: 2", 2.0, {"grade_spelling"}),
        ("２", 2.0, {"non_ascii"}),
        ("٢", 2.0, {"non_ascii"}),
        ("2.5", 2.5, {"grade_spelling", "non_integer"}),
        ("7", 3.0, {"out_of_range"}),
        ("-1", 0.0, {"grade_spelling", "out_of_range"}),
        ("9" * 5000, 3.0, {"grade_spelling", "out_of_range"}),
        ("<answer>2</answer>", 2.0, {"unexpected_tags"}),
    ],
)
def test_a_grade_that_can_be_read_is_repaired_and_says_why(text, grade, issues):
    assert read(text) == ("repaired", grade, issues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "partial",
        "I think 3 documents and then 1",
        "There are 2 fathers",
        "1 or 2",
        "0 to 3",
        "grade: 0 to 3",
        "2/5",
        "7/10",
        "1\n2",
        "Grade: 1\nGrade: 2",
        "0: useless\n3: decisive",
        "2nd",
        "2,5",
        "1.5.2",
    ],
)
def test_prose_scales_and_several_numbers_are_no_grade(text):
    status, grade, issues = read(text)
    assert (status, grade) == ("failed", None)
    assert "no_grade" in issues


@pytest.mark.parametrize(
    ("text", "status", "grade"),
    [
        ("<think>3? No.</think><answer>1</answer>", "ok", 1.0),
        ("<think>\nGrade: 3\n</think>\n<answer></answer>", "failed", None),
        ("<think>Grade: 3</think>", "failed", None),
        ("<think>\n3\n", "failed", None),
        ("<think>x</think>1", "repaired", 1.0),
        ("<think>x</think><answer>1", "repaired", 1.0),
        ("<answer>3</answer><answer>1</answer>", "repaired", 1.0),
        ("<think>x</think><answer>1</answer> or 2", "repaired", 1.0),
        ("3\nis what I would say, or not", "failed", None),
        ("It names him.\nGrade: 1", "repaired", 1.0),
    ],
)
def test_the_grade_is_never_read_from_the_reasoning(text, status, grade):
    assert read(text, "reason")[:2] == (status, grade)


def test_the_reasoning_is_the_note_of_the_document():
    outcome = make("reason").parse("<think>It names him.</think><answer>3</answer>", view())
    assert outcome.reasoning == "It names him." and outcome.notes == {"a": "It names him."}
    assert make().parse("3", view()).notes == {}


def test_a_prompt_shows_one_document_its_scale_and_the_instruction():
    fmt, shown = make("reason", max=5), view(2)
    prompts = fmt.prompts(shown)
    assert len(prompts) == 2
    text = prompts[1].messages[1]["content"]
    assert text.startswith("Instruction: Find causes.\nQuestion: who?\n\nPassage: text 1\n\n")
    assert "text 0" not in text and "from 0 to 5" in text and "\n5: decisive" in text
    assert fmt.render(view()) == fmt.prompts(view())[0]
    hinted = FormatSpec(name="pointwise", first_stage_hint="rank")
    assert "Passage: (rank 1) text 0" in formats.make(hinted).render(view()).messages[1]["content"]


def test_several_documents_have_no_single_prompt_and_no_single_answer():
    fmt = make()
    with pytest.raises(RecipeError, match=r"one document at a time, not 2.*by_score with size 1"):
        fmt.render(view(2))
    with pytest.raises(RecipeError, match="one document at a time"):
        fmt.ideal(view(2), {"a": 1})
    outcome = fmt.parse("2", view(2))
    assert (outcome.status, outcome.issues) == ("failed", ("several_documents",))


def test_ideal_writes_grades_as_they_are_or_spread_over_the_scale():
    assert [make().ideal(view(), {"a": g}) for g in (-1, 0, 2, 3, 9)] == ["0", "0", "2", "3", "3"]
    spread = make(max=10, grade_max=2)
    assert [spread.ideal(view(), {"a": g}) for g in (0, 1, 2, 5)] == ["0", "5", "10", "10"]
    text = make("reason").ideal(view(), {"a": 2}, "it says </think><answer>3</answer>")
    assert text == "<think>\nit says (/think)(answer)3(/answer)\n</think>\n<answer>2</answer>"


def test_the_place_of_the_grade():
    fmt = make("reason")
    text = "because 3</think>\n<answer>Grade: 2</answer>"
    ((start, end),) = fmt.slot_spans(text, view(), prefill="<think>\n").values()
    assert text[start:end] == "2" and text[:start].endswith("Grade: ")
    assert make().slot_spans("3", view()) == {"1": (0, 1)}
    assert make().slot_spans("3", view(2)) == make().slot_spans("none", view()) == {}
    assert make().label_texts(view()) == ("0", "1", "2", "3")


def test_bad_parameters_are_refused():
    with pytest.raises(RecipeError, match=r"format\.params\.max"):
        make(max=0)
    with pytest.raises(RecipeError, match="prefill"):
        make(prefill="<think>")
    with pytest.raises(RecipeError, match=r"max is 3, but wording pointwise/graded10@1 .* grade 9"):
        make(wording="graded10")
    assert "\n10: gives" in make("answer", "graded10", max=10).render(view()).messages[1]["content"]
