"""Labels read as probabilities: what teacher forcing gives, for ragged batches and long labels."""

from __future__ import annotations

import math

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.generation.readout import readout_for
from rank_rl.records import Candidate, Outcome, Pick, Query, Scores, numbered
from rank_rl.specs import FormatSpec, ModelSpec
from rank_rl.strategies.base import votes

TEXTS = ["a river", "the lake is deep", "town of the father: [3] here", "stars make light, and so"]


def view(count: int, question: str = "who is the father?"):
    query = Query(qid="q", text=question)
    shown = [Candidate(docid=f"d{i}", text=TEXTS[i % 4], rank=i) for i in range(1, count + 1)]
    return numbered(query, shown)


def make(name: str, mode: str = "answer", **params):
    return formats.make(FormatSpec(name=name, mode=mode, params=params))


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def forced(loaded, prompt, lead: str, text: str) -> float:
    """Log-probability of ``text`` behind the lead, token by token, in a pass of its own."""
    import torch

    from rank_rl.models.tokens import ChatTokens

    tokens = ChatTokens(loaded.tokenizer)
    start = tokens.encode_prompt(prompt) + tokens.encode(lead)
    ids = start + tokens.encode(text)
    with torch.no_grad():
        rows = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(rows[i - 1, ids[i]].item() for i in range(len(start), len(ids)))


def read(loaded, fmt, views, **options):
    from rank_rl.generation.choosing import Question, ask_labels

    questions = [
        Question(prompt=fmt.render(v), lead=fmt.lead(v), choices=fmt.choices(v)) for v in views
    ]
    return ask_labels(loaded, questions, **options)


@pytest.mark.parametrize("batch_tokens", [1, 300, 4000])
def test_ragged_batches_give_what_teacher_forcing_gives(loaded, batch_tokens):
    fmt = make("choice")
    # Eleven documents: [1], [10] and [11] begin alike, and a label takes three tokens or more.
    views = [view(3), view(11, "where is the very deep lake of the old town?"), view(4), view(1)]
    readings = read(loaded, fmt, views, batch_tokens=batch_tokens)
    assert [list(r.logprobs) for r in readings] == [
        [f"[{i + 1}]" for i in range(len(v.docids))] for v in views
    ]
    for shown, reading in zip(views, readings, strict=True):
        for text, found in reading.logprobs.items():
            assert found == pytest.approx(forced(loaded, fmt.render(shown), "", text), abs=1e-4)


@pytest.mark.parametrize(("most", "batch_tokens"), [(3, 1), (3, 400), (3, 4000), (10, 4000)])
def test_what_prompts_begin_with_is_read_once(loaded, monkeypatch, most, batch_tokens):
    from rank_rl.generation import choosing
    from rank_rl.models.tokens import ChatTokens

    fmt, tokens, computed = make("pointwise", max=most), ChatTokens(loaded.tokenizer), []
    pack = choosing.pack

    def counting(groups):
        computed.append(sum(len(p) + sum(map(len, segments)) for p, segments in groups))
        return pack(groups)

    monkeypatch.setattr(choosing, "pack", counting)
    # Twice the same prompt, one that begins otherwise in between, and one that goes on differently.
    shown = [*view(4).candidates, *view(1).candidates]
    query = Query(qid="q", text="who is the father?")
    views = [numbered(query, [c]) for c in shown]
    views.insert(2, view(1, "where is the very deep lake of the old town?"))
    readings = read(loaded, fmt, views, batch_tokens=batch_tokens)
    for one, reading in zip(views, readings, strict=True):
        assert reading.tokens >= tokens.count_prompt(fmt.render(one))
        for text in ("0", str(most)):
            expected = forced(loaded, fmt.render(one), "", text)
            assert reading.logprobs[text] == pytest.approx(expected, abs=1e-4)
    held = sum(reading.tokens for reading in readings)
    if (most, batch_tokens) == (3, 4000):
        assert sum(computed) < 0.8 * held
    else:  # nothing fits together, or the rest would be read twice, for the labels 1 and 10
        assert sum(computed) <= held


