"""The same Reranker with a model behind a real HTTP server: strategies, faults, nothing twice."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mortal_server import Mortal, free_port
from openai_server import Fixed, Server, ServerSettings

from rank_rl import Reranker
from rank_rl.errors import BackendError, DataError, RecipeError, StorageError
from rank_rl.generation.answers import Answers
from rank_rl.generation.background import Background
from rank_rl.generation.cost import foreseen
from rank_rl.models.counting import Rough
from rank_rl.records import Candidate, Completion, Prompt, Query, RankingTask

pytest.importorskip("openai")

COUNT = 25
ORDERS = {"name": "permutation", "mode": "answer", "doc_tokens": 24}
GRADES = {"name": "pointwise", "mode": "answer", "doc_tokens": 24}
SLIDING = {"name": "sliding", "params": {"window": 10, "step": 5}}
ALONE = {"name": "by_score", "params": {"size": 1}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-Zy8secretQ")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def task(number: int = 0, count: int = COUNT) -> RankingTask:
    """Document i is worth i mod 7 and says so."""
    return RankingTask(
        query=Query(qid=f"q{number}", text=f"which is worth most, {number}?"),
        candidates=tuple(
            Candidate(docid=f"d{i}", text=f"house {number} {i} worth {i % 7} gold", rank=i + 1)
            for i in range(count)
        ),
    )


def judge(messages: Any, sample: int = 0) -> str:
    """An order by worth of what is shown, or the grade of the one passage, at most 3."""
    text = messages[-1]["content"]
    shown = re.findall(r"\[(\d+)\] house \d+ \d+ worth (\d)", text)
    if not shown:
        (worth,) = re.findall(r"worth (\d)", text)
        return str(min(3, int(worth)))
    order = sorted(shown, key=lambda pair: -int(pair[1]))
    return " > ".join(f"[{label}]" for label, _ in order)


def reranker(server: Server, format: Any = ORDERS, **settings: Any) -> Reranker:
    settings = {"retries": 1, "max_new_tokens": 200, **settings}
    return Reranker.from_endpoint("tiny", base_url=server.url, format=format, **settings)


def by_worth(count: int = COUNT) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in sorted(range(count), key=lambda i: (-(i % 7), i)))


def test_windows_slide_over_many_candidates_of_several_queries_at_once():
    with Server(ServerSettings(answer=judge, delay=0.02)) as server:
        one = reranker(server, strategy=SLIDING, concurrency=4)
        tasks = [task(i) for i in range(8)]
        cost = foreseen(one, tasks)
        results = one.rank_tasks(tasks)
        counts = server.counts()
    assert [r.ranking.qid for r in results] == [f"q{i}" for i in range(8)]
    for result in results:
        assert sorted(result.ranking.docids) == sorted(task().docids)
        # Windows of ten bring up the best five; that is the promise of one pass.
        assert result.ranking.docids[:4] == ("d6", "d13", "d20", "d5")
        assert (result.calls, result.depth) == (4, 4)
        assert result.statuses == {"ok": 4, "repaired": 0, "failed": 0}
        assert result.seconds > 0
    assert counts["requests"] == counts["successes"] == cost.calls == 32
    assert counts["most_in_flight"] == 4  # over queries, as one query's windows wait
    # The server's own count of tokens, and a forecast that needs no tokenizer.
    assert sum(r.prompt_tokens for r in results) == sum(
        len(re.findall(r"\s*\S+|\s+$", m["content"])) for b in server.bodies for m in b["messages"]
    )
    assert all(r.completion_tokens == 4 * 19 for r in results)  # ten labels, nine signs
    assert cost.exact and cost.new_tokens == 32 * 200
    told = sum(r.prompt_tokens for r in results)
    assert told < cost.prompt_tokens < 2 * told


@pytest.mark.parametrize(
    ("format", "strategy"),
    [
        (ORDERS, {"name": "single"}),
        (ORDERS, {"name": "groups", "params": {"size": 5}}),
        ({**ORDERS, "name": "choice"}, {"name": "setwise", "params": {"children": 3, "top_k": 3}}),
        ({**ORDERS, "name": "pair"}, {"name": "pairs"}),
        (GRADES, ALONE),
    ],
    ids=lambda value: value["name"],
)
def test_every_kind_of_question_can_be_asked(format: Any, strategy: Any):
    def answer(messages: Any, sample: int = 0) -> str:
        if format["name"] == "choice":
            return judge(messages).split(" > ")[0]
        if format["name"] == "pair":
            return judge(messages)
        return judge(messages)

    with Server(ServerSettings(answer=answer)) as server:
        (result,) = reranker(server, format, strategy=strategy).rank_tasks([task(count=8)])
    assert result.statuses["failed"] == 0
    assert result.ranking.docids[0] in ("d3", "d6")  # a grade is at most 3
    assert sorted(result.ranking.docids) == sorted(task(count=8).docids)


def test_texts_are_ranked_and_explained_as_by_a_local_model():
    answer = lambda m, s: (  # noqa: E731
        "<think>\n[2] names him.\n[1] is a river.\n</think>\n<answer>[2] > [1]</answer>"
    )
    with Server(ServerSettings(answer=answer)) as server:
        results = reranker(server, {**ORDERS, "mode": "reason"}).rank("who?", ["a river", "he"])
    assert [(r.docid, r.rank, r.text) for r in results] == [("2", 1, "he"), ("1", 2, "a river")]
    assert results[0].reasoning == "[2] names him."


def test_thoughts_that_come_apart_are_the_reasoning():
    settings = ServerSettings(answer=lambda m, s: "<answer>[2] > [1]</answer>", reasoning="so [2]")
    with Server(settings) as server:
        results = reranker(server, {**ORDERS, "mode": "reason"}).rank("who?", ["a river", "he"])
    assert [r.docid for r in results] == ["2", "1"] and results[0].reasoning == "so [2]"


def test_garbage_is_counted_and_keeps_the_order():
    with Server(ServerSettings(answer=lambda m, s: "All of them are nice.")) as server:
        (result,) = reranker(server).rank_tasks([task()])
    assert result.ranking.docids == task().docids
    assert result.statuses == {"ok": 0, "repaired": 0, "failed": 1}
    assert result.completion_tokens == 5 and result.prompt_tokens > 0


def test_a_request_that_fails_is_one_failed_answer_and_the_others_go_on(caplog):
    refused = Fixed(status=400, body={"error": {"message": "too long for me"}})
    with Server(ServerSettings(answer=judge, script=("", refused))) as server:
        one = reranker(server, GRADES, strategy=ALONE, concurrency=1)
        (result,) = one.rank_tasks([task(count=4)])
    assert result.statuses == {"ok": 3, "repaired": 0, "failed": 1}
    failed = result.exchanges[1]
    assert failed.outcome.issues == ("no_answer",) and failed.completion.finish == "error"
    assert result.ranking.docids == ("d3", "d1", "d2", "d0")  # d1 keeps its place
    assert "too long for me" in caplog.text
    assert one.generator.failed == {"refused": 1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "another"}, "unauthorised: 401 wrong key.*set OPENAI_API_KEY to a key"),
        (
            {"script": (Fixed(status=404, body={"error": {"message": "no model `tiny`"}}),)},
            "no_model: 404 no model .*models lists what the server has; it was 'tiny'",
        ),
        ({"script": (Fixed(status=402, body={"error": "pay"}),)}, "no_credit"),
    ],
)
def test_what_no_request_can_survive_is_one_line(settings: Any, words: str):
    with Server(ServerSettings(**settings)) as server:
        with pytest.raises(BackendError, match=words) as caught:
            reranker(server, concurrency=1).rank_tasks([task()])
        assert server.url in caught.value.line() and "\n" not in caught.value.line()
        assert "sk-Zy8secretQ" not in caught.value.line()
        assert server.requests <= 1


def test_nobody_there_is_one_line_at_once():
    url = f"http://127.0.0.1:{free_port()}/v1"
    one = Reranker.from_endpoint("tiny", base_url=url, format=ORDERS, retries=0)
    with pytest.raises(BackendError, match="no answer: connection.*is base_url its address"):
        one.rank_tasks([task(i) for i in range(50)])


def test_a_server_that_only_fails_is_left_after_some_requests():
    with Server(ServerSettings(fault_rate=1.0, faults=("error_500",))) as server:
        one = reranker(server, GRADES, strategy=ALONE, retries=0, concurrency=2)
        with pytest.raises(BackendError, match="no answer to 20 requests in a row: server_error"):
            one.rank_tasks([task(i) for i in range(10)])
        assert 20 <= server.requests <= 22


def test_a_server_that_dies_and_comes_back_is_asked_nothing_twice(tmp_path):
    port, answers = free_port(), tmp_path / "answers" / "teacher.jsonl"
    tasks = [task(i) for i in range(4)]
    settings: Any = {"strategy": ALONE, "answers": answers, "concurrency": 2, "retries": 0}
    words = "no answer: connection.*answered before is kept"
    with Mortal(port, 30, judge) as first, pytest.raises(BackendError, match=words):
        reranker(first, GRADES, **settings).rank_tasks(tasks)
    assert sum(first.successes.values()) == 30
    kept = [json.loads(line)["key"] for line in answers.read_text().splitlines()]
    assert len(kept) == len(set(kept)) == 30
    with Mortal(port, 1000, judge) as second:
        results = reranker(second, GRADES, **settings).rank_tasks(tasks)
        counts = second.counts()
    assert counts["successes"] == counts["requests"] == 4 * COUNT - 30
    assert not first.successes.keys() & second.successes.keys()
    assert set((first.successes + second.successes).values()) == {1}
    assert all(r.statuses["ok"] == COUNT and r.calls == COUNT for r in results)
    # Nobody is there any more, and nobody is needed; costs are those of the first time.
    again = reranker(second, GRADES, **settings).rank_tasks(tasks)
    assert [r.ranking for r in again] == [r.ranking for r in results]
    assert [r.seconds for r in again] == [r.seconds for r in results]
    assert [r.prompt_tokens for r in again] == [r.prompt_tokens for r in results]


def test_only_another_question_is_asked(tmp_path):
    answers = tmp_path / "a.jsonl"
    with Server(ServerSettings(answer=judge)) as server:

        def requests(**settings: Any) -> int:
            before = server.requests
            reranker(server, answers=answers, **settings).rank_tasks([task(), task()])
            return server.requests - before

        assert requests() == 1  # the same query twice
        assert requests() == 0
        assert requests(concurrency=3, timeout=20.0) == 0  # how, not what
        assert requests(temperature=0.5) == 1
        assert requests(max_new_tokens=100) == 1
        assert requests(extra={"seed": 3}) == 1
        assert requests(format={**ORDERS, "doc_tokens": 5}) == 1
        one = reranker(server, answers=answers)
        with one.generator.asking_again():
            one.rank_tasks([task()])
        assert server.requests == 6
    assert Counter(server.successes.values()) == {1: 4, 2: 1}


def test_failed_answers_are_not_kept(tmp_path):
    answers = tmp_path / "a.jsonl"
    refused = Fixed(status=400, body={"error": {"message": "no"}})
    with Server(ServerSettings(answer=judge, script=(refused,))) as server:
        (first,) = reranker(server, answers=answers).rank_tasks([task()])
        (second,) = reranker(server, answers=answers).rank_tasks([task()])
    assert (first.statuses["failed"], second.statuses["failed"]) == (1, 0)


def test_a_file_of_answers_that_a_kill_cut_off_is_gone_on_with(tmp_path):
    path = tmp_path / "a.jsonl"
    kept = Answers(path)
    kept.add("one", Completion(text="é \ud800", prompt_tokens=3), model="served")
    kept.add("two", Completion(text="b", slots={"first": {"yes": -0.5}}))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"\n7\n" + whole[-20:-9])
    found = Answers(path)
    assert len(found) == 1 and found.get("two") is None and found.served == {"served"}
    assert found.get("one") == Completion(text="é ?", prompt_tokens=3)
    found.add("two", Completion(text="b", slots={"first": {"yes": -0.5}}))
    found.close()
    found.add("three", Completion(text="c", logprob=-1.0))
    assert [Answers(path).get(k) is not None for k in ("one", "two", "three")] == [True] * 3
    assert Answers(path).get("two").slots == {"first": {"yes": -0.5}}


def test_answers_that_cannot_be_kept_or_read_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with Server(ServerSettings(answer=judge)) as server:
        with pytest.raises(StorageError, match="cannot be written"):
            reranker(server, answers=tmp_path / "file" / "a.jsonl").rank_tasks([task()])
        with pytest.raises(DataError, match="cannot be read"):
            reranker(server, answers=tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": {"name": "slots"}}, "'slots' is read off a model's weights"),
        ({"format": {"name": "scores"}, "readout": "expected"}, "'expected' needs the model's"),
        ({"format": ORDERS, "readout": "score"}, "readout 'score' with format 'permutation'"),
        ({"format": ORDERS, "reasoning": "skip"}, "mode answer has no reasoning to skip"),
        (
            {"format": {**ORDERS, "mode": "reason"}, "reasoning": "skip"},
            "begins the answer.*continue_prefill: true",
        ),
        (
            {"format": {"name": "scores", "params": {"prefill": "{"}}},
            "begins the answer.*continue_prefill: true",
        ),
        (
            {"format": {"name": "pointwise", "params": {"max": 10}}, "readout": "score"},
            "labels 0, 1, 2, 3 … cannot be told by the first token",
        ),
        ({"format": ORDERS, "concurency": 3}, "unknown parameter 'concurency'.*nearest: concurr"),
        ({"format": ORDERS, "temperature": -1}, "temperature is out of range"),
        ({"format": ORDERS, "top_p": True}, "top_p is out of range"),
        ({"format": ORDERS, "max_new_tokens": 1.5}, "max_new_tokens is out of range"),
        ({"format": ORDERS, "base_url": "localhost"}, "base_url is not a URL"),
        ({"format": ORDERS, "sampling": None}, "unknown parameter 'sampling'"),
    ],
)
def test_what_a_server_cannot_be_asked_is_refused_before(settings: Any, words: str):
    known = {"base_url": "http://127.0.0.1:9/v1", **settings}
    with pytest.raises(RecipeError, match=words):
        Reranker.from_endpoint("tiny", **known)


def test_without_a_key_only_a_server_of_ones_own_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RecipeError, match="OPENAI_API_KEY is not set"):
        Reranker.from_endpoint("tiny", format=ORDERS)
    with Server(ServerSettings(answer=judge)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        one = Reranker.from_endpoint("tiny", format=ORDERS)
        assert one.rank_tasks([task()])[0].statuses["ok"] == 1
        assert server.with_key == 1  # a placeholder, as the client wants one


def test_a_prefill_is_continued_where_the_server_can():
    answer = lambda m, s: judge(m[:-1])  # noqa: E731
    skipped = {"format": {**ORDERS, "mode": "reason"}, "reasoning": "skip"}
    with Server(ServerSettings(answer=answer)) as server:
        one = reranker(server, continue_prefill=True, **skipped)
        (result,) = one.rank_tasks([task(count=5)])
    assert server.bodies[0]["messages"][-1]["content"] == "<think>\n\n</think>\n<answer>"
    assert server.bodies[0]["continue_final_message"] is True
    assert result.ranking.docids[:2] == ("d4", "d3")


# Labels read off log-probabilities


def told(**logprobs: float) -> Fixed:
    """A response whose first token is the likeliest of these, with all of them told."""
    best = max(logprobs, key=logprobs.__getitem__)
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    content = [{"token": best, "logprob": logprobs[best], "top_logprobs": top}]
    choice = {
        "message": {"role": "assistant", "content": best},
        "finish_reason": "length",
        "logprobs": {"content": content},
    }
    usage = {"prompt_tokens": 40, "completion_tokens": 1}
    return Fixed(body={"choices": [choice], "usage": usage})


YES = {"name": "pointwise", "wording": "yes_no", "params": {"labels": ["no", "yes"]}}


def test_the_score_is_the_log_odds_of_the_labels():
    script = (
        told(yes=-2.0, no=-0.2, maybe=-5.0),
        told(Yes=-1.0, yes=-1.0, no=-1.5),  # two spellings of one label
        told(yes=-0.1, perhaps=-3.0),  # no "no": as likely as the least that is told
        told(The=-0.1, yes=-3.0, no=-4.0),  # would write something else
    )
    with Server(ServerSettings(script=script)) as server:
        one = reranker(server, YES, strategy=ALONE, readout="score", concurrency=1)
        (result,) = one.rank_tasks([task(count=4)])
        bodies = list(server.bodies)
    assert [(b["max_tokens"], b["top_logprobs"], b["temperature"]) for b in bodies] == [
        (1, 20, 0.0)
    ] * 4
    assert result.ranking.docids == ("d2", "d1", "d3", "d0")
    expected = {
        "d0": -1.8,
        "d1": math.log(2 * math.exp(-1.0)) + 1.5,
        "d2": 2.9,
        "d3": 1.0,
    }
    scores = dict(zip(result.ranking.docids, result.ranking.scores, strict=True))
    # Centred weights: the log-odds.
    ratio = {d: scores[d] / expected[d] for d in expected}
    assert list(ratio.values()) == pytest.approx([ratio["d0"]] * 4)
    assert result.statuses == {"ok": 3, "repaired": 0, "failed": 1}
    assert result.exchanges[0].completion.slots == {"1": {"no": -0.2, "yes": -2.0}}
    assert result.prompt_tokens == 160 and foreseen(one, [task(count=4)]).new_tokens == 0


def test_a_server_without_log_probabilities_is_one_line():
    with Server(ServerSettings(answer=lambda m, s: "yes", logprobs=False)) as server:
        one = reranker(server, YES, strategy=ALONE, readout="score")
        with pytest.raises(BackendError, match="tells no log-probabilities.*use readout decoded"):
            one.rank_tasks([task(count=4)])


# Its parts


def test_a_rough_count_of_tokens_loses_no_text_and_knows_scripts():
    rough = Rough()
    for text in ("Who is the father?  1234", "東京は夜。", "Москва, où est-ce\n\nça ", ""):
        assert rough.decode(rough.encode(text)) == text
    assert len(rough.encode("the documents")) == 3
    assert len(rough.encode("東京は夜。")) == 5
    prompt = Prompt(messages=({"role": "user", "content": "two words"},), prefill="[")
    assert rough.count_prompt(prompt) == 2 + 1 + 8


def test_documents_are_cut_without_a_tokenizer():
    long = " ".join(["word"] * 100)
    with Server(ServerSettings(answer=lambda m, s: "[1]")) as server:
        one = reranker(server)
        one.rank("x", [long])
        shown = server.bodies[0]["messages"][-1]["content"]
    assert shown.count("word") == 24 and one.cuts.cut_documents == 1


def test_work_in_the_background_needs_no_loop_of_ones_own():
    background = Background()

    async def twice(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def inside_a_running_loop() -> int:
        return background.run(twice(21))  # as in a notebook

    assert background.run(twice(1)) == 2
    assert asyncio.run(inside_a_running_loop()) == 42

    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        background.run(fails())


def test_an_interrupt_ends_what_goes_on_in_the_background():
    ended = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # test workers ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            Background().run(endless())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.wait(10)


def test_a_server_that_counts_no_tokens_is_said_once(caplog):
    with Server(ServerSettings(answer=judge, usage=False)) as server:
        (result,) = reranker(server, GRADES, strategy=ALONE).rank_tasks([task(count=4)])
    assert caplog.text.count("does not say how many tokens it used") == 1
    assert (result.prompt_tokens, result.completion_tokens) == (0, 0)


def test_the_file_is_under_the_folder_it_is_asked_for(tmp_path: Path):
    with Server(ServerSettings(answer=judge)) as server:
        reranker(server, answers=str(tmp_path / "x" / "y.jsonl")).rank_tasks([task()])
    (line,) = (tmp_path / "x" / "y.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["model"] == "tiny" and record["text"].startswith("[7]")
    assert "sk-Zy8secretQ" not in line
