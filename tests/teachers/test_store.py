"""The store of completions: keys, what it remembers, several processes, and kill -9."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import rank_rl
from rank_rl.errors import DataError, StorageError
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Completion, Prompt
from rank_rl.teachers.store import Asked, Failure, Store, key_of, served_by

ROOT = Path(rank_rl.__file__).parents[1]
PROMPT = Prompt(
    messages=({"role": "system", "content": "rank"}, {"role": "user", "content": "[1] a [2] b"}),
    prefill="<think>\n",
)
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=10, logprobs=1)
HALF_A_PAIR = "\ud83d"


def key(prompt: Prompt = PROMPT, sampling: Sampling = SAMPLING, **changed: object) -> str:
    parts = {"model": "m", "version": "v1", "sample": 0, "salt": "s", **changed}
    return key_of(prompt, sampling, **parts)  # type: ignore[arg-type]


def asked(*keys: str, question: str = "list", teacher: str = "main") -> Asked:
    return Asked(keys=keys, teacher=teacher, question=question, unit="q1")


def reply(*texts: str, model: str = "served", tokens: tuple[int, int] = (7, 3)) -> Reply:
    completions = tuple(Completion(text=t, completion_tokens=2, logprob=-1.5) for t in texts)
    return Reply(
        completions=completions, prompt_tokens=tokens[0], completion_tokens=tokens[1], model=model
    )


def answer(store: Store, one: Asked, brought: Reply) -> None:
    store.end(store.begin(one), one, brought, "")


def test_every_part_changes_the_key() -> None:
    user = {"role": "user", "content": "[1] a [2] b"}
    keys = [
        key(),
        key(replace(PROMPT, messages=(user,))),
        key(replace(PROMPT, messages=(PROMPT.messages[0], {**user, "content": "[1] b [2] a"}))),
        key(replace(PROMPT, messages=(PROMPT.messages[0], {**user, "role": "tool"}))),
        key(replace(PROMPT, messages=PROMPT.messages[::-1])),
        key(replace(PROMPT, prefill="")),
        key(sampling=replace(SAMPLING, temperature=0.6)),
        key(sampling=replace(SAMPLING, top_p=1.0)),
        key(sampling=replace(SAMPLING, max_tokens=11)),
        key(sampling=replace(SAMPLING, logprobs=0)),
        key(model="n"),
        key(version="v2"),
        key(sample=1),
        key(salt=""),
        key(salt="t"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 64 for k in keys)


def test_nothing_else_changes_the_key() -> None:
    turned = tuple(dict(reversed(list(m.items()))) for m in PROMPT.messages)
    assert key(replace(PROMPT, messages=turned)) == key()
    assert key(sampling=Sampling(**SAMPLING.as_dict())) == key()
    # A key is the same tomorrow, or everything would be paid for again.
    literal = key_of(
        Prompt(messages=({"role": "user", "content": "é"},)), Sampling(), model="m", version="v"
    )
    assert literal == "73db322a2b4d26b94795a3a3708af62d7c74e0b4e1fb8923c54f13ffb12b54f8"


def test_text_that_is_no_valid_unicode_has_a_key_too() -> None:
    odd = Prompt(messages=({"role": "user", "content": HALF_A_PAIR},))
    assert key(odd) != key()


def test_completions_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told = Completion(
        text="<think>\x00 {query} ' \"; DROP TABLE completions; --\n\u2028é🙂</answer>",
        reasoning="why",
        finish="length",
        prompt_tokens=5,
        completion_tokens=6,
        seconds=0.25,
        logprob=-2.5,
    )
    answer(store, asked("k1"), Reply(completions=(told,), prompt_tokens=5, completion_tokens=6))
    assert store.get("k1") == told
    assert "k1" in store
    assert "k2" not in store
    assert store.get("k2") is None
    store.close()
    again = Store(tmp_path)
    assert again.get("k1") == told


def test_an_answer_is_kept_once_and_never_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer(store, asked("k1"), reply("first"))
    answer(store, asked("k1"), reply("second"))
    found = store.get("k1")
    assert found is not None
    assert found.text == "first"
    assert store.totals()["main"]["states"] == {"ok": 2}


def test_a_reply_with_fewer_samples_leaves_the_others_open(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer(store, asked("k1", "k2", "k3"), reply("a", "b"))
    assert [k in store for k in ("k1", "k2", "k3")] == [True, True, False]


def test_attempts_are_counted_by_state_and_teacher(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer(store, asked("k1"), reply("a", tokens=(10, 4)))
    store.end(store.begin(asked("k2")), asked("k2"), None, "timeout")
    store.end(store.begin(asked("k2")), asked("k2"), None, "timeout")
    answer(store, asked("k2"), reply("b", tokens=(1, 2)))
    answer(store, asked("k3", teacher="other"), reply("c", tokens=(100, 0), model="m2"))
    store.begin(asked("k4"))  # a kill comes before the end of this one
    assert store.totals() == {
        "main": {"states": {"ok": 2, "timeout": 2, "open": 1}, "tokens_in": 11, "tokens_out": 6},
        "other": {"states": {"ok": 1}, "tokens_in": 100, "tokens_out": 0},
    }
    assert store.mean_tokens("list") == 2.0
    assert store.mean_tokens("nothing") is None
    assert served_by(store) == {"main": ["served"], "other": ["m2"]}


def test_failures_are_remembered_and_can_be_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.give_up(asked("k2", "k1"), CallError("refused", "no such thing"))
    known = [
        Failure(
            key=k, teacher="main", question="list", unit="q1", cause="refused",
            detail="no such thing",
        )
        for k in ("k1", "k2")
    ]  # fmt: skip
    assert store.failures() == known
    assert store.failed("k1")
    store.close()
    again = Store(tmp_path)
    assert again.failures() == known
    assert again.failed("k2")
    assert again.forget_failures() == 2
    assert again.failures() == []
    assert not again.failed("k1")
    assert again.forget_failures() == 0


def test_text_of_a_server_that_is_no_valid_unicode_is_stored_nevertheless(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.give_up(asked("k1"), CallError("refused", f"bad {HALF_A_PAIR} text"))
    assert store.failures()[0].detail == "bad ? text"
    odd = Completion(text=f"a{HALF_A_PAIR}", reasoning=HALF_A_PAIR)
    answer(store, asked("k2"), Reply(completions=(odd,), model=f"m{HALF_A_PAIR}"))
    found = store.get("k2")
    assert found is not None
    assert (found.text, found.reasoning) == ("a?", "?")
    assert served_by(store) == {"main": ["m?"]}


def test_files_of_other_processes_are_read_together(tmp_path: Path) -> None:
    first, second = Store(tmp_path, 0), Store(tmp_path, 1)
    answer(first, asked("k1"), reply("one"))
    answer(second, asked("k2"), reply("two", tokens=(20, 5)))
    second.give_up(asked("k3"), CallError("timeout"))
    assert sorted(p.name for p in tmp_path.glob("*.sqlite")) == ["rank-0.sqlite", "rank-1.sqlite"]
    assert "k2" not in first
    first.refresh()
    found = first.get("k2")
    assert found is not None
    assert found.text == "two"
    assert first.failed("k3")
    assert first.totals()["main"]["states"] == {"ok": 2}
    assert first.totals(own=True)["main"]["tokens_in"] == 7
    assert first.totals()["main"]["tokens_in"] == 27
    assert first.forget_failures() == 1
    second.refresh()
    assert not second.failed("k3")


def test_a_refresh_keeps_what_this_process_wrote(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer(store, asked("k1"), reply("one"))
    store.refresh()
    assert "k1" in store


def test_a_file_that_is_no_store_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "rank-0.sqlite").write_bytes(b"this is text, not a database\n" * 100)
    with pytest.raises(DataError, match=r"rank-0.sqlite: is not a store of completions") as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "rank-0.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    connection.close()
    with pytest.raises(DataError, match=r"store of version 99; expected version 1 or older"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be made"):
        Store(tmp_path / "file" / "store")


def test_a_full_disk_is_one_line_and_what_was_stored_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer(store, asked("k1"), reply("kept"))
    pages = store._own.execute("PRAGMA page_count").fetchone()[0]
    store._own.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"rank-0.sqlite: cannot be written: .*full"):
        answer(store, asked("k2"), reply("x" * 100_000))
    assert "k2" not in store
    store.close()
    again = Store(tmp_path)
    assert "k1" in again
    assert "k2" not in again


WRITER = """
import sys
from pathlib import Path
from rank_rl.generation.calls import Reply
from rank_rl.records import Completion
from rank_rl.teachers.store import Asked, Store

