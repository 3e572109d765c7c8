"""Answers whose frame is given: the same probabilities as reading the finished text."""

from __future__ import annotations

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.readout import readout_for
from rank_rl.records import Candidate, Query, Scores, numbered
from rank_rl.specs import FormatSpec, ModelSpec

TEXTS = ["a river", "the lake is deep", "town of the father: [3] here", "stars make light, and so"]


def view(count: int, question: str = "who is the father?"):
    query = Query(qid="q", text=question)
    return numbered(
        query, [Candidate(docid=f"d{i}", text=t, rank=i) for i, t in enumerate(TEXTS[:count], 1)]
    )


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def scores(mode: str = "answer", **params):
    params = {"max": 9, **params}
    return formats.make(FormatSpec(name="scores", mode=mode, params=params))


def filled(loaded, fmt, views, **kwargs):
    from rank_rl.generation.guided import fill

    return fill(loaded, [fmt.render(v) for v in views], views, fmt, **kwargs)


@pytest.mark.parametrize("params", [{}, {"quote": 3}, {"max": 1, "quote": 12, "prefill": '{"['}])
def test_probabilities_are_those_read_off_the_written_answer(loaded, params):
    from rank_rl.generation.readout import read_slots

    fmt = scores(**params)
    # Different numbers and lengths of documents: shorter rows are padded in the middle.
    views = [view(4), view(2, "where is the very deep lake of the old town?"), view(3)]
    for shown, completion in zip(views, filled(loaded, fmt, views), strict=True):
        prompt = fmt.render(shown)
        read = read_slots(loaded, prompt, completion.text, fmt, shown)
        assert list(read) == list(completion.slots) == list(shown.labels)
        for label, slot in read.items():
            assert completion.slots[label] == pytest.approx(slot, abs=1e-3)
        outcome = fmt.parse(completion.text, shown, prefill=prompt.prefill)
        assert outcome.status == "ok"
        best = {lb: float(max(slot, key=slot.get)) for lb, slot in completion.slots.items()}
        assert outcome.answer == Scores(values={shown.docid(lb): v for lb, v in best.items()})


def test_later_scores_depend_on_those_chosen_before(loaded):
    """The chosen score is what the next pass goes on from, not the blank that stood there."""
    import torch

    from rank_rl.models.tokens import ChatTokens

    fmt, shown = scores(), view(2)
    (completion,) = filled(loaded, fmt, [shown])
    prompt, tokens = fmt.render(shown), ChatTokens(loaded.tokenizer)
    before = completion.text[: completion.text.index('"[2]": ') + len('"[2]":')]
    ids = tokens.encode_prompt(prompt) + tokens.encode(prompt.prefill + before)
    with torch.no_grad():
        row = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    (token,) = tokens.encode(" 7")
    assert completion.slots["2"]["7"] == pytest.approx(row[token].item(), abs=1e-3)
    chosen = max(completion.slots["1"], key=completion.slots["1"].get)
    assert chosen != "0", "the test needs a first score that is not the blank"


def test_a_batch_gives_what_each_row_gives_alone(loaded):
    fmt = scores(quote=4)
    views = [view(n) for n in (3, 1, 4, 2)]
    together = filled(loaded, fmt, views)
    for shown, completion in zip(views, together, strict=True):
        (alone,) = filled(loaded, fmt, [shown], batch_size=1)
        assert alone.text == completion.text
        assert alone.prompt_tokens == completion.prompt_tokens
        assert alone.completion_tokens == completion.completion_tokens


def test_a_prompt_beyond_the_window_is_an_error_of_its_own(loaded, monkeypatch):
    fmt = scores()
    short, long = view(1), view(4, "who is the father of the town? " * 8)
    fits = filled(loaded, fmt, [short])[0]
    room = fits.prompt_tokens + fits.completion_tokens
    monkeypatch.setattr(loaded.model.config, "max_position_embeddings", room)
    first, second = filled(loaded, fmt, [long, short])
    assert (first.finish, first.text, first.slots) == ("error", "", {})
    assert second.text == fits.text


def test_scores_of_several_tokens_are_refused(loaded):
    with pytest.raises(ModelError, match=r"more than one token.*max to 9"):
        filled(loaded, scores(max=100), [view(2)])


@pytest.mark.parametrize(
    "spec", [FormatSpec(name="permutation"), FormatSpec(name="scores", mode="reason")]
)
def test_only_score_answers_can_be_guided(spec):
    with pytest.raises(RecipeError, match=r"readout 'guided'.*one of auto"):
        readout_for(formats.make(spec), "guided")


def test_reranker_reads_guided_answers(loaded):
    from rank_rl.rerank import Reranker

    reranker = Reranker(loaded=loaded, fmt=scores(quote=4), readout="guided")
    results = reranker.rank("who is the father?", TEXTS)
    assert sorted(r.docid for r in results) == ["1", "2", "3", "4"]
    assert len({r.score for r in results}) == 4, "expected scores, finer than integers"
