"""Decoding in place: the model's own log-probabilities, whatever shares a pass."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.formats.grammar import Listing
from rank_rl.generation.ruled import Request, Rules, hint
from rank_rl.records import Candidate, Prompt, Query, numbered
from rank_rl.specs import FormatSpec, ModelSpec

VIEW = numbered(
    Query(qid="q", text="Who wrote Faust?"),
    [Candidate(docid=f"d{i}", text=f"Text {i} about rivers.", rank=i) for i in range(1, 13)],
)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def generator(loaded, **settings):
    from rank_rl.generation.local import LocalGenerator

    return LocalGenerator(loaded, **settings)


def own(loaded, ids):
    """(V,) log-probabilities of the next token by the model's ordinary forward."""
    import torch

    with torch.no_grad():
        return loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def ask(text):
    return Prompt(messages=({"role": "user", "content": text},))


def test_the_head_is_given_no_part_of_a_larger_tensor(loaded):
    """In bf16 it would copy all its weights for every row of a slice."""
    import torch

    from rank_rl.generation.ragged import Decoder

    given = []
    head = loaded.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        decoder = Decoder(loaded.model, 2, 8)
        decoder.start([0, 1], [[5, 6, 7], [8, 9]])
        assert decoder.advance([[11, 12, 13], [14]], 2).shape[:2] == (2, 2)
        assert decoder.advance([[11], []], 3).shape[:2] == (2, 1)  # no more than were read
        decoder.look([0, 1], [[11, 12], [14]], [[(15, -1), (16, 0)], ()])
    handle.remove()
    assert len(given) == 4 and all(states.is_contiguous() for states in given)


def test_rows_of_any_lengths_are_read_and_gone_on_with(loaded):
    import torch

    from rank_rl.generation.ragged import Decoder

    start = list(range(5, 45))
    prompts = [[*start, 7, 9], [8, 9], [*start, 11], [*start, 7, 9, 13, 15]]
    with torch.no_grad():
        decoder = Decoder(loaded.model, 5, 8)  # room has to grow
        rows = [3, 0, 4, 1]
        first = decoder.start(rows, prompts)
        for row, prompt in zip(first, prompts, strict=True):
            assert torch.allclose(row.log_softmax(-1), own(loaded, prompt), atol=1e-4)
        more = {3: [21, 22, 23], 0: [24], 1: [25, 26], 4: []}
        logits = decoder.advance([more.get(i, []) for i in range(5)], 2)
        for row, prompt in zip(rows, prompts, strict=True):
            for back, chunk in enumerate([more[row], more[row][:-1]]):
                if more[row] and (back == 0 or len(more[row]) > 1):
                    got = logits[row, -1 - back].log_softmax(-1)
                    assert torch.allclose(got, own(loaded, [*prompt, *chunk]), atol=1e-4)
        # Only what was accepted counts: the others' places are written again.
        decoder.accept(3, 1)
        again = decoder.advance([[], [], [], [31, 32], []], 1)[3, -1].log_softmax(-1)
        assert torch.allclose(again, own(loaded, [*prompts[0], 21, 31, 32]), atol=1e-4)


def test_prompts_that_begin_alike_are_read_once():
    from rank_rl.generation.ragged import shared

    start = list(range(100, 160))
    prompts = [[*start, 1, 2], [5, 6, 7], [*start, 3], [*start, 4, 5, 6]]
    order, groups = shared(prompts)
    assert sorted(order) == [0, 1, 2, 3]
    assert [[*prefix, *s] for prefix, segments in groups for s in segments] == [
        prompts[i] for i in order
    ]
    assert sum(len(p) + sum(map(len, s)) for p, s in groups) == 3 + 60 + 2 + 1 + 3


def test_short_beginnings_are_not_shared():
    from rank_rl.generation.ragged import shared

    prompts = [[*range(20), *range(100 * i, 100 * i + 300)] for i in (1, 2)]
    assert [len(segments) for _, segments in shared(prompts)[1]] == [1, 1]


def test_guesses_change_no_answer_and_save_passes(loaded, monkeypatch):
    from rank_rl.generation import local, ragged, writing

    assert local.in_place(loaded)
    passes = []
    real = ragged.Decoder.advance
    monkeypatch.setattr(
        ragged.Decoder, "advance", lambda self, *a: passes.append(1) or real(self, *a)
    )
    prompts = [ask("Who wrote Faust?"), ask("The river runs through the old town.")]
    counts, texts = {}, {}
    for most in (0, 3):
        monkeypatch.setattr(writing, "GUESSES", (most,))
        monkeypatch.setattr(writing, "PROBE", 10**6)
        passes.clear()
        answers = generator(loaded, max_new_tokens=40).generate(prompts)
        counts[most], texts[most] = len(passes), [(a.text, a.completion_tokens) for a in answers]
    assert texts[0] == texts[3]
    assert counts[0] == 39 and counts[3] < 39  # an untrained model repeats itself


