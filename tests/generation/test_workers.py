"""Views divided among threads: the answers of one model, weights in common, nothing left behind."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from rank_rl import Reranker, formats
from rank_rl.errors import RecipeError
from rank_rl.formats.budget import CutReport
from rank_rl.generation import workers
from rank_rl.generation.canned import CannedGenerator
from rank_rl.generation.workers import Workers, evenly, side_by_side
from rank_rl.models.copies import twin_of
from rank_rl.records import (
    Candidate,
    Completion,
    Exchange,
    Outcome,
    Prompt,
    Query,
    RankingTask,
    View,
)
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

WORDS = ["river", "town", "lake", "film", "father", "song", "king", "ship", "tower", "garden"]


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A thread is worth it for a few words."""
    monkeypatch.setattr(workers, "LEAST", 20)


def tasks(count: int = 5):
    return [
        RankingTask(
            query=Query(qid=f"q{n}", text=f"who is the {WORDS[n]} of the film?"),
            candidates=tuple(
                Candidate(docid=w, text=f"The {w} of the {WORDS[n]}. " * (1 + i % 3), rank=i + 1)
                for i, w in enumerate(WORDS)
            ),
        )
        for n in range(count)
    ]


HOW = {
    "slots": (FormatSpec(name="slots", doc_tokens=24), None, {}),
    "slots, alone": (
        FormatSpec(name="slots", doc_tokens=24),
        StrategySpec(name="by_score", params={"size": 2}),
        {},
    ),
    "labels": (
        FormatSpec(name="pointwise", mode="answer", doc_tokens=24),
        StrategySpec(name="by_score", params={"size": 1}),
        {"readout": "score"},
    ),
    "kept prompts": (
        FormatSpec(name="choice", mode="answer", doc_tokens=24),
        StrategySpec(name="setwise", params={"children": 3, "top_k": 5}),
        {"readout": "score"},
    ),
    "text": (
        FormatSpec(name="permutation", mode="answer", doc_tokens=24),
        StrategySpec(name="sliding", params={"window": 4, "step": 2}),
        {"max_new_tokens": 12},
    ),
    "grammar": (
        FormatSpec(name="permutation", mode="answer", doc_tokens=24),
        StrategySpec(name="sliding", params={"window": 4, "step": 2}),
        {"max_new_tokens": 12, "constrained": True},
    ),
}


def made(loaded, how, count=1) -> Reranker:
    fmt, strategy, options = HOW[how]
    one = Reranker(loaded=loaded, fmt=formats.make(fmt), strategy=strategy, **options)
    one.workers = count
    return one


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("count", [2, 3])
def test_several_answer_as_one_does(loaded, how, count, monkeypatch):
    seen: set[str] = set()
    timed = workers.timed

    def watched(asker, views):
        seen.add(threading.current_thread().name)
        return timed(asker, views)

    monkeypatch.setattr(workers, "timed", watched)
    alone, several = made(loaded, how), made(loaded, how, count)
    wanted, got = alone.rank_tasks(tasks()), several.rank_tasks(tasks())
    assert seen == {f"rank-rl-worker-{i}" for i in range(count)}
    for ours, own in zip(got, wanted, strict=True):
        assert ours.ranking.docids == own.ranking.docids
        assert ours.ranking.scores == pytest.approx(own.ranking.scores, abs=1e-4)
        assert ours.statuses == own.statuses and ours.calls == own.calls
        texts = [[e.completion.text for e in result.exchanges] for result in (ours, own)]
        assert texts[0] == texts[1]
    assert several.cuts == alone.cuts and several.cuts.documents > 0
    assert several.counters.views == alone.counters.views


def test_what_is_kept_of_prompts_is_of_use_to_the_next_round(loaded):
    """Queries stay with the thread that read them, so no more is read than by one."""
    alone, several = made(loaded, "kept prompts"), made(loaded, "kept prompts", 2)
    read = [
        sum(result.prompt_tokens for result in one.rank_tasks(tasks(4))) for one in (alone, several)
    ]
    unkept = made(loaded, "kept prompts")
    unkept.asker._labels.read = lambda questions, keep: type(unkept.asker._labels).read(
        unkept.asker._labels, questions, keep=False
    )
    more = sum(result.prompt_tokens for result in unkept.rank_tasks(tasks(4)))
    assert read[1] <= 1.05 * read[0] < more
    assert all(copy._labels._kept is None for copy in several._workers._copies)  # forgotten


