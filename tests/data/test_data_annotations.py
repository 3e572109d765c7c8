"""Reasoning from human annotations: what is parsed, assigned, told and left out."""

from __future__ import annotations

import pytest

from rank_rl.data import annotations, hops, proofs
from rank_rl.records import Candidate, Query, RankingTask, numbered


def task(
    metadata: dict[str, object], grades: dict[str, int], *documents: tuple[str, str, str]
) -> RankingTask:
    return RankingTask(
        query=Query(qid="q", text="?", metadata=metadata),
        candidates=tuple(
            Candidate(docid=docid, title=title, text=text, rank=i)
            for i, (docid, title, text) in enumerate(documents, 1)
        ),
        grades=grades,
    )


SEAT = "1) Elm Township >> located in => Ward County; 2) #1 >> capital => Minot"
ELM = ("elm", "Elm Township", "Elm Township is a place in Ward County.")
WARD = ("ward", "Ward County", "Its county seat is Minot.")
ASH = ("ash", "Ash Township", "Ash Township lies elsewhere.")


def test_relations_and_questions_are_parsed_and_references_replaced() -> None:
    text = (
        "1) who wrote X ? => Ann Lee; 2) #1 >> born in => Oslo (Norway); "
        "3) In what year was #2 's port built ? => 1905"
    )
    assert [h.text for h in hops.parse(text)] == [
        "who wrote X: Ann Lee",
        "Ann Lee, born in: Oslo (Norway)",
        "In what year was Oslo (Norway)'s port built: 1905",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no hops at all", []),
        ("1) only a question", ["only a question"]),
        ("1) a >> b => c; d; 2) #1 >> e => f => g", ["a, b: c; d", "c; d, e => f: g"]),
        ("1) what is the #1 song => Hey", ["what is the #1 song: Hey"]),
        ("1) point 7) of the list => x; 2) y => z", ["point 7) of the list: x", "y: z"]),
    ],
)
def test_odd_decompositions_do_not_raise(text: str, expected: list[str]) -> None:
    assert [h.text for h in hops.parse(text)] == expected


def test_list_reasoning_names_the_labels_of_the_view() -> None:
    made = annotations.reasoning(
        task({"decomposition": SEAT}, {"ward": 2, "elm": 1}, WARD, ASH, ELM)
    )
    assert made.source == "annotations"
    ward, ash, elm = (Candidate(docid=d, text=t, title=n) for d, n, t in (WARD, ASH, ELM))
    query = Query(qid="q", text="?")
    assert made.text(numbered(query, [ash, elm, ward])) == (
        "Step 1: Elm Township, located in: Ward County [2]. "
        "Step 2: Ward County, capital: Minot [3]."
    )
    assert made.text(numbered(query, [ward, ash])) == "Step 2: Ward County, capital: Minot [1]."
    assert made.text(numbered(query, [ash])) == ""


def test_notes_tell_the_step_or_only_the_title() -> None:
    untitled = ("plain", "", "Nothing of use.")
    made = annotations.reasoning(
        task({"decomposition": SEAT}, {"ward": 2, "elm": 1}, WARD, ASH, ELM, untitled)
    )
    assert made.note("elm") == "It answers step 1: Elm Township, located in: Ward County."
    assert made.note("ward") == "It answers step 2: Ward County, capital: Minot."
    assert made.note("ash") == "It is about Ash Township and answers no step."
    assert made.note("plain") == "It answers no step."
    with pytest.raises(KeyError):
        made.note("elsewhere")


def test_earlier_hops_go_to_the_documents_that_hold_their_answers() -> None:
    text = "1) Ida >> spouse => Kay Moe; 2) #1 >> team => Reds; 3) Where do #2 play ? => Hill Park"
    documents = [
        ("park", "Reds", "The Reds play at Hill Park."),
        ("team", "Kay Moe", "Kay Moe played for the Reds."),
        ("wife", "Ida", "Ida married Kay Moe, who once saw the Reds."),
    ]
    graded = task({"decomposition": text}, {"park": 2, "team": 1, "wife": 1}, *documents)
    assert hops.assign(hops.parse(text), graded) == {"park": 3, "team": 2, "wife": 1}