def test_rows_that_are_done_make_room_for_those_that_wait(loaded):
    prompts = [ask(f"Question {i} " * (1 + i % 5)) for i in range(11)]
    few = generator(loaded, max_new_tokens=9, batch_size=3).generate(prompts)
    alone = [generator(loaded, max_new_tokens=9).generate([p])[0] for p in prompts]
    assert [a.text for a in few] == [a.text for a in alone]


@pytest.mark.parametrize(
    ("spec", "rules"),
    [
        (FormatSpec(name="permutation"), Rules(constrained=True)),
        (FormatSpec(name="permutation", params={"prefill": "["}), Rules(constrained=True)),
        (FormatSpec(name="permutation", mode="reason"), Rules(constrained=True)),
        (FormatSpec(name="permutation", mode="reason"), Rules(thinking_budget=7)),
        (FormatSpec(name="permutation", mode="reason"), Rules(thinking_budget=0)),
        (
            FormatSpec(name="permutation", mode="reason", params={"prefill": "<think>\n"}),
            Rules(thinking_budget=5),
        ),
        (FormatSpec(name="scores", params={"max": 9}), Rules(constrained=True)),
        (FormatSpec(name="choice"), Rules(constrained=True)),
    ],
)
def test_ruled_answers_of_an_untrained_model_are_ok_and_the_likeliest(loaded, spec, rules):
    fmt = formats.make(spec)
    prompt = fmt.render(VIEW)
    request = Request(prompt=prompt, hint=hint(fmt, VIEW), rule=rules.rule(fmt, VIEW, prompt))
    writer = generator(loaded, max_new_tokens=12)
    (answer,) = writer.answer([request])
    outcome = fmt.parse(answer.text, VIEW, prefill=prompt.prefill)
    assert outcome.status == "ok", (answer.text, outcome.issues)
    assert answer.completion_tokens > 0 and answer.finish == "stop"
    many = writer.answer([request, Request(prompt=ask("Who?")), request])
    assert [many[0].text, many[2].text] == [answer.text] * 2


def test_each_choice_is_the_likeliest_of_those_allowed(loaded):
    from rank_rl.models.tokens import ChatTokens

    fmt = formats.make(FormatSpec(name="permutation"))
    view = numbered(VIEW.query, VIEW.candidates[:4])
    prompt = fmt.render(view)
    rule = Rules(constrained=True).rule(fmt, view, prompt)
    (answer,) = generator(loaded).answer([Request(prompt=prompt, rule=rule)])
    tokens = ChatTokens(loaded.tokenizer)
    left, said = ["1", "2", "3", "4"], ""
    for place in range(3):
        said += "[" if not place else "] > ["
        ids = tokens.encode_prompt(prompt) + tokens.encode(said)
        logprobs = own(loaded, ids)
        best = max(left, key=lambda label: float(logprobs[tokens.encode(label)[0]]))
        left.remove(best)
        said += best
    assert answer.text == f"{said}] > [{left[0]}]"


def test_one_and_ten_are_told_apart(loaded):
    import torch

    from rank_rl.generation.writers import Guided
    from rank_rl.models.tokens import ChatTokens

    tokens = ChatTokens(loaded.tokenizer)
    for favourite, wanted in (("0", "[10] > [1]"), ("]", "[1] > [10]")):
        guided = Guided(Listing(labels=("1", "10"), count=2), tokens, stop=0)
        logits = torch.zeros(1, len(loaded.tokenizer))
        logits[0, tokens.encode(favourite)[-1]] = 9.0
        while guided.finish is None:
            guided.take(logits, [0])
        assert guided.text == wanted
        assert tokens.decode(guided.ids) == wanted


def test_a_model_that_cannot_decode_in_place_still_answers_freely(loaded, monkeypatch):
    from rank_rl.generation import local

    prompts = [ask("Who?"), ask("Where is the lake?")]
    here = generator(loaded, max_new_tokens=8).generate(prompts)
    monkeypatch.setitem(local._IN_PLACE, loaded.model, False)
    stock = generator(loaded, max_new_tokens=8)
    assert [c.text for c in stock.generate(prompts)] == [c.text for c in here]
    fmt = formats.make(FormatSpec(name="choice"))
    rule = Rules(constrained=True).rule(fmt, VIEW, fmt.render(VIEW))
    with pytest.raises(ModelError, match="cannot be kept to a grammar"):
        stock.answer([Request(prompt=fmt.render(VIEW), rule=rule)])


@pytest.mark.parametrize(
    ("spec", "rules"),
    [
        (FormatSpec(name="permutation"), Rules(thinking_budget=5)),
        (FormatSpec(name="permutation", mode="reason"), Rules(thinking_budget=-1)),
        (FormatSpec(name="slots"), Rules(constrained=True)),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(spec, rules):
    with pytest.raises(RecipeError):
        rules.check(formats.make(spec))
