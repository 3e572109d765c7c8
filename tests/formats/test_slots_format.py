"""Label first, note after it: packed prompts, one answer a document, labels as words or digits."""

from __future__ import annotations

import math

import pytest

from rank_rl.errors import RecipeError
from rank_rl.formats.slots import SlotFormat
from rank_rl.records import Candidate, Query, Scores, View, numbered
from rank_rl.specs import FormatSpec


def view(count: int = 3) -> View:
    docs = [
        Candidate(docid="abcdefgh"[i], title=f"T{i}", text=f"text {i}", rank=count - i)
        for i in range(count)
    ]
    return numbered(Query(qid="q", text="who?"), docs)


def make(mode: str = "reason", wording: str = "default", **params: object) -> SlotFormat:
    return SlotFormat(FormatSpec(name="slots", mode=mode, wording=wording, params=params))


def test_the_packed_prompt_is_the_single_prompt_cut_in_two():
    fmt, shown = make("answer", "plain"), view()
    slots = fmt.slots(shown)
    assert slots.system == "Judge whether the passage helps to answer the question."
    assert slots.head == "Question: who?\n" and slots.bodies[0] == "Passage: T0. text 0"
    assert (slots.lead, slots.labels, slots.values) == ("Relevant:", (" no", " yes"), (0.0, 1.0))
    for index, docid in enumerate(shown.docids):
        one = numbered(shown.query, [shown.candidates[index]])
        prompt = fmt.render(one)
        assert prompt == fmt.prompts(shown)[index], docid
        assert [m["content"] for m in prompt.messages] == [
            slots.system,
            slots.head + slots.bodies[index],
        ]
        assert prompt.prefill == slots.lead


def test_several_documents_have_no_single_prompt():
    with pytest.raises(RecipeError, match="one document at a time, not 3"):
        make().render(view())


def test_instruction_and_hint_reach_every_document():
    shown = view()
    query = Query(qid="q", text="who?", instruction="Find causes.")
    shown = View(query=query, candidates=shown.candidates, labels=shown.labels)
    fmt = SlotFormat(FormatSpec(name="slots", first_stage_hint="rank"))
    slots = fmt.slots(shown)
    assert slots.head == "Instruction: Find causes.\nQuestion: who?\n"
    assert slots.bodies[2] == "Passage: (rank 1) T2. text 2"
    assert all(
        "Find causes." in m[1]["content"] for m in (fmt.slot_messages(shown, i) for i in range(3))
    )


def test_digit_labels_leave_the_space_to_the_lead():
    fmt = make("answer", labels=["0", "1", "2"])
    slots = fmt.slots(view())
    assert (slots.lead, slots.labels) == ("Relevant: ", ("0", "1", "2"))
    assert fmt.ideal(view(1), {"a": 9}) == "Relevant: 2"
    assert fmt.parse("2", view(1), prefill="Relevant: ").status == "ok"
    assert fmt.parse_slot("12")[0] is None
    spaced = make("answer", labels=[" 0", " 1"]).slots(view())
    assert (spaced.lead, spaced.labels) == ("Relevant:", (" 0", " 1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" yes. It names him.", (" yes", "It names him.", ())),
        (" no.", (" no", "", ())),
        (" no", (" no", "", ("no_note",))),
        (" yes, it does", (" yes", "it does", ("separator",))),
        ("Yes. It does", (" yes", "It does", ("label_spelling",))),
        (" **no** so", (" no", "** so", ("label_spelling", "separator"))),
        (" yes. It.\nRelevant: no. Not", (" yes", "It.", ("second_label",))),
        (" yesterday he came", (None, "", ("no_label",))),
        (" It says yes", (None, "", ("no_label",))),
        ("", (None, "", ("no_label",))),
    ],
)
def test_parse_slot_with_a_note(text, expected):
    assert make().parse_slot(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" yes", (" yes", "", ())),
        (" yes\n", (" yes", "", ())),
        (" yes. It names him.", (" yes", "", ("trailing_text",))),
        ("no", (" no", "", ("label_spelling",))),
    ],
)
def test_parse_slot_of_a_bare_label(text, expected):
    assert make("answer").parse_slot(text) == expected


