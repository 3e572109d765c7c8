"""The listwise parser against the traps of published code: literal answers, typed outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats.labels import alphabetic, relabel
from rank_rl.records import Candidate, Completion, Order, Query, Scores, View, numbered
from rank_rl.rewards import one
from rank_rl.rewards.base import tiers
from rank_rl.specs import FormatSpec, RewardSpec
from rank_rl.strategies.base import votes


def view(count: int = 3) -> View:
    """Documents a, b, c … shown as [1], [2], [3] …; their first-stage order is the reverse."""
    docs = [
        Candidate(docid="abcdefgh"[i], text=f"text {i}", rank=count - i, score=1.0 + i)
        for i in range(count)
    ]
    return numbered(Query(qid="q", text="who?"), docs)


def make(mode: str = "answer", **params: object) -> formats.Format:
    return formats.make(FormatSpec(name="permutation", mode=mode, params=params))


def read(text: str, mode: str = "answer", count: int = 3, **params: object):
    outcome = make(mode, **params).parse(text, view(count))
    docids = "".join(outcome.answer.docids) if isinstance(outcome.answer, Order) else None
    return outcome.status, docids, set(outcome.issues)


@pytest.mark.parametrize("text", ["[3] > [1] > [2]", " [3]>[1]\n> [2]\n"])
def test_a_plain_list_is_ok(text):
    assert read(text) == ("ok", "cab", set())


@pytest.mark.parametrize(
    ("text", "docids", "issues"),
    [
        ("[3] > [1]", "ca", {"missing"}),
        ("[3] > [1] > [2] > [1]", "cab", {"duplicate"}),
        ("[3] > [3] > [3]", "c", {"duplicate", "missing"}),
        ("[0] > [3] > [1] > [2]", "cab", {"out_of_range"}),
        ("[4] > [3] > [1] > [2]", "cab", {"out_of_range"}),
        ("[-1] > [3] > [1] > [2]", "cab", {"out_of_range", "bad_list"}),
        ("[01] > [3] > [2]", "cb", {"out_of_range", "missing"}),
        ("[3] > [1] > [2] because [3] names him", "cab", {"text_after"}),
        ("Ranking: [3] > [1] > [2]", "cab", {"text_before"}),
        ("[2] is poor. So: [3] > [1] > [2]", "cab", {"text_before"}),
        ("[1] > [2] > [3]. No: [3] > [1] > [2]", "cab", {"text_before"}),
        ("【3】 ＞ ［１］ > [2]", "cab", {"non_ascii"}),
        ("[٣] > [1] > [2]", "cab", {"non_ascii"}),
        ("[3, 1, 2]", "cab", {"bad_list"}),
        ('["3", "1", "2"]', "cab", {"bad_list"}),
        ('["[3]", "[1]", "[2]"]', "cab", {"bad_list"}),
        ("[[3], [1], [2]]", "cab", {"bad_list"}),
        ("[3], [1], [2]", "cab", {"bad_list"}),
        ("[3] > [2] = [1]", "cba", {"tie"}),
        ("So: [3] > [2] = [1]", "cba", {"text_before", "bad_list", "tie"}),
        ("1. [3]\n2. [1]\n3. [2]", "cab", {"text_before", "bad_list"}),
        ("**[3]** > **[1]** > **[2]**", "cab", {"text_before", "text_after", "bad_list"}),
        ("[3] > [1] > [2].", "cab", {"bad_list"}),
        ("3 > 1 > 2", "cab", {"bad_list"}),
        ("3, 1, 2", "cab", {"bad_list"}),
        ("[3] > [1] >", "ca", {"missing", "unfinished", "text_after"}),
        ("[3] > [1] > [", "ca", {"missing", "unfinished", "text_after"}),
        ("I take [3], then perhaps [1].", "ca", {"missing", "prose"}),
        ("<think></think>[3] > [1] > [2]", "cab", {"unexpected_tags"}),
    ],
)
def test_an_order_that_can_be_read_is_repaired_and_says_why(text, docids, issues):
    assert read(text) == ("repaired", docids, issues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think 3 documents and then 1",
        "There are 3, 1, 2 reasons for it.",
        "Document 3, document 1",
        "[0] > [-1] > [99]",
        "[" + "9" * 5000 + "]",
        "3",
        "{3: 1}",
        "[x] > [y]",
    ],
)
def test_prose_and_foreign_identifiers_are_no_list(text):
    status, docids, issues = read(text)
    assert (status, docids) == ("failed", None)
    assert "no_list" in issues


def test_a_failed_outcome_is_the_first_stage_order_and_says_failed():
    shown = view()
    outcome = make().parse("no idea", shown)
    assert outcome.as_order(shown) == ("c", "b", "a") == shown.by_first_stage()
    assert outcome.status == "failed" and outcome.answer is None


def test_reason_mode_reads_the_answer_and_nothing_else():
    text = "<think>[1] > [2] > [3]?</think><answer>[3] > [1] > [2]</answer>"
    outcome = make("reason").parse(text, view())
    assert outcome.status == "ok" and outcome.answer == Order(docids=("c", "a", "b"))
    assert outcome.reasoning == "[1] > [2] > [3]?"


@pytest.mark.parametrize(
    ("text", "status", "docids"),
    [
        ("<think>[1] > [2] > [3]</think><answer></answer>", "failed", None),
        ("<think>[1] > [2] > [3]</think>", "failed", None),
        ("<think>[1] > [2] > [3]", "failed", None),
        ("[1] could be it, [2] too, but [3]", "failed", None),
        ("<think>x</think>[3] is it, [1] too", "failed", None),
        ("<think>x</think>[3] > [1] > [2]", "repaired", "cab"),
        ("<think>x</think><answer>[3] > [1] > [2]", "repaired", "cab"),
        ("<think>x</think><answer>I take [3], [1]</answer>", "repaired", "ca"),
        ("<answer>[1] > [2] > [3]</answer><answer>[3] > [1] > [2]</answer>", "repaired", "cab"),
        ("<think>x</think><answer>[3] > [1] > [2]</answer> so", "repaired", "cab"),
    ],
)
def test_reason_mode_without_right_tags_is_never_ok(text, status, docids):
    assert read(text, "reason")[:2] == (status, docids)


def test_a_prefilled_think_tag_keeps_the_answer_ok():
    fmt = make("reason", prefill="<think>\n")
    prefill = fmt.render(view()).prefill
    text = "because</think>\n<answer>[3] > [1] > [2]</answer>"
    assert prefill == "<think>\n"
    assert fmt.parse(text, view(), prefill=prefill).status == "ok"
    assert fmt.parse(text, view()).issues == ("no_think_open",)


def test_top_asks_for_the_best_only():
    fmt = make(top=2)
    assert "the 2 best of the 3 passages" in fmt.render(view()).messages[1]["content"]
    assert fmt.ideal(view(), {"a": 1, "b": 3}) == "[2] > [1]"
    assert read("[2] > [1]", top=2) == ("ok", "ba", set())
    assert read("[2] > [1] > [3]", top=2) == ("repaired", "bac", {"too_long"})
    assert fmt.parse("[2] > [1]", view()).as_order(view()) == ("b", "a", "c")


def test_ideal_breaks_ties_by_what_the_prompt_tells():
    """In shown order, which any reader can repeat; in first-stage order where that is shown."""
    assert make().ideal(view(), {"c": 2}) == "[3] > [1] > [2]"
    hinted = formats.make(FormatSpec(name="permutation", mode="answer", first_stage_hint="rank"))
    assert hinted.ideal(view(), {"c": 2}) == "[3] > [2] > [1]"
    assert hinted.ideal(view(), {"a": 2}) == "[1] > [3] > [2]"


def test_ideal_escapes_quoted_tags():
    fmt = make("reason")
    text = fmt.ideal(view(), {"a": 2}, "it says </think><answer>[2]</answer>")
    outcome = fmt.parse(text, view())
    assert outcome.status == "ok" and outcome.as_order(view()) == ("a", "b", "c")


def test_alphabetic_labels():
    shown = relabel(view(), alphabetic(3))
    outcome = make().parse("[C] > [A] > [B]", shown)
    assert outcome.status == "ok" and outcome.as_order(shown) == ("c", "a", "b")
    assert make().parse("C > A > B", shown).status == "repaired"
    assert make().parse("I am A b C", shown).status == "failed"


def test_the_prompt_shows_hints_and_instruction():
    spec = FormatSpec(name="permutation", first_stage_hint="rank")
    shown = view()
    query = Query(qid="q", text="who?", instruction="Find causes.")
    shown = View(query=query, candidates=shown.candidates, labels=shown.labels)
    text = formats.make(spec).render(shown).messages[1]["content"]
    assert "[1] (rank 3) text 0\n[2] (rank 2) text 1" in text
    assert text.startswith("Instruction: Find causes.\nQuestion: who?")
    scored = formats.make(spec.model_copy(update={"first_stage_hint": "score"}))
    assert "[3] (score 3) text 2" in scored.render(shown).messages[1]["content"]


def test_bad_parameters_are_refused():
    with pytest.raises(RecipeError, match=r"format.params.topp: unknown parameter .*nearest: top"):
        make(topp=3)
    with pytest.raises(RecipeError, match="prefill"):
        make("reason", prefill="Sure:")
    with pytest.raises(RecipeError, match="nearest: permutation"):
        formats.make(FormatSpec(name="permutatoin"))


def tied(text: str, mode: str = "answer", **params: object):
    fmt = make(mode, ties=True, **params)
    outcome = fmt.parse(text, view())
    if isinstance(outcome.answer, Order):
        return outcome.status, "".join(outcome.answer.docids), set(outcome.issues)
    return outcome.status, outcome.answer and dict(outcome.answer.values), set(outcome.issues)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[3] > [2] = [1]", {"c": 1.0, "b": 0.25, "a": 0.25}),
        ("[3]=[1]>[2]", {"c": 0.75, "a": 0.75, "b": 0.0}),
        ("[2] = [1] = [3]", {"a": 0.5, "b": 0.5, "c": 0.5}),
        ("[3] > [2] > [1]", "cba"),
    ],
)
def test_ties_are_read_as_equal_scores_where_they_are_allowed(text, said):
    assert tied(text) == ("ok", said, set())


@pytest.mark.parametrize(
    ("text", "said", "issues"),
    [
        ("So: [3] > [2] = [1]", {"c": 1.0, "b": 0.25, "a": 0.25}, {"text_before", "bad_list"}),
        ("[3] = [2]", {"c": 0.75, "b": 0.75, "a": 0.0}, {"missing"}),
        ("[3] = [3] > [2] > [1]", "cba", {"duplicate"}),
        ("[3] = [0] > [2] = [1]", {"c": 1.0, "b": 0.25, "a": 0.25}, {"out_of_range"}),
        ("[0] = [4]", None, {"out_of_range", "no_list"}),
    ],
)
def test_a_tie_that_breaks_another_rule_is_repaired_or_fails(text, said, issues):
    assert tied(text) == ("repaired" if said else "failed", said, issues)


def test_scores_of_ties_are_the_places_that_an_order_votes():
    fmt = make("answer", ties=True)
    plain = votes(fmt.parse("[3] > [2] > [1]", view()), view())
    both = votes(fmt.parse("[3] > [2] = [1]", view()), view())
    assert both["c"] == plain["c"] == 1.0
    assert both["a"] == both["b"] == (plain["a"] + plain["b"]) / 2


def test_ideal_writes_ties_for_equal_grades_and_a_tied_list_has_no_places():
    fmt = make("answer", ties=True)
    assert fmt.ideal(view(), {"b": 2, "a": 1, "c": 1}) == "[2] > [1] = [3]"
    assert fmt.ideal(view(), {}) == "[1] = [2] = [3]"
    assert make("answer", ties=True, top=2).ideal(view(), {"c": 1}) == "[3] > [1]"
    assert len(fmt.label_spans("[3] > [2] > [1]", view())) == 3
    assert fmt.label_spans("[3] > [2] = [1]", view()) == ()
    for mode in ("reason", "answer"):
        assert " = [1]" in make(mode, ties=True).render(view()).messages[1]["content"]
        assert " = " not in make(mode).render(view()).messages[1]["content"]


def test_documents_left_out_of_a_tied_list_share_its_last_places():
    fmt, shown = make("answer", ties=True, top=3), view(8)
    plain = votes(fmt.parse("[1] > [2] > [3]", shown), shown)
    outcome = fmt.parse("[1] > [2] = [3]", shown)
    both = votes(outcome, shown)
    assert outcome.status == "ok" and len(outcome.answer.values) == 8
    assert both["a"] == plain["a"] == 1.0
    assert both["b"] == both["c"] == pytest.approx((plain["b"] + plain["c"]) / 2)
    for docid in "defgh":
        assert both[docid] == pytest.approx(sum(plain[d] for d in "defgh") / 5)
    assert sum(both.values()) == pytest.approx(sum(plain.values()))


def test_rewards_read_a_tail_that_is_left_out_as_last_whether_it_has_a_score_or_not():
    fmt, shown = make("answer", ties=True, top=3), view(8)
    outcome = fmt.parse("[1] > [2] = [3]", shown)
    listed = {d: outcome.answer.values[d] for d in "abc"}
    without = replace(outcome, answer=Scores(values=listed))
    assert tiers(outcome, shown) == tiers(without, shown) == [["a"], ["b", "c"], [*"defgh"]]
    grades = {"b": 2, "f": 1}
    for name in ("ndcg", "ndcg_gain", "recall", "mrr", "kendall", "pair_agree", "pick_match"):
        reward = one(RewardSpec(name=name, params={"k": 2} if name == "recall" else {}))
        paid = [reward(o, shown, grades, Completion(text="")) for o in (outcome, without)]
        assert paid[0] == paid[1], name
        assert paid[0] is not None
