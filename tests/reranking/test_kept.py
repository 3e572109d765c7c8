"""What is kept of a reranking: damaged lines, other settings, several processes, shares of work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rank_rl.bench.answered import COSTS, Answered
from rank_rl.errors import DataError, RecipeError
from rank_rl.reranking.kept import Kept, given_up
from rank_rl.reranking.settings import portion_of
from rank_rl.reranking.shares import Team, shared

SETTINGS: dict[str, Any] = {"strategy": "single", "portion": 2, "format": {"name": "slots"}}


def answer(qid: str, **known: Any) -> Answered:
    fields = {"docids": ("a", "b"), "scores": (2.0, 1.0), "traces": (f'{{"qid": "{qid}"}}', "{}")}
    cost = dict.fromkeys(COSTS, 1.0)
    return Answered(**{"qid": qid, "cost": cost, "statuses": {"ok": 1}, **fields, **known})


def opened(folder: Path, rank: int = 0, **changed: Any) -> Kept:
    kept = Kept(folder, {**SETTINGS, **changed}, rank=rank)
    kept.open()
    return kept


def test_a_line_that_was_cut_off_is_not_read_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    kept = opened(tmp_path / "kept")
    assert not kept.folder.exists()
    kept.add([answer("q1"), answer("q2")])
    assert kept.whole("q2") == answer("q2")
    kept.close()
    with kept.path.open("ab") as file:
        file.write(b'{"qid": "q3", "docids": ["a')
    again = opened(tmp_path / "kept")
    assert sorted(again.found) == ["q1", "q2"]
    again.add([answer("q4")])
    assert again.traces("q4") == answer("q4").traces
    again.close()
    assert list(opened(tmp_path / "kept").found) == ["q1", "q2", "q4"]
    assert len(kept.path.read_text().splitlines()) == 4


def test_answers_of_all_processes_count_for_any_number_of_them(tmp_path: Path) -> None:
    for rank in range(3):
        kept = Kept(tmp_path, SETTINGS, rank=rank)
        kept.add([answer(f"q{rank}")])
        kept.close()
    alone = opened(tmp_path)
    assert sorted(alone.found) == ["q0", "q1", "q2"]
    assert alone.whole("q2") == answer("q2")


def test_another_reranking_is_refused_by_name(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.add([answer("q1")])
    kept.close()
    with pytest.raises(RecipeError) as caught:
        opened(tmp_path, strategy="sliding")
    said = caught.value.line()
    assert "another strategy: 'single' there, 'sliding' now" in said
    assert "--overwrite starts anew" in said
    with pytest.raises(RecipeError, match="another format: name 'slots' there, 'scores' now"):
        opened(tmp_path, format={"name": "scores"})
    fresh = Kept(tmp_path, {**SETTINGS, "strategy": "sliding"})
    fresh.open(overwrite=True)
    assert not fresh.found and not tmp_path.exists()


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add([answer("q1")])
    with pytest.raises(DataError, match="another process is reranking into this folder"):
        opened(tmp_path)
    with pytest.raises(DataError, match="another process"):
        Kept(tmp_path, SETTINGS).add([answer("q2")])
    first.close()
    assert list(opened(tmp_path).found) == ["q1"]


def test_a_request_that_nobody_answered_is_replaced_when_it_is(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    failed = answer("q1", issues={"no_answer": 1}, docids=("b", "a"))
    kept.add([failed])
    assert given_up(kept.found["q1"].answer)
    kept.add([answer("q1"), answer("q1", docids=("b", "a"))])
    kept.close()
    assert opened(tmp_path).whole("q1") == answer("q1")


def test_a_file_of_something_else_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text(json.dumps([1]) + "\n")
    assert not opened(tmp_path).found
    (tmp_path / "part-0.jsonl").write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(RecipeError, match="another strategy"):
        opened(tmp_path)


def test_shares_are_about_as_long_and_all_of_the_work(tmp_path: Path) -> None:
    lengths = dict(enumerate([9, 1, 8, 2, 7, 3, 50, 4]))
    found = shared(lengths, 3)
    assert sorted(n for share in found for n in share) == list(range(8))
    assert [6] in found
    others = [sum(lengths[n] for n in share) for share in found if share != [6]]
    assert max(others) - min(others) <= 2
    assert shared(lengths, 1) == [list(range(8))]
    assert shared({3: 1}, 2) == [[3], []]


def test_portions_depend_on_queries_and_batch_alone() -> None:
    assert [portion_of(n, 32) for n in (1, 20, 100, 400, 512, 9000)] == [4, 4, 7, 25, 32, 32]
    assert portion_of(9000, 1) == 1


def test_a_launch_that_started_one_process_in_silence_is_refused() -> None:
    launcher = {"MASTER_ADDR": "localhost", "ACCELERATE_MIXED_PRECISION": "no"}
    with pytest.raises(RecipeError, match="several processes were asked for, one runs"):
        Team.current(launcher)
    team = Team.current({**launcher, "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"})
    assert team == Team(rank=3, world=4, local=1) and not team.main
    assert Team.current({}) == Team() and Team().main
    assert team.device("cuda:7") == "cuda:7" and Team().device("auto") == "auto"
    assert team.device("auto", {"ACCELERATE_USE_CPU": "true"}) == "cpu"