store = Store(Path(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
for i in range(int(sys.argv[4])):
    asked = Asked(keys=(f"{sys.argv[3]}-{i}",), teacher="main", question="list", unit=str(i))
    ticket = store.begin(asked)
    text = f"answer {i} " * 50
    store.end(ticket, asked, Reply(completions=(Completion(text=text),)), "")
    print(asked.keys[0], flush=True)
"""


def writer(folder: Path, rank: int, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(rank), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_acknowledged_completion_survives_kill_9(tmp_path: Path) -> None:
    told: list[str] = []
    draw = random.Random(11)
    for life in range(5):
        process = writer(tmp_path, 0, f"life{life}", 1_000_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.01, 0.15))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=20)
        # What readline has buffered is not in the rest, whose first line may so be cut.
        told += [line for line in rest.splitlines(keepends=True)[1:] if line.endswith("\n")]
    store = Store(tmp_path)
    lost = [line for line in told if line.strip() not in store]
    assert len(told) > 20
    assert lost == []
    states = store.totals()["main"]["states"]
    assert states["ok"] >= len(told)
    assert states.get("open", 0) <= 5


def test_many_processes_may_open_a_folder_at_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path, rank, f"rank{rank}", 20) for rank in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
    store = Store(tmp_path)
    assert all(f"rank{r}-{i}" in store for r in range(4) for i in range(20))
