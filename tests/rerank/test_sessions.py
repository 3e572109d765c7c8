"""Many queries at once: sessions, streams, counters, views asked once, what a contract says."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rank_rl import Reranker, formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.canned import CannedGenerator
from rank_rl.hub.contract import PromptContract
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

SLOTS = FormatSpec(name="slots", mode="reason", doc_tokens=16)
LIST = FormatSpec(name="permutation", mode="answer")
TEXTS = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def task(qid: str, n: int = 5, prefix: str = "d") -> RankingTask:
    return RankingTask(
        query=Query(qid=qid, text="who is the father?"),
        candidates=tuple(
            Candidate(docid=f"{prefix}{i}", text=TEXTS[i % 5], rank=i + 1) for i in range(n)
        ),
    )


def slots(loaded, **params) -> Reranker:
    return Reranker(loaded=loaded, fmt=formats.make(SLOTS), **params)


def pairs():
    return [("who is the father?", TEXTS[:n]) for n in (2, 5, 3)]


def test_rank_many_and_stream_give_what_rank_gives(loaded):
    one = slots(loaded)
    alone = [one.rank(query, texts) for query, texts in pairs()]
    many = one.rank_many(pairs())
    streamed = dict(one.stream(pairs(), top_k=1))
    for i, results in enumerate(alone):
        assert [r.docid for r in many[i]] == [r.docid for r in results]
        assert [r.score for r in many[i]] == pytest.approx([r.score for r in results], abs=1e-4)
        assert [r.docid for r in streamed[i]] == [results[0].docid]


def test_stream_hands_over_what_is_finished_before_it_asks_on(loaded):
    one = slots(loaded)
    one.batch_size = 1
    stream = one.stream(pairs())
    assert next(stream)[0] == 0
    assert one.counters.queries == 1 and one.counters.views == 1
    assert [number for number, _ in stream] == [1, 2]
    assert one.counters.queries == 3


def test_concurrent_calls_of_arank_agree_with_rank(loaded):
    one = slots(loaded)
    wanted = [[r.docid for r in one.rank(query, texts)] for query, texts in pairs()]

    async def all_of_them():
        return await asyncio.gather(*(one.arank(q, texts) for q, texts in pairs()))

    found = asyncio.run(all_of_them())
    one.batcher().close()
    assert [[r.docid for r in results] for results in found] == wanted


def test_tasks_are_added_and_dropped_between_steps(loaded):
    one = slots(loaded, strategy=StrategySpec(name="by_score", params={"size": 1}))
    one.batch_size = 2
    session = one.session()
    first, second = session.add(task("a")), session.add(task("b", 2))
    assert session.step() == [] and session.waiting == 2
    session.drop(first)
    third = session.add(task("c", 3))
    done = []
    while session.waiting:
        done += session.step()
    assert sorted(ticket for ticket, _ in done) == [second, third]
    assert not session._asked  # what was answered for the dropped task is forgotten


def test_identical_views_are_asked_once_and_name_their_own_documents(loaded):
    one = slots(loaded)
    first, second = one.rank_tasks([task("a"), task("b", prefix="other")])
    assert one.counters.repeated == 1 and one.counters.views == 2
    assert [d.replace("other", "d") for d in second.ranking.docids] == list(first.ranking.docids)
    assert second.ranking.scores == first.ranking.scores
    assert first.prompt_tokens > 0 and second.prompt_tokens == 0
    assert second.exchanges[0].qid == "b" == second.exchanges[0].view.query.qid
    one.rank_tasks([task("c")])
    assert one.counters.repeated == 1  # nothing is kept between calls …
    one.remember(10)
    one.rank_tasks([task("d")])
    one.rank_tasks([task("e")])
    assert one.counters.repeated == 2  # … unless asked for


def test_sampled_answers_are_asked_for_again(loaded):
    from rank_rl.generation.local import LocalGenerator

    drawing = LocalGenerator(loaded, temperature=1.0, max_new_tokens=4)
    one = Reranker(loaded=loaded, fmt=formats.make(LIST), generator=drawing)
    one.rank_tasks([task("a"), task("b")])
    assert one.counters.repeated == 0


def test_answers_are_forgotten_when_they_show_too_much(loaded, monkeypatch):
    from rank_rl.generation import repeats

    monkeypatch.setattr(repeats, "CHARACTERS", 60)  # a task shows 59
    one = slots(loaded)
    one.remember(10)
    for n in (5, 4, 5):
        one.rank_tasks([task("q", n)])
    assert one.counters.repeated == 0


def test_counters_add_up(loaded):
    one = Reranker(
        loaded=loaded, fmt=formats.make(LIST), generator=CannedGenerator(["[2] > [1]", "?"])
    )
    results = one.rank_tasks([task("a", 2), task("b", 2)])
    counted = one.counters.as_dict()
    assert counted["statuses"] == {"ok": 1, "repaired": 0, "failed": 1}
    assert counted["prompt_tokens"] == sum(r.prompt_tokens for r in results)
    assert (counted["queries"], counted["views"], counted["repeated"]) == (2, 2, 0)


def test_constrained_answers_can_always_be_read(loaded):
    free = Reranker(loaded=loaded, fmt=formats.make(LIST), max_new_tokens=12)
    ruled = Reranker(loaded=loaded, fmt=formats.make(LIST), constrained=True)
    assert free.rank_tasks([task("a")])[0].statuses["ok"] == 0
    (result,) = ruled.rank_tasks([task("a")])
    assert result.statuses == {"ok": 1, "repaired": 0, "failed": 0}


@pytest.fixture(scope="module")
def checkpoint(tiny_model_dir, tmp_path_factory):
    import shutil

    folder = tmp_path_factory.mktemp("checkpoints") / "final"
    shutil.copytree(tiny_model_dir, folder)
    strategy = StrategySpec(name="by_score")
    PromptContract.of(formats.make(SLOTS), strategy, max_new_tokens=9).write(folder)
    return folder


def test_overriding_a_contract_says_so(checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        Reranker.from_pretrained(checkpoint, device="cpu")
        assert not caplog.messages
        Reranker.from_pretrained(checkpoint, device="cpu", readout="expected")
        other = {"name": "by_score", "params": {"size": 2}}
        Reranker.from_pretrained(checkpoint, device="cpu", strategy=other)
        Reranker.from_pretrained(checkpoint, device="cpu", format=LIST)
    assert [m.split(": ", 1)[1] for m in caplog.messages] == [
        "readout is expected, its contract says score",
        "strategy is by_score {'size': 2}, its contract says by_score {}",
        "was trained with another format: its contract is not used",
    ]


def test_a_model_without_a_contract_is_asked_as_told(tiny_model_dir, caplog):
    with pytest.raises(ModelError, match=r"rank_rl\.json is missing"):
        Reranker.from_pretrained(tiny_model_dir, device="cpu")
    with caplog.at_level(logging.WARNING):
        one = Reranker.from_pretrained(tiny_model_dir, device="cpu", format=SLOTS, batch_size=3)
    assert "has no prompt contract" in caplog.text
    assert one.batch_size == 3 and one.rank("who?", TEXTS)[0].rank == 1
    with pytest.raises(RecipeError, match="batch_size"):
        one.batch_size = 0
