"""Several processes that share the units of a run give what one process gives."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from openai_server import Server, ServerSettings
from teach_runs import KEY, LIST, POINT, content, endpoint, files, judged, loaded, recipe, task

from rank_rl.teachers.ledger import LimitReached
from rank_rl.teachers.run import Options, run
from rank_rl.teachers.shards import Shard
from rank_rl.teachers.store import Store
from rank_rl.teachers.units import Unit

pytest.importorskip("openai")

LEFT_OUT = {**POINT, "name": "rest", "documents": "left_out", "of": "list", "size": 2}
# Written by the command, with the recipe of the run and not with what came of it.
RECIPE = "recipe.resolved.yaml"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK_RL_TEST_KEY", KEY)


def units(*qids: str) -> list[Unit]:
    return [Unit(uid=f"{q}#{i}", task=task(2, qid=q)) for i, q in enumerate(qids)]


def test_every_unit_belongs_to_one_process() -> None:
    given = units("a", "b", "c", "d", "e")
    shares = [Shard(rank=r, world=3).of(given) for r in range(3)]
    assert [[u.task.query.qid for u in share] for share in shares] == [
        ["a", "d"],
        ["b", "e"],
        ["c"],
    ]
    assert Shard().of(given) == given


def test_draws_of_a_query_stay_together() -> None:
    given = units("a", "a", "b", "b", "c", "a")
    first, second = (Shard(rank=r, world=2).of(given) for r in range(2))
    assert [u.uid for u in first] == ["a#0", "a#1", "c#4", "a#5"]
    assert [u.uid for u in second] == ["b#2", "b#3"]


def test_the_place_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Shard.current() == Shard(rank=0, world=1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Shard.current() == Shard(rank=2, world=4)
    assert not Shard.current().main
    assert Shard(rank=1, world=4).share(10.0) == 2.5


def test_a_limit_counts_what_other_processes_sent_before(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(ServerSettings(answer=judged)) as server:
        section = {"teachers": {"main": endpoint(server.url)}, "questions": [LIST]}
        spec = recipe(tmp_path, tiny_model_dir, section)
        with pytest.raises(LimitReached):
            run(spec, {}, Options(max_requests=2))
        # As if a second process had left its own file here.
        store = tmp_path / "out" / "store"
        (store / "rank-0.sqlite").rename(store / "rank-1.sqlite")
        with pytest.raises(LimitReached, match="max_requests 4 is reached"):
            run(spec, {}, Options(max_requests=4))
        assert server.requests == 4
        run(spec, {})
        assert server.requests == 6


def test_what_another_process_left_out_is_an_error_and_can_be_finished(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shard, "wait", lambda self: None)  # there is nobody to wait for
    with Server(ServerSettings(answer=judged)) as server:
        section = {"teachers": {"main": endpoint(server.url)}, "questions": [LIST]}
        spec = recipe(tmp_path, tiny_model_dir, section)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(LimitReached, match="another process stopped: 3 of 6 units are compl"):
            run(spec, {})
        monkeypatch.setenv("RANK", "1")
        assert run(spec, {}) == {}
        monkeypatch.setenv("RANK", "0")
        assert run(spec, {})["units"] == "6 of 6 complete"
        assert server.requests == 6
    assert {p.name for p in (tmp_path / "out" / "store").glob("*.sqlite")} == {
        "rank-0.sqlite",
        "rank-1.sqlite",
    }


def in_processes(folder: Path, spec: dict[str, Any], count: int) -> str:
    """``rank-rl teach`` in so many processes with what a launcher tells them; what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path, said = folder / "recipe.yaml", folder / "said.txt"
    path.write_text(yaml.safe_dump(spec))
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    processes = [
        warm.command("teach", path, said=said, env={**told, "RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(count))
    ]
    for process in processes:
        process.join(150)
    assert [p.exitcode for p in processes] == [0] * count, said.read_text()
    return said.read_text()


def test_two_processes_give_what_one_gives(tiny_model_dir: Path, tmp_path: Path) -> None:
    label = {"name": "shortlist", "params": {"listed": "list", "judged": "rest", "size": 2}}
    out = tmp_path / "out"
    with Server(ServerSettings(answer=judged, key=KEY)) as server:
        section = {
            "teachers": {"main": endpoint(server.url)},
            "questions": [LIST, LEFT_OUT],
            "labels": label,
        }
        with pytest.raises(LimitReached):  # begun by one process, finished by two
            run(recipe(tmp_path, tiny_model_dir, section), {}, Options(max_requests=5))
        said = in_processes(tmp_path, content(tmp_path, tiny_model_dir, section), 2)
        assert server.requests == 6 * (1 + 2)
        assert said.count("lessons file") == 1
        shared = files(out)
        assert loaded(out / "ledger.json")["requests"] == 18
        assert loaded(out / "done.json")["stage"] == "teach"
        stores = [Store(out / "store", rank) for rank in range(2)]
        own = [store.totals(own=True)["main"]["states"]["ok"] for store in stores]
        assert sum(own) == 18
        assert 5 < own[0] < 18
        for store in stores:
            store.close()
        # One process alone, from the beginning.
        single = content(
            tmp_path, tiny_model_dir, section, run={"output_dir": str(tmp_path / "one")}
        )
        info = {"path": str(tmp_path / "recipe.yaml"), "hash": loaded(out / "done.json")["hash"]}
        run(type(recipe(tmp_path, tiny_model_dir, section)).model_validate(single), info)
    alone = files(tmp_path / "one")
    assert shared.keys() - alone.keys() == {RECIPE}
    assert alone["report.json"].decode() == shared["report.json"].decode()
    assert [name for name in alone if alone[name] != shared[name]] == []
