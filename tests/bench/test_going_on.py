"""A system that is stopped while it is asked goes on; seeds, collections and merged folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_recipes import content, write_tasks

from rank_rl.bench.merged import merge_folders
from rank_rl.bench.run import run
from rank_rl.errors import DataError, StorageError
from rank_rl.rerank import Reranker
from rank_rl.specs import RecipeSpec

SLOTS = {"name": "slots", "mode": "reason"}


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    write_tasks(tmp_path / "tasks.jsonl", tests=5)
    model = {"kind": "slots", "model": str(tiny_model_dir), "format": SLOTS}
    bench = {
        "metrics": ["ndcg@10"],
        "batch_size": 2,
        "samples": 200,
        "report": False,
        "baselines": ["first stage"],
        "systems": [
            {"name": "first stage", "kind": "first_stage"},
            {"name": "student", **model, "explain": 1, "max_new_tokens": 4},
        ],
    }
    found = content(tiny_model_dir, tmp_path / "tasks.jsonl", tmp_path / "out", {"bench": bench})
    return {**found, "format": SLOTS}


def bench(recipe: dict[str, Any]) -> dict[str, Any]:
    summary = run(RecipeSpec.model_validate(recipe), {})
    return json.loads(Path(summary["result"]).read_text(encoding="utf-8"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the queries that a reranker was asked about, in order; "stop" ends the run there."""
    ids: list[str] = []
    ranked = Reranker.rank_tasks

    def rank_tasks(self: Reranker, tasks: Any, **options: Any) -> Any:
        if "stop" in ids and len(ids) >= 3:
            raise KeyboardInterrupt
        ids.extend(task.query.qid for task in tasks)
        return ranked(self, tasks, **options)

    monkeypatch.setattr(Reranker, "rank_tasks", rank_tasks)
    return ids


