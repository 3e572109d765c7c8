"""Local generation: order kept, stopped where an answer ends, the same for the same seed."""

from __future__ import annotations

import pytest

from rank_rl.generation.endings import finished
from rank_rl.records import Prompt
from rank_rl.specs import ModelSpec


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def make(loaded, **params):
    from rank_rl.generation.local import LocalGenerator

    return LocalGenerator(loaded, **params)


def ask(text: str, prefill: str = "") -> Prompt:
    return Prompt(messages=({"role": "user", "content": text},), prefill=prefill)


PROMPTS = [
    ask("Who?"),
    ask("Who is the father of the director of the film about the lake? " * 4),
    ask("The river runs.", prefill="Relevant:"),
    ask("The river runs through the old town and into the lake."),
    ask("Is it?"),
]


def test_batches_answer_as_single_prompts_do_and_in_order(loaded):
    together = make(loaded, max_new_tokens=12, batch_size=3).generate(PROMPTS)
    alone = [make(loaded, max_new_tokens=12, batch_size=1).generate([p])[0] for p in PROMPTS]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.prompt_tokens for c in together] == [c.prompt_tokens for c in alone]
    assert len({c.prompt_tokens for c in together}) == len(PROMPTS)


def test_long_prompts_and_answers_share_smaller_batches(loaded, monkeypatch):
    from rank_rl.generation import local

    monkeypatch.setattr(local, "CPU_BATCH_TOKENS", 60)
    lengths = [n + 10 for n in (90, 20, 18, 3, 3, 3, 3, 3, 3)]
    # 90 + 10 is over the limit alone, twice 20 + 10 fits, six of 3 + 10 are cut at batch_size.
    found = list(local.batches(lengths, size=4, loaded=loaded))
    assert found == [[0], [1, 2], [3, 4, 5, 6], [7, 8]]


def test_greedy_decoding_is_the_argmax_step_by_step(loaded):
    import torch

    generator = make(loaded, max_new_tokens=6)
    (completion,) = generator.generate([PROMPTS[2]])
    ids = generator.tokens.encode_prompt(PROMPTS[2])
    written = []
    for _ in range(6):
        with torch.no_grad():
            top = int(loaded.model(torch.tensor([ids + written])).logits[0, -1].argmax())
        if top == loaded.tokenizer.eos_token_id:
            break
        written.append(top)
    assert completion.text == generator.tokens.decode(written)


def test_counts_and_progress(loaded):
    seen: list[int] = []
    completions = make(loaded, max_new_tokens=4, batch_size=2).generate(
        PROMPTS, progress=seen.append
    )
    assert sum(seen) == len(PROMPTS)
    for completion in completions:
        assert 1 <= completion.completion_tokens <= 4
        assert completion.seconds > 0
        assert completion.finish == ("stop" if completion.completion_tokens < 4 else "length")


def test_sampling_depends_on_seed_and_prompt_only(loaded):
    import torch

    def texts(seed: int) -> list[str]:
        generator = make(loaded, max_new_tokens=10, temperature=1.0, top_p=0.95, seed=seed)
        return [c.text for c in generator.generate(PROMPTS)]

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = texts(7)
        drawn = torch.rand(3)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(3), drawn)  # sampling left the global generator alone
        torch.manual_seed(2)
        assert texts(7) == first
    assert texts(8) != first


def test_settings_of_the_model_do_not_leak_in(loaded):
    config = loaded.model.generation_config
    plain = make(loaded, max_new_tokens=8).generate(PROMPTS)
    before = (config.do_sample, config.temperature, config.repetition_penalty, config.top_k)
    config.do_sample, config.temperature, config.repetition_penalty = True, 5.0, 9.0
    try:
        again = make(loaded, max_new_tokens=8).generate(PROMPTS)
    finally:
        config.do_sample, config.temperature, config.repetition_penalty, config.top_k = before
    assert [c.text for c in again] == [c.text for c in plain]


def test_a_prompt_without_room_fails_alone(loaded):
    long = ask("the river " * 2100)
    completions = make(loaded, max_new_tokens=4, batch_size=5).generate([PROMPTS[0], long])
    assert [c.finish for c in completions][1] == "error"
    assert completions[1].text == "" and completions[1].prompt_tokens > 2048
    assert completions[0].finish != "error"
    assert completions[0].text == make(loaded, max_new_tokens=4).generate([PROMPTS[0]])[0].text


def test_no_prompts_no_completions(loaded):
    assert make(loaded).generate([]) == []


def test_text_behind_the_closed_answer_is_cut(loaded):
    generator = make(loaded)
    ids = generator.tokens.encode("<answer>[2] > [1]</answer> and more")
    completion = finished(generator.tokens, ids, [], generator.stop)
    assert completion.text == "<answer>[2] > [1]</answer>"
    assert completion.finish == "stop"
    assert completion.completion_tokens == len(generator.tokens.encode(completion.text))


def test_generation_ends_when_the_answer_closes(tiny_model_dir):
    import torch

    from rank_rl.generation import stock
    from rank_rl.models.loading import load
    from rank_rl.models.tokens import ChatTokens

    trained = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu", train=True)
    tokens = ChatTokens(trained.tokenizer)
    prompt = tokens.encode_prompt(ask("Who?"))
    ids = prompt + tokens.encode("[1]</answer>" + " yes" * 40)
    batch = torch.tensor([ids])
    labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
    optimiser = torch.optim.AdamW(trained.model.parameters(), lr=5e-3)
    for _ in range(40):
        trained.model(input_ids=batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    generator = make(trained, max_new_tokens=40)
    completion = generator.generate([ask("Who?")])[0]
    assert (completion.text, completion.finish) == ("[1]</answer>", "stop")
    raw = stock.generate(generator, [prompt], 40)[0]
    assert len(raw) <= len(tokens.encode("[1]</answer>")) + 1 < 40
    assert trained.model.training  # validation inside training leaves the mode as it was