@pytest.mark.parametrize("how", ["slots, alone", "labels"])
def test_the_views_of_one_query_are_divided_too(loaded, how):
    several = made(loaded, how, 2)
    (got,) = several.rank_tasks(tasks(1))
    assert len(several._workers._copies) == 2
    (wanted,) = made(loaded, how).rank_tasks(tasks(1))
    assert got.ranking.docids == wanted.ranking.docids


@pytest.mark.parametrize("how", ["slots", "kept prompts"])
def test_one_model_is_enough_for_one_question_at_a_time(loaded, how):
    several = made(loaded, how, 2)
    several.rank_tasks(tasks(1))
    assert not several._workers._copies


def test_weights_are_in_common_and_what_a_pass_changes_is_not(loaded):
    other = twin_of(loaded, of=2)
    own = dict(loaded.model.named_parameters())
    for name, weight in other.model.named_parameters():
        assert weight is own[name]
    assert other.model.config is not loaded.model.config
    assert other.tokenizer is not loaded.tokenizer and other.share == 2
    assert {id(m) for m in other.model.modules()}.isdisjoint(map(id, loaded.model.modules()))


def test_what_was_found_out_about_a_model_holds_for_its_twin(loaded, monkeypatch):
    from rank_rl.generation import local
    from rank_rl.models import packed_attention

    assert local.in_place(loaded)
    chosen = packed_attention.choose(loaded.model)
    other = twin_of(loaded, of=2)
    refuse = pytest.fail
    monkeypatch.setattr(local.ragged, "agrees", lambda model: refuse("was tried again"))
    monkeypatch.setattr(packed_attention, "alone", lambda *a, **k: refuse("was tried again"))
    assert local.in_place(other) and packed_attention.choose(other.model) == chosen


def test_memory_for_keys_and_values_is_divided(loaded, monkeypatch):
    from rank_rl.generation import local

    monkeypatch.setattr(local, "CPU_CACHE_BYTES", 1 << 20)
    assert local.cache_tokens(twin_of(loaded, of=4)) == local.cache_tokens(loaded) // 4