def test_a_system_goes_on_where_it_was_stopped(recipe, asked, tmp_path):
    whole = {**recipe, "run": {**recipe["run"], "output_dir": str(tmp_path / "whole")}}
    expected = bench(whole)
    asked[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        bench(recipe)
    part = tmp_path / "out" / "systems" / "student.part.jsonl"
    assert len(asked) == 3 and len(part.read_text().splitlines()) == 2
    # A kill in the middle of a line costs that line only.
    with part.open("a", encoding="utf-8") as file:
        file.write('{"answers": [{"qid": "te')
    first, asked[:] = asked[1:], []
    result = bench(recipe)
    assert sorted([*first, *asked]) == sorted(expected["per_query"]["student"]["ndcg@10"])
    assert not part.exists()
    for key in ("per_query", "comparisons"):
        assert result[key] == expected[key]
    old, new = (r["systems"][1] for r in (expected, result))
    assert (new["statuses"], new["explanations"], new["cuts"]) == (
        old["statuses"],
        old["explanations"],
        old["cuts"],
    )
    traces = (tmp_path / "out" / "exchanges" / "student.jsonl").read_text().splitlines()
    assert len(traces) == 5 + 5
    asked.clear()
    bench(recipe)
    assert asked == []


def test_what_was_answered_under_other_settings_is_not_used(recipe, asked):
    asked[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        bench(recipe)
    asked.clear()
    recipe["bench"]["systems"][1]["max_new_tokens"] = 5
    bench(recipe)
    assert len(asked) == 5


def test_probes_are_asked_alone_and_once(recipe, asked):
    bench(recipe)
    asked.clear()
    recipe["bench"].update(latency=2, diagnosis={"position": 2, "shuffles": 2, "formatting": 1})
    result = bench(recipe)
    row = result["systems"][1]
    assert row["latency"]["mode"] == "one at a time" and row["latency"]["queries"] == 2
    assert row["diagnosis"]["position"]["queries"] == 2
    assert row["diagnosis"]["formatting"]["variants"]
    assert 0 < len(set(asked)) <= 3
    asked.clear()
    assert bench(recipe)["systems"][1]["latency"] == row["latency"]
    assert asked == []


def test_seeds_measure_what_draws_and_nothing_else(recipe, tiny_model_dir, tmp_path):
    base = recipe["bench"]["systems"][1]
    groups = {"name": "groups", "params": {"size": 2}}
    for seed in (1, 2):
        (tmp_path / f"model_{seed}").symlink_to(tiny_model_dir)
    recipe["bench"]["seeds"] = [1, 2]
    recipe["bench"]["systems"] += [
        {**base, "name": "random groups", "strategy": groups, "explain": 0},
        {**base, "name": "a run each", "model": str(tmp_path / "model_{seed}"), "explain": 0},
    ]
    result = bench(recipe)
    rows = {row["name"]: row for row in result["systems"]}
    assert {name: list(row["seeds"]) for name, row in rows.items()} == {
        "first stage": ["3"],
        "student": ["3"],
        "random groups": ["1", "2"],
        "a run each": ["1", "2"],
    }
    assert rows["student"]["spread"]["ndcg@10"] is None
    assert rows["a run each"]["spread"]["ndcg@10"] == 0  # the same weights
    names = sorted(p.name for p in (tmp_path / "out" / "documents").iterdir())
    assert names == [
        "a_run_each.seed1.json",
        "a_run_each.seed2.json",
        "first_stage.json",
        "random_groups.seed1.json",
        "random_groups.seed2.json",
        "student.json",
    ]
    assert (tmp_path / "out" / rows["random groups"]["run"]).is_file()


def test_collections_have_folders_and_averages(recipe, tmp_path):
    write_tasks(tmp_path / "other.jsonl", tests=3)
    recipe["bench"]["collections"] = [
        {"name": "one", **recipe["data"]},
        {"name": "two", **recipe["data"], "path": str(tmp_path / "other.jsonl")},
    ]
    summary = run(RecipeSpec.model_validate(recipe), {})
    index = json.loads(Path(summary["results"]).read_text())
    assert index["collections"] == {"one": "one/result.json", "two": "two/result.json"}
    files = index["collections"].values()
    results = [json.loads((tmp_path / "out" / file).read_text()) for file in files]
    assert [r["queries"] for r in results] == [5, 3]
    means = [{s["name"]: s["metrics"]["ndcg@10"]["mean"] for s in r["systems"]} for r in results]
    (first, student) = summary["table"]
    assert student["system"] == "student"
    assert student["ndcg@10"] == pytest.approx((means[0]["student"] + means[1]["student"]) / 2)


def test_benches_that_were_run_apart_are_merged(recipe, tmp_path):
    systems = recipe["bench"]["systems"]
    for name, rows in (("a", systems[:1]), ("b", systems)):
        recipe["run"]["output_dir"] = str(tmp_path / name)
        recipe["bench"].update(systems=rows, baselines=[] if name == "a" else ["first stage"])
        bench(recipe)
    folders = [tmp_path / "b", tmp_path / "a"]
    result = merge_folders(folders, tmp_path / "c", teacher="student")
    whole = json.loads((tmp_path / "b" / "result.json").read_text())
    assert result["per_query"] == whole["per_query"]
    assert result["comparisons"] == whole["comparisons"]
    assert result["systems"][0]["kept"]["ndcg@10"]["share"] > 0
    assert len(result["merged"]) == 2
    assert (tmp_path / "c" / result["systems"][1]["exchanges"]).is_file()
    with pytest.raises(StorageError, match="is not empty"):
        merge_folders(folders, tmp_path / "c")
    write_tasks(tmp_path / "tasks.jsonl", tests=4)
    recipe["run"]["output_dir"] = str(tmp_path / "d")
    bench(recipe)
    with pytest.raises(DataError, match=r"collection queries is 4 .* and 5"):
        merge_folders([tmp_path / "b", tmp_path / "d"], tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_test_queries_that_were_trained_on_can_be_left_out(recipe, tmp_path):
    lines = (tmp_path / "tasks.jsonl").read_text().splitlines()
    leaked = json.loads(next(line for line in lines if '"qid": "test1"' in line))
    (tmp_path / "more.jsonl").write_text(json.dumps({**leaked, "qid": "x", "split": "train"}))
    recipe["bench"]["leaks"] = {"against": [str(tmp_path / "more.jsonl")]}
    result = bench(recipe)
    assert list(result["leaks"]["overlapping"]) == ["test1"] and result["queries"] == 5
    recipe["bench"]["leaks"]["action"] = "filter"
    result = bench(recipe)
    assert result["queries"] == 4 and result["collection"]["left_out"] == ["test1"]
    assert "test1" not in result["per_query"]["student"]["ndcg@10"]