def test_labels_that_differ_in_one_token_take_one_node(loaded):
    from rank_rl.models.tokens import ChatTokens

    fmt = make("pointwise", max=3)
    (reading,) = read(loaded, fmt, [view(1)])
    assert reading.tokens == ChatTokens(loaded.tokenizer).count_prompt(fmt.render(view(1)))
    for text, found in reading.logprobs.items():
        assert found == pytest.approx(forced(loaded, fmt.render(view(1)), "", text), abs=1e-4)


def test_a_label_that_another_one_begins_with_excludes_it(loaded):
    """Of the grades 1 and 10, the first is meant where no 0 follows."""
    import torch

    from rank_rl.models.tokens import ChatTokens

    fmt = make("pointwise", max=10)
    tokens = ChatTokens(loaded.tokenizer)
    assert [len(tokens.encode(text)) for text in ("1", "10")] == [1, 2]
    (reading,) = read(loaded, fmt, [view(1)])
    prompt = fmt.render(view(1))
    with torch.no_grad():
        ids = tokens.encode_prompt(prompt) + tokens.encode("1")
        row = loaded.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    (zero,) = tokens.encode("0")
    one = forced(loaded, prompt, "", "1")
    assert reading.logprobs["1"] == pytest.approx(one + math.log(1 - row[zero].item()), abs=1e-4)
    assert reading.logprobs["10"] == pytest.approx(one + math.log(row[zero].item()), abs=1e-4)
    assert sum(map(math.exp, reading.logprobs.values())) <= 1


def test_a_lead_that_the_label_is_joined_to_is_read_with_it(loaded):
    """The tokenizer may keep ``>[`` whole: the reading is of the tokens of the whole answer."""
    import torch

    from rank_rl.generation.choosing import Question, ask_labels
    from rank_rl.generation.reasoning import SKIPPED
    from rank_rl.models.tokens import ChatTokens

    fmt, shown = make("pair", mode="reason"), view(2)
    prompt, tokens = fmt.render(shown), ChatTokens(loaded.tokenizer)
    question = Question(prompt=prompt, lead=SKIPPED, choices=fmt.choices(shown))
    (reading,) = ask_labels(loaded, [question])
    start = tokens.encode_prompt(prompt)
    rows = [start + tokens.encode(SKIPPED + text) for text in question.choices]
    shared = next(i for i, pair in enumerate(zip(*rows, strict=True)) if len(set(pair)) > 1)
    found = list(reading.logprobs.values())
    for ids, logprob in zip(rows, found, strict=True):
        with torch.no_grad():
            out = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        differing = sum(out[i - 1, ids[i]].item() for i in range(shared, len(ids)))
        before = start + tokens.encode(SKIPPED)
        same = [a == b for a, b in zip(before, ids, strict=False)]
        healed = same.index(False) if False in same else len(before)
        total = sum(out[i - 1, ids[i]].item() for i in range(healed, len(ids)))
        assert logprob == pytest.approx(total, abs=1e-4)
        assert logprob <= differing + 1e-6


def outcome(fmt, shown, logprobs, lead="") -> Outcome:
    from rank_rl.generation.choosing import label_outcome

    return label_outcome(fmt, shown, lead, dict(zip(fmt.choices(shown), logprobs, strict=True)))


def test_a_choice_scores_documents_by_their_log_probability():
    logprobs = [-3.0, -0.5, -2.0]
    best = outcome(make("choice"), view(3), logprobs)
    assert best.answer == Scores(values={"d1": -3.0, "d2": -0.5, "d3": -2.0})
    assert best.as_order(view(3)) == ("d2", "d3", "d1") and best.status == "ok"
    worst = outcome(make("choice", pick="worst"), view(3), logprobs)
    assert worst.as_order(view(3)) == ("d1", "d3", "d2")
    begun = make("choice", prefill="[")
    assert begun.choices(view(2)) == ("1]", "2]")
    assert outcome(begun, view(2), [-1.0, -2.0], lead="[").as_order(view(2)) == ("d1", "d2")


def test_a_pair_scores_by_probability_and_shares_ties():
    (low, high) = math.log(0.1), math.log(0.3)
    plain = outcome(make("pair"), view(2), [low, high])
    assert plain.answer.values == pytest.approx({"d1": 0.25, "d2": 0.75})
    tied = outcome(make("pair", ties=True), view(2), [low, high, math.log(0.1)])
    assert tied.answer.values == pytest.approx({"d1": 0.3, "d2": 0.7})
    assert outcome(make("pair"), view(2), [-math.inf, -math.inf]).status == "failed"


