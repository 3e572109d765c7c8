"""Prompts that are kept: what is read behind them is the model's own, and less is read."""

from __future__ import annotations

import random

import pytest

from rank_rl import Reranker, formats
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def own(loaded, ids):
    """(V,) log-probabilities of the next token by the model's ordinary forward."""
    import torch

    with torch.no_grad():
        return loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("tokens", [4096, 150])  # the latter has room for two prompts only
def test_prompts_that_begin_like_kept_ones_are_read_exactly(loaded, tokens):
    import torch

    from rank_rl.generation.kept import Kept

    draw = random.Random(3)
    start = [draw.randrange(5, 400) for _ in range(30)]
    kept = Kept(loaded.model, tokens=tokens, read_tokens=64)
    tree = [(7, -1), (8, 0), (9, 0), (10, 2)]
    spared = 0
    with torch.no_grad():
        for _ in range(4):
            prompts = [
                start[: draw.choice([0, 20, 30])] + [draw.randrange(5, 400) for _ in range(n)]
                for n in (3, 9, 25)
            ]
            trees = [tree, [], tree[:2]]
            for prompt, own_tree, logits in zip(
                prompts, trees, kept.read(prompts, trees), strict=True
            ):
                paths = [[]]
                for token, parent in own_tree:
                    paths.append([*paths[parent + 1], token])
                assert len(logits) == len(paths)
                for path, row in zip(paths, logits, strict=True):
                    wanted = own(loaded, [*prompt, *path])
                    assert torch.allclose(row.log_softmax(-1), wanted, atol=2e-4)
            spared += sum(kept.spared)
    assert spared > 0


def tasks():
    words = ["river", "town", "lake", "film", "father", "song", "king", "ship", "tower", "garden"]
    words += ["director", "mountain"]
    return [
        RankingTask(
            query=Query(qid=qid, text=f"who is the {qid} of the film?"),
            candidates=tuple(
                Candidate(docid=w, text=f"The {w} of the old town and its {qid}.", rank=i + 1)
                for i, w in enumerate(words)
            ),
        )
        for qid in ("father", "king", "director")
    ]


@pytest.mark.parametrize(
    ("spec", "strategy", "share"),
    [
        (
            FormatSpec(name="choice"),
            StrategySpec(name="setwise", params={"children": 3, "top_k": 4}),
            0.7,
        ),
        (
            FormatSpec(name="choice"),
            StrategySpec(name="setwise", params={"method": "bubble", "children": 5, "top_k": 3}),
            0.85,
        ),
    ],
)
def test_rounds_of_a_sort_read_less_and_say_the_same(loaded, monkeypatch, spec, strategy, share):
    from rank_rl.generation import local

    def run():
        one = Reranker(loaded=loaded, fmt=formats.make(spec), strategy=strategy, readout="score")
        one.remember(0)
        return one.rank_tasks(tasks())

    kept = run()
    monkeypatch.setitem(local._IN_PLACE, loaded.model, False)
    whole = run()
    for a, b in zip(kept, whole, strict=True):
        assert a.ranking == b.ranking
        for left, right in zip(a.exchanges, b.exchanges, strict=True):
            assert left.view == right.view
            (known,), (wanted,) = left.completion.slots.values(), right.completion.slots.values()
            assert known == pytest.approx(wanted, abs=2e-4)
        assert a.prompt_tokens < share * b.prompt_tokens


def test_what_is_kept_is_forgotten_when_nothing_is_left_to_rank(loaded):
    one = Reranker(
        loaded=loaded,
        fmt=formats.make(FormatSpec(name="choice")),
        strategy=StrategySpec(name="setwise", params={"children": 3, "top_k": 4}),
        readout="score",
    )
    session = one.session()
    session.add(tasks()[0])
    session.step()
    assert one.asker._labels._kept is not None
    while session.waiting:
        session.step()
    assert one.asker._labels._kept is None