def test_a_single_pair_that_is_left_is_certain_but_an_unsure_one_is_left_out() -> None:
    parsed = hops.parse(SEAT)
    other = ("elm", "A list", "Names of places.")
    assert hops.assign(parsed, task({}, {"ward": 2, "elm": 1}, WARD, other)) == {
        "ward": 2,
        "elm": 1,
    }
    # Two documents that could both be the step: neither is claimed to be.
    twins = [("a", "", "in Ward County"), ("b", "", "in Ward County")]
    graded = task({"decomposition": SEAT}, {"ward": 2, "a": 1, "b": 1}, WARD, *twins)
    assert hops.assign(parsed, graded) == {"ward": 2}
    assert annotations.reasoning(graded).note("a") == "It supports the answer."
    # The document of step 1 was not retrieved: nothing can be concluded about the others.
    assert hops.assign(parsed, task({}, {"ward": 2, "gone": 1}, WARD, ASH)) == {"ward": 2}


PROOF = (
    "a leaf is part of a plant & plants make food -> int1: leaves make food; "
    "int1 & making food needs sunlight -> hypothesis;"
)
HYPOTHESIS = "leaves need sunlight"
FACTS = [
    ("f3", "", "Making food needs sunlight."),
    ("f1", "", "a leaf is part of a plant"),
    ("x", "", "stones are heavy"),
    ("f2", "", "plants make food"),
]
RELEVANT = {"f1": 1, "f2": 1, "f3": 2}


@pytest.mark.parametrize(
    ("proof", "hypothesis"),
    [
        (PROOF, HYPOTHESIS),
        (
            "[BECAUSE] a leaf is part of a plant [AND] plants make food [INFER] int1: "
            "leaves make food [BECAUSE] int1 [AND] making food needs sunlight [INFER] int2: "
            "leaves need sunlight ",
            "",
        ),
    ],
)
def test_both_forms_of_a_proof_are_told_in_order(proof: str, hypothesis: str) -> None:
    graded = task({"proof": proof, "hypothesis": hypothesis}, RELEVANT, *FACTS)
    made = annotations.reasoning(graded)
    assert made.text(numbered(graded.query, graded.candidates)) == (
        "Step 1: leaves make food [2][4]. Step 2: leaves need sunlight [1] with step 1."
    )
    assert made.note("f1") == "It supports: leaves make food."
    assert made.note("f3") == "It supports: leaves need sunlight."
    assert made.note("x") == "It answers no step."


def test_a_fact_without_a_positive_grade_is_not_called_support() -> None:
    graded = task({"proof": PROOF, "hypothesis": HYPOTHESIS}, {"f1": 1, "f3": 1}, *FACTS)
    made = annotations.reasoning(graded)
    assert made.note("f2") == "It answers no step."
    assert "[4]" not in made.text(numbered(graded.query, graded.candidates))


def test_steps_without_a_document_of_the_view_are_left_out() -> None:
    graded = task({"proof": PROOF, "hypothesis": HYPOTHESIS}, RELEVANT, *FACTS)
    last = annotations.reasoning(graded).text(numbered(graded.query, graded.candidates[:1]))
    assert last == "Step 2: leaves need sunlight [1]."


