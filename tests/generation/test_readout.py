"""Expected scores read off a written answer."""

from __future__ import annotations

import math

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.records import Candidate, Query, Scores, numbered
from rank_rl.specs import FormatSpec, ModelSpec

VIEW = numbered(
    Query(qid="q", text="who is the father?"),
    [Candidate(docid=f"d{i}", text=t, rank=i) for i, t in enumerate(["river", "lake", "town"], 1)],
)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def scores(maximum: int = 9, mode: str = "answer"):
    return formats.make(FormatSpec(name="scores", mode=mode, params={"max": maximum}))


@pytest.mark.parametrize("mode", ["answer", "reason"])
def test_log_probabilities_are_those_of_the_next_token_at_each_score(loaded, mode):
    import torch

    from rank_rl.generation.readout import read_slots
    from rank_rl.models.tokens import ChatTokens

    fmt = scores(mode=mode)
    text = '{"[1]": 7, "[2]": 0, "[3]": 4}'
    if mode == "reason":
        text = f"<think>\nThe river: 5.\n</think>\n<answer>{text}</answer>"
    prompt = fmt.render(VIEW)
    found = read_slots(loaded, prompt, text, fmt, VIEW)
    assert list(found) == ["1", "2", "3"]
    tokens = ChatTokens(loaded.tokenizer)
    before = text[: text.index(' 0, "[3]')]
    ids = tokens.encode_prompt(prompt) + tokens.encode(prompt.prefill + before)
    with torch.no_grad():
        row = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    for digit, logprob in found["2"].items():
        (token,) = tokens.encode(f" {digit}")
        assert logprob == pytest.approx(row[token].item(), abs=1e-4)
    assert sum(math.exp(lp) for lp in found["2"].values()) < 1


def test_scores_become_expectations_and_unread_ones_stay():
    from rank_rl.generation.readout import with_expected

    fmt = scores(maximum=2)
    outcome = fmt.parse('{"[1]": 2, "[2]": 0, "[3]": 1}', VIEW)
    even = {"0": math.log(0.1), "1": math.log(0.1), "2": math.log(0.2)}
    sure = {"0": 0.0, "1": -math.inf, "2": -math.inf}
    new = with_expected(outcome, {"1": even, "2": sure}, VIEW, fmt)
    assert isinstance(new.answer, Scores)
    assert new.answer.values == pytest.approx({"d1": 1.25, "d2": 0.0, "d3": 1.0})
    assert new.status == outcome.status == "ok"


def test_an_answer_without_scores_has_no_places(loaded):
    from rank_rl.generation.readout import read_slots

    fmt = scores()
    assert read_slots(loaded, fmt.render(VIEW), "no idea", fmt, VIEW) == {}


def test_a_spelling_that_hides_a_score_leaves_its_place_out(loaded):
    from rank_rl.generation.readout import read_slots

    # 10 is one token behind a space only, so there is no choice between 0 … 10 without it.
    found = read_slots(
        loaded, scores(10).render(VIEW), '{"[1]": 7, "[2]":3, "[3]": 4}', scores(10), VIEW
    )
    assert list(found) == ["1", "3"]


def test_scores_of_several_tokens_are_refused(loaded):
    from rank_rl.generation.readout import read_slots

    fmt = scores(maximum=100)
    with pytest.raises(ModelError, match=r"more than one token.*max to 9"):
        read_slots(loaded, fmt.render(VIEW), '{"[1]": 7}', fmt, VIEW)


class Digits:
    """A tokenizer with one token a character, as most have for digits."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def test_ten_written_in_two_tokens_is_refused_with_a_remedy():
    from rank_rl.generation.readout import check_readout

    check_readout(scores(9), "expected", Digits(), VIEW)
    check_readout(scores(10), "decoded", Digits(), VIEW)
    with pytest.raises(ModelError) as caught:
        check_readout(scores(10), "expected", Digits(), VIEW)
    assert "score '10' takes more than one token" in str(caught.value)
    assert "max to 9 or less, or use readout decoded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_without_scores_is_refused(loaded):
    from rank_rl.generation.readout import read_slots

    fmt = formats.make(FormatSpec(name="permutation", mode="answer"))
    with pytest.raises(RecipeError, match="no scores to read out"):
        read_slots(loaded, fmt.render(VIEW), "[1] > [2] > [3]", fmt, VIEW)


@pytest.mark.parametrize(
    ("params", "wording", "said", "expected"),
    [
        ({"labels": ["no", "yes"]}, "yes_no", "yes", 0.75),
        ({"labels": ["no", "yes"], "values": [-1.0, 3.0]}, "yes_no", "yes", 2.0),
        ({"labels": ["0", "1"], "values": [2.0, 10.0]}, "binary", "1", 8.0),
        ({"max": 1}, "binary", "1", 0.75),
    ],
)
def test_expectations_are_over_what_the_labels_are_worth(params, wording, said, expected):
    from rank_rl.generation.readout import with_expected

    fmt = formats.make(FormatSpec(name="pointwise", wording=wording, params=params))
    shown = numbered(VIEW.query, VIEW.candidates[:1])
    low, high = fmt.label_texts(shown)
    slots = {"1": {low: math.log(0.1), high: math.log(0.3)}}
    new = with_expected(fmt.parse(said, shown), slots, shown, fmt)
    assert new.answer.values == pytest.approx({"d1": expected})


def test_words_are_read_out_of_a_written_answer(loaded):
    from rank_rl.generation.asking import TextAsker
    from rank_rl.generation.canned import CannedGenerator
    from rank_rl.models.tokens import ChatTokens

    params = {"labels": ["no", "yes"], "values": [5.0, 7.0]}
    fmt = formats.make(FormatSpec(name="pointwise", wording="yes_no", params=params))
    shown = numbered(VIEW.query, VIEW.candidates[:1])
    tokens = ChatTokens(loaded.tokenizer)
    asker = TextAsker(fmt, CannedGenerator([" yes"]), tokens, scored_by=loaded)
    (asked,) = asker.ask([shown])
    (value,) = asked.outcome.answer.values.values()
    assert 5 < value < 7 and asked.statuses == {"ok": 1}