def test_labels_of_another_script_and_odd_case_folding():
    fmt = make("answer", labels=["нет", "да"])
    assert fmt.parse_slot(" ДА")[0] == " да"
    assert make("answer").parse_slot(" yeſ")[0] in (None, " yes")


def test_ideal_slot_clips_grades_and_folds_the_note():
    assert make().ideal_slot(3, "It says\nwho.") == " yes. It says who."
    assert make().ideal_slot(0) == " no."
    assert make("answer").ideal_slot(-1, "never written") == " no"


def test_one_document_with_and_without_its_lead():
    fmt, one = make(), view(1)
    outcome = fmt.parse(" yes. It names him.", one, prefill="Relevant:")
    assert outcome.status == "ok" and outcome.answer == Scores(values={"a": 1.0})
    assert outcome.notes == {"a": "It names him."} and outcome.reasoning == "It names him."
    assert fmt.parse("Relevant: yes. It names him.", one).status == "ok"
    assert fmt.parse(" yes. It names him.", one).issues == ("no_lead",)
    failed = fmt.parse(" maybe", one, prefill="Relevant:")
    assert failed.status == "failed" and failed.answer is None


def test_several_documents_answer_a_line_each():
    fmt, shown = make(), view()
    text = fmt.ideal(shown, {"b": 1}, "first\nsecond\nthird")
    assert text == "Relevant: no. first\nRelevant: yes. second\nRelevant: no. third"
    outcome = fmt.parse(text, shown)
    assert outcome.status == "ok" and outcome.as_order(shown) == ("b", "c", "a")
    assert outcome.notes["c"] == "third"
    short = fmt.parse("Relevant: no. x\nRelevant: yes. y", shown)
    assert short.status == "repaired" and short.answer == Scores(values={"a": 0.0, "b": 1.0})
    assert "missing" in short.issues
    long = fmt.parse(text + "\nRelevant: yes. more", shown)
    assert long.issues == ("extra_documents",)


def test_to_outcome_from_labels_or_from_finer_scores():
    fmt, shown = make(), view()
    said = fmt.to_outcome(shown, [" yes", "no", " yes"], None, {"a": "why"})
    assert said.status == "ok" and said.answer == Scores(values={"a": 1, "b": 0, "c": 1})
    assert said.notes == {"a": "why"}
    finer = fmt.to_outcome(shown, [" yes", " no", None], [0.7, -0.2, math.nan], {})
    assert finer.answer == Scores(values={"a": 0.7, "b": -0.2})
    assert finer.status == "repaired" and finer.issues == ("no_label", "missing")
    assert fmt.to_outcome(shown, [None, None, None], None, {}).status == "failed"


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"labels": ["yes", "Yes"]}, "format.params.labels"),
        ({"labels": ["yes"]}, "format.params.labels"),
        ({"labels": ["no", " "]}, "format.params.labels"),
        ({"values": [1.0]}, "format.params.values"),
        ({"lead": " \n"}, "format.params.lead"),
        ({"label": ["no", "yes"]}, "format.params.label"),
    ],
)
def test_bad_parameters_are_refused(params, where):
    with pytest.raises(RecipeError, match=where):
        make(**params)


def test_values_may_be_given():
    assert make(labels=["no", "partly", "yes"], values=[0, 0.5, 2]).values == (0.0, 0.5, 2.0)


def test_context_shows_the_best_of_the_first_stage_with_the_query():
    shown = view()
    plain, fmt = make(), make(context=2)
    first = sorted(shown.candidates, key=lambda c: c.rank)[:2]
    told = "".join(f"Also found: {c.content}\n" for c in first)
    assert fmt.slots(shown).head == plain.slots(shown).head + told
    assert fmt.slots(shown).bodies == plain.slots(shown).bodies
    for index in range(3):
        user = fmt.slot_messages(shown, index)[-1]["content"]
        assert user == fmt.slots(shown).head + fmt.slots(shown).bodies[index]
    with pytest.raises(RecipeError, match="context"):
        make(context=-1)