def test_a_grade_scores_by_centred_values():
    two = outcome(make("pointwise", max=1), view(1), [-2.0, -0.5])
    assert two.answer.values == pytest.approx({"d1": -0.5 - -2.0})
    four = outcome(make("pointwise", max=3), view(1), [-1.0, -2.0, -3.0, -4.0])
    assert four.answer.values == pytest.approx({"d1": 1.0 + 2 / 3 - 3 / 3 - 4.0})


def test_which_formats_can_be_read_so():
    for name in ("choice", "pair", "pointwise"):
        assert readout_for(make(name), "score") == "score"
        assert readout_for(make(name)) == "decoded"
        reasoned = make(name, mode="reason")
        with pytest.raises(RecipeError, match="in mode answer, or with reasoning: skip"):
            readout_for(reasoned, "score")
        assert readout_for(reasoned, "score", reasoning="skip") == "score"
    with pytest.raises(RecipeError, match="one of auto, decoded"):
        readout_for(make("permutation"), "score")


@pytest.mark.parametrize("spec", [
    FormatSpec(name="choice"), FormatSpec(name="choice", mode="reason"),
    FormatSpec(name="choice", params={"pick": "worst"}),
])  # fmt: skip
def test_the_asker_counts_what_would_not_be_a_label(loaded, spec):
    from rank_rl.generation.asking import LABEL, LabelAsker

    fmt = formats.make(spec)
    skip = "skip" if fmt.mode == "reason" else "write"
    asked = LabelAsker(fmt, loaded, reasoning=skip).ask([view(4), view(2)])
    for shown, one in zip([view(4), view(2)], asked, strict=True):
        # The untrained model would write something else, and still ranks.
        assert one.statuses == {"failed": 1} and isinstance(one.outcome.answer, Scores)
        assert one.outcome.status == "ok" and set(one.outcome.answer.values) == set(shown.docids)
        completion = one.exchange.completion
        assert completion.completion_tokens == 0 < completion.prompt_tokens
        assert completion.seconds > 0
        label = max(completion.slots[LABEL], key=completion.slots[LABEL].get)
        assert completion.text == label
        said = fmt.parse(label, shown, prefill=one.exchange.prompt.prefill).answer
        assert isinstance(said, Pick)
        order = one.outcome.as_order(shown)
        assert said.docid == (order[-1] if fmt.params.pick == "worst" else order[0])


def test_a_model_that_would_write_a_label_is_ok(tiny_model_dir):
    import torch

    from rank_rl.generation.asking import LabelAsker
    from rank_rl.models.loading import load
    from rank_rl.models.tokens import ChatTokens

    trained = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu", train=True)
    tokens, fmt = ChatTokens(trained.tokenizer), make("choice")
    prompt = tokens.encode_prompt(fmt.render(view(3)))
    ids = prompt + tokens.encode("[2]")
    labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
    optimiser = torch.optim.AdamW(trained.model.parameters(), lr=5e-3)
    for _ in range(15):
        trained.model(input_ids=torch.tensor([ids]), labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    (asked,) = LabelAsker(fmt, trained).ask([view(3)])
    assert asked.statuses == {"ok": 1} and asked.outcome.as_order(view(3))[0] == "d2"
    assert asked.exchange.completion.text == "[2]"
    assert trained.model.training


def test_the_worst_that_is_never_said_is_the_best():
    logprobs = [-3.0, -math.inf, -0.5]
    best, worst = (outcome(make("choice", pick=p), view(3), logprobs) for p in ("best", "worst"))
    assert list(votes(best, view(3))) == ["d1", "d2", "d3"]
    assert best.as_order(view(3)) == ("d3", "d1", "d2")
    assert worst.as_order(view(3)) == ("d2", "d1", "d3")
    cast = votes(worst, view(3))
    assert cast["d2"] > cast["d1"] > cast["d3"] and all(map(math.isfinite, cast.values()))
    # Without any that could be said there is no order either way.
    nothing = outcome(make("choice", pick="worst"), view(2), [-math.inf, -math.inf])
    assert votes(nothing, view(2)) is None
