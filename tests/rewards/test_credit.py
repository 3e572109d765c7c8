"""Rank-level credit in literal numbers: what each place earns, its advantage, its tokens."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_rl import formats, metrics, rewards
from rank_rl.errors import RecipeError
from rank_rl.formats.labels import alphabetic, relabel
from rank_rl.records import Candidate, Completion, Order, Outcome, Query, View, numbered
from rank_rl.rewards.credit import (
    EPSILON,
    Credit,
    Earned,
    assign,
    char_ends,
    credited,
    earned,
    position_rewards,
    token_places,
)
from rank_rl.specs import FormatSpec, RewardSpec

L3 = 1 / math.log2(3)


def view(count: int = 3) -> View:
    docs = [Candidate(docid="abcdefghijklmnop"[i], text="t", rank=i + 1) for i in range(count)]
    return numbered(Query(qid="q", text="who?"), docs)


def order(docids: str) -> Outcome:
    return Outcome(status="ok", answer=Order(docids=tuple(docids)))


def make(mode: str = "answer", **params: object):
    return formats.make(FormatSpec(name="permutation", mode=mode, params=params))


def test_a_place_earns_the_share_of_the_ideal_from_it_on():
    # Ideal: 2 + 1/log2(3).
    ideal = 2 + L3
    assert position_rewards(order("bac"), view(), {"a": 2, "b": 1}) == pytest.approx(
        ((1 + 2 * L3) / ideal, 2 * L3 / ideal, 0.0)
    )
    assert position_rewards(order("abc"), view(), {"a": 2, "b": 1}) == pytest.approx(
        (1.0, L3 / ideal, 0.0)
    )


def test_places_behind_the_cut_and_views_without_relevance_earn_nothing():
    assert position_rewards(order("cba"), view(), {"a": 1}, k=2) == (0.0, 0.0, 0.0)
    assert position_rewards(order("cba"), view(), {}) == (0.0, 0.0, 0.0)


def test_documents_that_were_not_asked_for_count_from_every_place():
    # Only the best is listed; b and c follow in first-stage order and b earns at place 2.
    assert position_rewards(order("a"), view(), {"a": 1, "b": 1}) == pytest.approx((1.0,))
    assert position_rewards(order("c"), view(), {"a": 1, "b": 1}) == pytest.approx(
        ((L3 + 0.5) / (1 + L3),)
    )


def test_a_repeated_document_takes_no_place_in_the_discount():
    assert position_rewards(order("aab"), view(2), {"b": 1}) == pytest.approx((L3, L3, L3))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_first_place_earns_the_ndcg_of_the_list(data):
    shown = view(data.draw(st.integers(1, 12)))
    grades = {d: data.draw(st.integers(0, 3)) for d in shown.docids}
    ranked = data.draw(st.permutations(shown.docids))
    k = data.draw(st.integers(1, 12))
    places = position_rewards(order("".join(ranked)), shown, grades, k)
    assert len(places) == len(ranked)
    assert places[0] == pytest.approx(metrics.ndcg(ranked, grades, k), abs=1e-12)
    # What a place adds is what its own document earns, so the places fall and sum up.
    ideal = metrics.dcg(sorted(grades.values(), reverse=True), k)
    for i, (here, after) in enumerate(zip(places, [*places[1:], 0.0], strict=True)):
        own = grades[ranked[i]] / math.log2(i + 2) / ideal if ideal and i < k else 0.0
        assert here - after == pytest.approx(own, abs=1e-12)


def test_places_add_to_what_the_rest_of_the_answer_earns():
    answers = [
        Earned(total=1.5, ranking=1.0, places=(1.0, 0.4)),
        Earned(total=0.9, ranking=0.5, places=(0.5, 0.4)),
        Earned(total=0.0),
    ]
    # mean 0.8, sample deviation sqrt((0.49 + 0.01 + 0.64) / 2); malformed texts have no places.
    spread = math.sqrt(0.57) + EPSILON
    whole = [0.7 / spread, 0.1 / spread, -0.8 / spread]
    good, poor, bad = assign(answers, whole, group_size=3, scale="group")
    assert bad == Credit(before=whole[2], after=whole[2])
    assert (good.before, poor.before) == (whole[0], whole[1])
    # The mean ranking of valid answers is 0.75: what is left is being valid, and the other parts.
    assert good.after == pytest.approx((0.7 - 0.25) / spread)
    assert poor.after == pytest.approx((0.1 + 0.25) / spread)
    step = 0.25 / (math.sqrt(0.125) + EPSILON)
    assert good.places == pytest.approx((good.after + step, good.after))
    assert poor.places == pytest.approx((poor.after - step, poor.after))


def test_valid_answers_that_differ_in_order_alone_get_no_signal_behind_the_list():
    answers = [Earned(total=t, ranking=t, places=(t, 0.1)) for t in (0.2, 0.6, 1.0)]
    by = 0.4 + EPSILON
    whole = [-0.4 / by, 0.0, 0.4 / by]
    for credit, expected in zip(
        assign(answers, whole, group_size=3, scale="group"), whole, strict=True
    ):
        assert credit.after == pytest.approx(0, abs=1e-12)
        assert credit.places == pytest.approx((expected, 0.0))


def test_groups_are_apart_and_lengths_may_differ():
    answers = [
        Earned(total=1.0, ranking=1.0, places=(1.0,)),
        Earned(total=0.5, ranking=0.5, places=(0.5, 0.5)),
        Earned(total=0.3, ranking=0.3, places=(0.3,)),
        Earned(total=0.3, ranking=0.3, places=(0.3,)),
    ]
    found = assign(answers, [0.25, -0.25, 0.0, 0.0], group_size=2, scale="none")
    assert found[0].places == pytest.approx((0.25,))
    assert found[1].places == pytest.approx((-0.25, 0.0))  # alone with a second place
    assert found[2] == found[3] == Credit(before=0.0, places=(0.0,), after=0.0)


def test_scale_of_the_batch_is_one_for_all_groups():
    answers = [Earned(total=t, ranking=t, places=(t,)) for t in (0.0, 1.0, 0.4, 0.6)]
    spread = math.sqrt((0.25 + 0.25 + 0.01 + 0.01) / 3) + EPSILON
    whole = [d / spread for d in (-0.5, 0.5, -0.1, 0.1)]
    found = assign(answers, whole, group_size=2, scale="batch")
    assert [c.places[0] for c in found] == pytest.approx(whole)
    assert [c.after for c in found] == pytest.approx([0, 0, 0, 0], abs=1e-12)


def composite(*specs: dict):
    return rewards.make([RewardSpec(**s) for s in specs])


def judged(made, outcome: Outcome, tokens: int = 0, grades=None) -> Earned:
    shown, grades = view(), {"a": 2, "b": 1} if grades is None else grades
    said = Completion(text="", completion_tokens=tokens)
    scored = made(outcome, shown, grades, said)
    return earned(credited(made), scored, outcome, shown, grades, said)


def test_only_the_ranking_rewards_of_valid_answers_are_divided():
    made = composite(
        {"name": "ndcg", "weight": 2.0}, {"name": "format", "weight": 0.5}, {"name": "rbo"}
    )
    best = judged(made, order("abc"))
    assert best.total == pytest.approx(3.5) and best.ranking == pytest.approx(2.0)
    assert best.places == pytest.approx((2.0, 2 * L3 / (2 + L3), 0.0))
    malformed = Outcome(status="repaired", answer=Order(docids=("a", "b", "c")), issues=("prose",))
    assert judged(made, malformed).places == ()
    assert judged(made, Outcome(status="failed")).places == ()
    assert judged(made, order("abc"), grades={}).places == ()


def test_the_gain_over_the_input_is_divided_in_ndcg():
    gain = judged(composite({"name": "ndcg_gain"}), order("abc"))
    assert gain.ranking == gain.total and gain.places[0] == pytest.approx(1.0)


def test_a_closed_gate_leaves_no_places():
    made = composite(
        {"name": "ndcg", "gate": "length"},
        {"name": "length", "params": {"soft_max": 10, "hard_max": 20}},
    )
    assert judged(made, order("abc"), tokens=10).places
    assert judged(made, order("abc"), tokens=19).places == ()


def test_rewards_without_places_are_refused():
    with pytest.raises(RecipeError, match=r"grpo.credit: no reward .* expected ndcg or ndcg_gain"):
        credited(composite({"name": "format"}, {"name": "rbo"}))


def written(text: str, mode: str = "answer", prefill: str = "", **params) -> list[str]:
    spans = make(mode, **params).label_spans(text, view(), prefill=prefill)
    return [text[s.start : s.end] for s in spans]


def test_a_separator_belongs_to_the_label_behind_it():
    assert written("[3] > [1] > [2]") == ["[3]", " > [1]", " > [2]"]
    assert written(" [3]>[1]\n> [2]\n") == ["[3]", ">[1]", "\n> [2]"]
    assert written("3] > [1] > [2]", prefill="[") == ["3]", " > [1]", " > [2]"]
    text = "<think>\né [2] > [1] > [3]\n</think>\n<answer> [3] > [1] > [2]</answer>"
    assert written(text, "reason") == ["[3]", " > [1]", " > [2]"]
    assert written(text[8:], "reason", "<think>\n") == ["[3]", " > [1]", " > [2]"]
    assert written("[3] > [1] > [2].") == []


PIECES = (
    "[1]", "[2]", "[3]", "[A]", "[B]", "[C]", " > ", ">", " ", "\n", "<think>", "</think>",
    "<answer>", "</answer>", "[3] > [1] > [2]", "[B] > [A] > [C]", "é", "1", "]", "[",
)  # fmt: skip


def test_spans_are_those_of_what_the_parser_reads():
    rng, found = random.Random(5), 0
    fmts = {mode: make(mode) for mode in ("reason", "answer")}
    for _ in range(6000):
        mode = rng.choice(("reason", "answer"))
        shown = rng.choice((view(), relabel(view(), alphabetic(3))))
        fmt, prefill = fmts[mode], rng.choice(("", "", "[" if mode == "answer" else "<think>\n"))
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 7)))
        if rng.random() < 0.5:
            ideal = fmt.ideal(shown, {"b": 1}, "é [1] > [2]")
            text = ideal.removeprefix(prefill) if rng.random() < 0.7 else ideal + text
        outcome = fmt.parse(text, shown, prefill=prefill)
        spans = fmt.label_spans(text, shown, prefill=prefill)
        if outcome.status != "ok":
            assert spans == ()
            continue
        found += 1
        labels = [text[s.label : s.end - 1] for s in spans]
        assert [shown.docid(label) for label in labels] == list(outcome.answer.docids)
        assert all(text[s.end - 1] == "]" for s in spans)
        assert all(a.end == b.start for a, b in zip(spans, spans[1:], strict=False))
    assert found > 900


def places(pieces: list[str | bytes], shown: View | None = None, **given) -> list[int]:
    encoded = [p.encode() if isinstance(p, str) else p for p in pieces]
    text, ends = char_ends(encoded)
    return token_places(make(**given).label_spans(text, shown or view()), ends)


def test_each_token_belongs_to_the_place_it_writes():
    assert places(["[", "3", "]", " >", " [", "1", "]", " > ", "[", "2", "]", ""]) == [
        0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3,
    ]  # fmt: skip


def test_merged_tokens_go_by_the_label_then_by_the_first_character():
    assert places(["[3", "] > [", "1", "] > [2", "]"]) == [0, 0, 1, 2, 2]
    assert places(["[3] > [1", "] > [", "2]"]) == [0, 1, 2]
    assert places(["[3] > [1] > [2]"]) == [0]
    assert places([" ", " [", "3]", "> [1]\n", ">", " [2]\n", " "]) == [-1, 0, 0, 1, 2, 2, 3]


def test_labels_of_several_tokens_and_the_text_around():
    shown = view(11)
    rest = [" > [" + str(i) + "]" for i in range(1, 10)]
    got = places(["[", "1", "1", "]", " > [", "1", "0", "]", *rest], shown)
    assert got == [0, 0, 0, 0, 1, 1, 1, 1, *range(2, 11)]
    reason = ["<think>", "\n", b"\xc3", b"\xa9 ", "ok", "\n</think>\n<", "answer", ">["]
    got = places([*reason, "3", "] > [", "1] > [2]", "</", "answer>", ""], mode="reason")
    assert got == [-1] * 7 + [0, 0, 0, 1, 3, 3, 3]


def test_characters_of_several_bytes_are_counted_when_complete():
    text, ends = char_ends([b"a", b"\xe2\x82", b"\xac[", b"\xf0\x9f", b"\x98\x80", b"\xff"])
    assert text == "a€[😀�" and ends == [1, 1, 3, 3, 4, 5]
    assert char_ends([b"a", b"\xe2\x82"]) == ("a�", [1, 1])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_cut_into_tokens_covers_the_list_in_order(data):
    mode = data.draw(st.sampled_from(["reason", "answer"]))
    shown = view(data.draw(st.integers(1, 14)))
    fmt = make(mode)
    text = fmt.ideal(shown, {"b": 1}, data.draw(st.text(max_size=8)))
    raw = text.encode("utf-8", "replace")
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=30))})
    decoded, ends = char_ends([raw[a:b] for a, b in zip(cuts, cuts[1:], strict=False)])
    spans = fmt.label_spans(decoded, shown)
    got = token_places(spans, ends)
    assert len(got) == len(cuts) - 1 and got == sorted(got)
    # One token a byte: every character of a span has its place.
    _, each = char_ends([bytes([b]) for b in raw])
    fine = token_places(spans, each)
    for k, span in enumerate(spans):
        assert fine.count(k) == span.end - span.start