def test_threads_of_torch_are_divided_and_given_back(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        found = side_by_side({0: torch.get_num_threads, 2: torch.get_num_threads})
        assert found == {0: 2, 2: 2}
        assert torch.get_num_threads() == 5
        late: list[int] = []
        thread = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert late == [5]
    finally:
        torch.set_num_threads(before)


def test_one_that_fails_fails_the_call_and_the_next_call_works(loaded, monkeypatch):
    several = made(loaded, "slots", 2)
    wanted = [r.ranking.docids for r in several.rank_tasks(tasks(4))]
    old = list(several._workers._copies)
    ask = old[1].ask

    def broken(views):
        ask(views)
        raise MemoryError("no room")

    old[1].ask = broken
    with pytest.raises(MemoryError, match="no room"):
        several.rank_tasks(tasks(4))
    assert [r.ranking.docids for r in several.rank_tasks(tasks(4))] == wanted
    assert not set(map(id, old)) & set(map(id, several._workers._copies))
    assert several.cuts.documents >= 2 * 4 * 10  # those of the copies that are gone count too


def test_an_interrupted_call_leaves_its_models_to_those_that_still_work(loaded, monkeypatch):
    several = made(loaded, "slots", 2)
    several.rank_tasks(tasks(4))
    old = set(map(id, several._workers._copies))

    def interrupted(futures):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            several.rank_tasks(tasks(4))
    several.rank_tasks(tasks(4))
    assert old.isdisjoint(map(id, several._workers._copies))


class Told:
    """Says which views it was asked, and that each took a second."""

    deterministic = True

    def __init__(self) -> None:
        self.cuts, self.tokens, self.asked = CutReport(), None, []

    def ask(self, views):
        self.asked.append([view.query.qid for view in views])
        return [
            workers_answer(
                Exchange(
                    qid=view.query.qid,
                    view=view,
                    prompt=Prompt(messages=()),
                    completion=Completion(text="", seconds=1.0),
                    outcome=Outcome(status="ok"),
                )
            )
            for view in views
        ]


def workers_answer(exchange):
    from rank_rl.generation.asking import Asked

    return Asked(exchange=exchange, statuses={})


class Keeps(Told):
    """One that keeps what it read of a query."""

    def forget(self) -> None:
        self.asked.append("forgot")


def views(*names: str, length: int = 100):
    found = []
    for name in names:
        shown = (Candidate(docid="a", text="x" * length), Candidate(docid="b", text="y" * length))
        found.append(View(query=Query(qid=name, text=name), candidates=shown, labels=("1", "2")))
    return found


def test_what_answers_cost_is_what_the_clock_says():
    """Two threads of three and one seconds are three seconds, not four."""
    made_ones: list[Told] = []
    several = Workers(Told(), lambda count: made_ones.append(Told()) or made_ones[-1])
    several.count = 2
    found = several.ask([*views("a", length=600), *views("b", "c", "d", length=200)])
    assert [answer.exchange.qid for answer in found] == ["a", "b", "c", "d"]
    assert sorted(len(one.asked[0]) for one in made_ones) == [1, 3]
    assert sum(answer.exchange.completion.seconds for answer in found) == pytest.approx(3.0)


def test_a_query_stays_where_it_was_until_others_have_to_wait():
    made_ones: list[Keeps] = []
    several = Workers(Keeps(), lambda count: made_ones.append(Keeps()) or made_ones[-1])
    several.count = 2
    several.ask(views("a", "b", "c", "d"))
    first = {qid: n for n, one in enumerate(made_ones) for qid in one.asked[0]}
    assert sorted(first.values()) == [0, 0, 1, 1]
    several.ask(views("d", "c", "b", "a"))
    assert {qid: n for n, one in enumerate(made_ones) for qid in one.asked[1]} == first
    # Two queries of the same thread are left: one of them moves.
    left = [qid for qid, n in first.items() if n == 0]
    several.ask(views(*left))
    assert [len(one.asked[2]) for one in made_ones] == [1, 1]
    # The last query of all goes on where it is.
    several.ask(views(left[0]))
    assert sum(len(one.asked) for one in made_ones) == 7
    several.forget()
    assert [one.asked[-1] for one in made_ones] == ["forgot"] * 2
    several.ask(views(left[0]))
    assert several.asker.asked[-1] == [left[0]]  # nothing kept, nothing to divide


def test_a_server_that_never_rests_does_not_remember_all_queries(monkeypatch):
    monkeypatch.setattr(workers, "QUERIES", 3)
    several = Workers(Keeps(), lambda count: Keeps())
    several.count = 2
    for n in range(10):
        several.ask(views("stays", f"q{n}"))
        assert len(several._known) <= 3
    assert ("stays", "stays") in several._known


@pytest.mark.parametrize(
    ("sizes", "count", "wanted"),
    [
        ([1, 1, 1, 1], 2, [[0, 1], [2, 3]]),
        ([3, 1, 1, 1], 2, [[0], [1, 2, 3]]),
        ([1, 1, 1], 3, [[0], [1], [2]]),
        ([9, 1], 2, [[0], [1]]),
    ],
)
def test_views_in_parts_of_about_the_same_size(sizes, count, wanted):
    assert list(evenly(range(len(sizes)), sizes, count).values()) == wanted


def test_short_texts_are_not_worth_a_thread(monkeypatch):
    monkeypatch.setattr(workers, "LEAST", 1000)
    several = Workers(Told(), lambda count: pytest.fail("was copied"))
    several.count = 4
    several.ask(views("a", "b", length=20))
    assert several.asker.asked == [["a", "b"]]


def test_how_many(loaded, tiny_model_dir, monkeypatch):
    import torch

    with pytest.raises(RecipeError, match="workers"):
        made(loaded, "slots").workers = 0
    own = Reranker(
        loaded=loaded,
        fmt=formats.make(FormatSpec(name="permutation", mode="answer")),
        generator=CannedGenerator([]),
    )
    with pytest.raises(RecipeError, match="nothing can be divided"):
        own.workers = 2
    own.workers = 1
    assert made(loaded, "slots").workers == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    fmt = {"name": "slots"}
    assert Reranker.from_pretrained(tiny_model_dir, device="cpu", format=fmt).workers == 3
    one = Reranker.from_pretrained(tiny_model_dir, device="cpu", format=fmt, workers=1)
    assert one.workers == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert workers.threads_for("cpu") == 8 and workers.threads_for("cuda") == 1


def test_under_autocast_the_weights_are_as_they_were(loaded):
    lower = replace(loaded, autocast="bfloat16")
    several, alone = made(lower, "slots", 2), made(lower, "slots")
    got = [r.ranking.scores for r in several.rank_tasks(tasks(4))]
    for ours, own in zip(got, alone.rank_tasks(tasks(4)), strict=True):
        assert ours == pytest.approx(own.ranking.scores, abs=0.3)
    assert not any(p.requires_grad for p in loaded.model.parameters())