def test_long_proofs_stay_compact_and_cite_every_document() -> None:
    facts = [f"fact number {'x' * i}" for i in range(1, 13)]
    steps = [f"{facts[0]} -> int1: a rather long conclusion about many different things in step 1"]
    for i, fact in enumerate(facts[1:], 2):
        end = f"int{i}: a rather long conclusion about many different things in step {i}"
        steps.append(f"int{i - 1} & {fact} -> {end}")
    graded = task(
        {"proof": "; ".join(steps) + ";", "hypothesis": ""},
        {f"d{i}": 1 for i in range(12)},
        *[(f"d{i}", "", fact) for i, fact in enumerate(facts)],
    )
    text = annotations.reasoning(graded).text(numbered(graded.query, graded.candidates))
    assert len(text.split()) <= annotations.MAX_WORDS
    assert all(f"[{i}]" in text for i in range(1, 13))
    assert text.startswith("Steps 1 to ") and "Step 12: a rather long" in text


@pytest.mark.parametrize("proof", ["", "nonsense", "->", ";;", "a -> b", "[INFER]", "& -> int1:"])
def test_odd_proofs_do_not_raise(proof: str) -> None:
    graded = task({"proof": proof, "hypothesis": "h"}, RELEVANT, *FACTS)
    made = annotations.reasoning(graded)
    assert isinstance(made.text(numbered(graded.query, graded.candidates)), str)
    assert all(step.number >= 1 for step in proofs.parse(proof, "h"))


@pytest.mark.parametrize("metadata", [{}, {"answer": "x"}, {"decomposition": 3}, {"proof": None}])
def test_without_annotations_there_is_no_reasoning(metadata: dict[str, object]) -> None:
    graded = task(metadata, {"ward": 1}, WARD)
    made = annotations.reasoning(graded)
    assert made.source == "none"
    assert made.text(numbered(graded.query, graded.candidates)) == "" == made.note("ward")


def test_every_relevant_paragraph_of_the_bundled_collection_has_its_step() -> None:
    from rank_rl import data
    from rank_rl.specs import DataSpec, FirstStageSpec

    first_stage = FirstStageSpec(pool=True)
    spec = DataSpec(source="bundled", path="musique200", validation=0.0, first_stage=first_stage)
    collection = data.load(spec, seed=0)
    relevant = assigned = 0
    for graded in (*collection.train, *collection.test):
        made = annotations.reasoning(graded)
        text = made.text(numbered(graded.query, graded.candidates))
        assert 0 < len(text.split()) <= annotations.MAX_WORDS
        found = {d for step in made.steps for d in step.docids}
        gold = {d for d, g in (graded.grades or {}).items() if g > 0}
        assert found <= gold
        relevant, assigned = relevant + len(gold), assigned + len(found)
    assert (relevant, assigned) == (478, 478)


def test_explicit_reasoning_judges_every_document_in_shown_order() -> None:
    made = task({"decomposition": SEAT}, {"ward": 2, "elm": 1}, WARD, ASH, ELM)
    view = numbered(made.query, made.candidates)
    assert annotations.told(made, view, "explicit").splitlines() == [
        "[1] Ward County. Its county seat is Minot. Relevant: yes. "
        "It answers step 2: Ward County, capital: Minot.",
        "[2] Ash Township. Ash Township lies elsewhere. Relevant: no.",
        "[3] Elm Township. Elm Township is a place in Ward County. Relevant: yes. "
        "It answers step 1: Elm Township, located in: Ward County.",
    ]
    assert annotations.told(made, view, "none") == ""
    bare = task({}, {"ward": 2}, WARD, ASH)
    assert annotations.told(bare, numbered(bare.query, bare.candidates), "explicit") == ""


def test_scored_reasoning_repeats_the_labels_that_an_answer_may_name():
    query = Query(qid="q", text="why?")
    shown = (
        Candidate(docid="a", text="stars make light", rank=1),
        Candidate(docid="b", text="cats sleep", rank=2),
    )
    one = RankingTask(query=query, candidates=shown, grades={"a": 2})
    view = numbered(query, shown[::-1])
    best = annotations.told(one, view, "scored")
    assert best == '{"[1] cats sleep": 0, "[2] stars make light": 2 [2]}'
    worst = annotations.told(one, view, "scored", worst=True)
    assert worst == '{"[1] cats sleep": 0 [1], "[2] stars make light": 2}'
