"""Rows that join a system with the first stage: apart, compared, and asked nothing again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rank_rl.bench.run import run
from rank_rl.data import trec
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.specs import RecipeSpec

WORDS = ["river", "lake", "town", "film", "father"]


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    tasks = [
        RankingTask(
            query=Query(qid=f"q{i}", text=f"who is the father {i}?"),
            candidates=tuple(
                Candidate(docid=f"{i}-{j}", text=f"the {w} {i}", rank=j + 1, score=9.0 - j)
                for j, w in enumerate(WORDS)
            ),
            grades={f"{i}-2": 1},
        )
        for i in range(3)
    ]
    write_tasks(tmp_path / "test.jsonl", tasks)
    grades = {"name": "pointwise", "mode": "answer"}
    return {
        "run": {"name": "tiny", "output_dir": str(tmp_path / "out")},
        "model": {"name": str(tiny_model_dir), "autocast": "off"},
        "data": {
            "source": "jsonl",
            "params": {"test": str(tmp_path / "test.jsonl")},
            "train_split": "",
            "validation": 0.0,
            "first_stage": {"name": "given"},
        },
        "format": grades,
        "bench": {
            "metrics": ["ndcg@10"],
            "systems": [
                {"name": "first stage", "kind": "first_stage"},
                {
                    "name": "grades",
                    "kind": "text",
                    "model": str(tiny_model_dir),
                    "strategy": {"name": "by_score", "params": {"size": 1}},
                    "readout": "score",
                    "fusion": {"method": "min_max", "weight": 0.0},
                },
            ],
            "baselines": ["first stage"],
            "steps": [["grades", "grades + first stage (min_max)"]],
            "samples": 200,
        },
    }


def bench(recipe: dict[str, Any]) -> dict[str, Any]:
    summary = run(RecipeSpec.model_validate(recipe), {})
    return json.loads(Path(summary["result"]).read_text())


def test_a_fused_row_stands_beside_its_system(recipe, caplog):
    caplog.set_level("INFO", logger="rank_rl")
    result = bench(recipe)
    first, own, fused = result["systems"]
    assert [s["name"] for s in result["systems"]] == [
        "first stage", "grades", "grades + first stage (min_max)",
    ]  # fmt: skip
    assert own["fusion"] is None and fused["fusion"] == {"method": "min_max", "weight": 0.0}
    assert own["costs"] == fused["costs"] and own["costs"]["calls"] == 5
    assert own["exchanges"] == fused["exchanges"] and own["run"] != fused["run"]
    assert own["setting"]["readout"] == "score"
    # A weight of 0 is the first stage, which the system by itself is not.
    assert fused["metrics"] == first["metrics"] != own["metrics"]
    compared = {(c["baseline"], c["system"]) for c in result["comparisons"]}
    assert compared == {("first stage", "grades"), ("first stage", fused["name"])}
    (step,) = result["steps"]
    assert step["to"] == fused["name"]
    out = Path(recipe["run"]["output_dir"])
    runs = [trec.read_run(out / s["run"]) for s in (first, own, fused)]
    assert runs[0]["q1"] == runs[2]["q1"] != runs[1]["q1"]
    said = [m for m in caplog.messages if m.startswith("grades: 3 queries")]
    assert len(said) == 2 and "15 calls showing 15 documents, depth 1, about " in said[0]
    assert "took 15 calls, depth 1, " in said[1]
    expected = int(said[0].split("about ")[1].split()[0].replace(",", ""))
    assert expected == pytest.approx(3 * own["costs"]["prompt_tokens"], rel=0.05)


def test_another_fusion_asks_nothing_again(recipe):
    bench(recipe)
    record = Path(recipe["run"]["output_dir"]) / "systems" / "grades.json"
    before = record.stat().st_mtime_ns
    recipe["bench"]["systems"][1]["fusion"] = {"method": "rrf"}
    recipe["bench"]["steps"] = []
    result = bench(recipe)
    assert record.stat().st_mtime_ns == before
    assert result["systems"][2]["name"] == "grades + first stage (rrf)"


def test_what_cannot_be_joined_or_skipped_is_refused(recipe):
    systems = recipe["bench"]["systems"]
    for key, value in (("fusion", {"method": "rrf"}), ("reasoning", "skip")):
        recipe["bench"]["systems"] = [{**systems[0], key: value}]
        with pytest.raises(ValidationError, match=f"of kind first_stage has no {key}"):
            RecipeSpec.model_validate(recipe)
    recipe["bench"].update(systems=[{**systems[1], "reasoning": "skip"}], baselines=[], steps=[])
    with pytest.raises(RecipeError, match=r"'grades': reasoning: .*no reasoning to skip"):
        bench(recipe)
    twice = {"name": "grades + first stage (min_max)", "kind": "perfect"}
    recipe["bench"]["systems"] = [systems[1], twice]
    with pytest.raises(RecipeError, match="two systems share a name"):
        bench(recipe)


def test_reasoning_skipped_is_a_setting_of_its_own(recipe):
    system = recipe["bench"]["systems"][1]
    del system["fusion"]
    system |= {"format": {"name": "pointwise", "mode": "reason"}, "reasoning": "skip"}
    recipe["bench"].update(systems=[system], baselines=[], steps=[])
    (row,) = bench(recipe)["systems"]
    assert row["setting"]["reasoning"] == "skip" and row["setting"]["mode"] == "reason"
    assert row["costs"]["completion_tokens"] == 0 and row["explanations"] == {}
    decoded = {**system, "readout": "decoded", "max_new_tokens": 12}
    recipe["bench"]["systems"] = [decoded]
    (row,) = bench(recipe)["systems"]
    assert row["costs"]["completion_tokens"] > 0 and row["explanations"] == {}
