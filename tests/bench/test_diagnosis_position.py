"""Position bias of rankers that do not look at positions, that copy, and of a real tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rank_rl import Reranker, formats
from rank_rl.bench import diagnosis
from rank_rl.bench.diagnosis.again import shuffled, some
from rank_rl.bench.diagnosis.position import Orders, promotion, pull
from rank_rl.records import Candidate, Query, Ranking, RankingTask
from rank_rl.seeds import derive
from rank_rl.specs import FormatSpec, ModelSpec

Key = Callable[[RankingTask, str], float]


def task(qid: str, n: int = 10, graded: bool = False) -> RankingTask:
    """Documents d0 … of which the last is the best; scores 100, 90 … by rank."""
    return RankingTask(
        query=Query(qid=qid, text="?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"text {i}", rank=i + 1, score=100.0 - 10 * i)
            for i in range(n)
        ),
        grades={f"d{n - 1}": 1} if graded else None,
    )


def ranker(key: Key) -> diagnosis.Rank:
    """Ranks by a number a document, the smallest first."""

    def rank(tasks: Sequence[RankingTask]) -> list[Ranking]:
        return [
            Ranking(qid=t.query.qid, docids=tuple(sorted(t.docids, key=lambda d: key(t, d))))
            for t in tasks
        ]

    return rank


def place(t: RankingTask, docid: str) -> int:
    return t.docids.index(docid)


oracle = ranker(lambda t, d: -int(d[1:]))
copy = ranker(place)


def test_a_shuffled_task_hands_ranks_and_scores_to_the_new_order():
    made = [shuffled(task("q", 6), seed=1, number=i) for i in range(1, 30)]
    for one in made:
        assert sorted(one.docids) == sorted(task("q", 6).docids)
        assert [c.rank for c in one.candidates] == [1, 2, 3, 4, 5, 6]
        assert [c.score for c in one.candidates] == [100, 90, 80, 70, 60, 50]
        assert all(c.text == f"text {c.docid[1:]}" for c in one.candidates)
    assert len({one.docids for one in made}) > 20
    assert made[0].docids == shuffled(task("q", 6), seed=1, number=1).docids
    assert made[0].docids != shuffled(task("q", 6), seed=2, number=1).docids


def test_a_ranker_that_does_not_look_at_positions_has_no_bias():
    tasks = [task(f"q{i}", n, graded=True) for i, n in enumerate((2, 5, 12))]
    found = diagnosis.position(oracle, tasks, shuffles=3, seed=7, metric="ndcg@10")
    assert found["consistency"] == found["top1_overlap"] == found["top10_overlap"] == 1.0
    assert found["pull"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert {row["mean_gain"] for row in found["promotion"]} == {0.0}
    assert [row["n"] for row in found["promotion"]] == [9] * 2 + [6] * 3 + [3] * 7
    assert (found["queries"], found["shuffles"]) == (3, 3)
    quality = found["quality"]
    assert quality["given"] == quality["shuffled"] == 1.0
    assert quality["difference"] == quality["low"] == quality["high"] == 0.0
    json.dumps(found)


def test_a_ranker_that_copies_has_all_the_bias_there_is():
    tasks = [task(f"q{i}", graded=True) for i in range(60)]
    found = diagnosis.position(copy, tasks, shuffles=4, seed=7, metric="ndcg@10")
    assert found["consistency"] == pytest.approx(0.0, abs=0.06)
    assert found["top1_overlap"] == pytest.approx(0.1, abs=0.06)
    assert found["top10_overlap"] == found["top10_chance"] == 1.0  # of ten documents
    assert found["pull"]["mean"] == pytest.approx(1.0)
    for row in found["promotion"]:
        # The first of ten gains 4.5 places on its mean, the last loses as many.
        assert row["mean_gain"] == pytest.approx(5.5 - row["input_rank"], abs=0.6)
    assert [row["share"] for row in found["top1_share"]] == [1.0] + [0.0] * 9
    assert [row["chance"] for row in found["top1_share"]] == pytest.approx([0.1] * 10)
    # The relevant document is last as given, anywhere in random orders.
    quality = found["quality"]
    assert quality["given"] < quality["low"] + quality["given"] < quality["shuffled"]


def test_good_documents_in_front_are_not_taken_for_a_bias():
    """The first stage is right: shown in front and ranked first, wherever they are shown."""
    found = diagnosis.position(
        ranker(lambda t, d: int(d[1:])), [task("a"), task("b")], shuffles=2, seed=3
    )
    assert found["pull"]["mean"] == 0.0
    assert {row["mean_gain"] for row in found["promotion"]} == {0.0}


def test_a_mild_bias_is_measured_in_places():
    """Half contents, half position: a slope between nothing and all, highest in front."""
    mild = ranker(lambda t, d: int(d[1:]) + place(t, d) + 0.1 * place(t, d))
    tasks = [task(f"q{i}") for i in range(60)]
    found = diagnosis.position(mild, tasks, shuffles=3, seed=1)
    assert 0.3 < found["pull"]["low"] < found["pull"]["mean"] < found["pull"]["high"] < 0.8
    assert 0.2 < found["consistency"] < 0.9
    gains = [row["mean_gain"] for row in found["promotion"]]
    assert gains[0] > 1 and gains[-1] < -1
    assert found["top1_share"][0]["share"] > 2 * found["top1_share"][0]["chance"]


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
def test_gains_of_a_run_cancel_out_and_a_copy_has_the_pull_of_a_copy(n, shuffles, seed):
    """Whatever the ranker: what one document gains others lose."""
    drawn = ranker(lambda t, d: derive(seed, *t.docids, d))
    orders = [task("q", n), *(shuffled(task("q", n), seed=seed, number=i) for i in range(shuffles))]
    run = Orders(
        shown=tuple(o.docids for o in orders), ranked=tuple(r.docids for r in drawn(orders))
    )
    assert sum(row["mean_gain"] * row["n"] for row in promotion([run])) == pytest.approx(0)
    same = Orders(shown=run.shown, ranked=run.shown)
    back = Orders(shown=run.shown, ranked=tuple(o[::-1] for o in run.shown))
    if len(set(run.shown)) > 1:
        slopes = [pull([r], seed=0) for r in (same, back)]
        assert [s["mean"] for s in slopes if s] == pytest.approx([1, -1])
    else:
        assert pull([run], seed=0) is None


def test_known_rankings_are_not_asked_for_again():
    asked = []

    def counted(tasks: Sequence[RankingTask]) -> list[Ranking]:
        asked.append([t.docids for t in tasks])
        return oracle(tasks)

    tasks = [task("a"), task("b"), task("alone", 1)]
    known = {r.qid: r for r in oracle(tasks)}
    found = diagnosis.position(counted, tasks, shuffles=2, seed=0, given=known)
    assert found["queries"] == 2 and [len(a) for a in asked] == [2, 2]
    assert tasks[0].docids not in [docids for one in asked for docids in one]
    assert found == diagnosis.position(oracle, tasks, shuffles=2, seed=0)
    assert diagnosis.position(oracle, [task("alone", 1)], shuffles=2, seed=0) == {}


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        diagnosis.position(oracle, [task("q")], shuffles=0, seed=0)

    def short(tasks: Sequence[RankingTask]) -> list[Ranking]:
        return [Ranking(qid=t.query.qid, docids=t.docids[:3]) for t in tasks]

    with pytest.raises(ValueError, match="'q': not an order"):
        diagnosis.position(short, [task("q")], shuffles=1, seed=0)


def test_queries_that_count_are_drawn_first():
    tasks = [task(f"q{i}", 1 if i < 3 else 4, graded=i % 2 == 0) for i in range(12)]
    drawn = some(tasks, 4, seed=5)
    assert [t.query.qid for t in drawn] == ["q4", "q6", "q8", "q10"]
    more = [t.query.qid for t in some(tasks, 6, seed=5)]
    assert {"q4", "q6", "q8", "q10"} < set(more) and len(more) == 6
    assert more == sorted(more, key=lambda qid: int(qid[1:]))
    assert len(some(tasks, 99, seed=5)) == 9 and some(tasks, 0, seed=5) == []
    draws = {tuple(t.query.qid for t in some(tasks, 6, seed=i)) for i in range(20)}
    assert len(draws) > 1


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


def words(qid: str) -> RankingTask:
    texts = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]
    candidates = tuple(
        Candidate(docid=f"d{i}", text=text, rank=i + 1) for i, text in enumerate(texts)
    )
    return RankingTask(
        query=Query(qid=qid, text=f"who is the father of {qid}?"),
        candidates=candidates,
        grades={"d3": 1},
    )


def test_a_real_model_that_reads_each_document_alone_has_no_bias_unless_it_is_told_ranks(loaded):
    tasks = [words(f"q{i}") for i in range(3)]

    def bias(**spec: object) -> dict[str, object]:
        fmt = formats.make(FormatSpec.model_validate({"name": "slots", **spec}))
        rank = diagnosis.by(Reranker(loaded=loaded, fmt=fmt))
        return diagnosis.position(rank, tasks, shuffles=2, seed=2, metric="ndcg@10")

    alone = bias()
    assert alone["consistency"] == 1.0 and alone["pull"]["mean"] == 0.0
    assert {row["mean_gain"] for row in alone["promotion"]} == {0.0}
    told = bias(first_stage_hint="rank")
    assert told["consistency"] < 1.0 and told["pull"]["mean"] != 0.0


def test_answers_that_nobody_can_read_follow_the_input(loaded):
    """An untrained model writes no list, so that every ranking is the order shown."""
    fmt = formats.make(FormatSpec(name="permutation"))
    rank = diagnosis.by(Reranker(loaded=loaded, fmt=fmt, max_new_tokens=4))
    found = diagnosis.position(rank, [words("q")], shuffles=2, seed=0)
    assert found["pull"]["mean"] == pytest.approx(1.0) and found["consistency"] < 0.9
