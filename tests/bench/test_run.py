"""The whole benchmark on a tiny model: rows, files, statistics, and nothing computed twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rank_rl.bench import tables
from rank_rl.bench.run import run
from rank_rl.data import trec
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, Query, Ranking, RankingTask
from rank_rl.specs import RecipeSpec

INFO = {"hash": "abc123", "path": "recipes/x/bench.yaml", "versions": {"python": "3"}, "git": None}


def tasks(split: str, n: int = 6) -> list[RankingTask]:
    """Query i has its relevant document at first-stage rank 3."""
    words = ["river", "lake", "town", "film", "father"]
    return [
        RankingTask(
            query=Query(qid=f"{split}{i}", text=f"who is the father {split} {i}?"),
            candidates=tuple(
                Candidate(docid=f"{split}{i}-{j}", text=f"the {w} {i}", rank=j + 1)
                for j, w in enumerate(words)
            ),
            grades={f"{split}{i}-2": 1} if i else {},
        )
        for i in range(n)
    ]


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "test"):
        write_tasks(tmp_path / f"{split}.jsonl", tasks(split))
    given = [Ranking(qid=t.query.qid, docids=t.docids[::-1]) for t in tasks("test")[:3]]
    trec.write_run(tmp_path / "given.trec", given, "given")
    model = str(tiny_model_dir)
    files = {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "test")}
    return {
        "run": {"name": "tiny", "output_dir": str(tmp_path / "out"), "seed": 3},
        "model": {"name": model, "autocast": "off"},
        "data": {"source": "jsonl", "params": files, "validation": 0.0},
        "format": {"name": "permutation", "mode": "answer"},
        "bench": {
            "metrics": ["ndcg@10", "map"],
            "systems": [
                {"name": "random", "kind": "random"},
                {"name": "first stage", "kind": "first_stage"},
                {"name": "given", "kind": "run", "path": str(tmp_path / "given.trec")},
                {"name": "base", "kind": "text", "model": model, "max_new_tokens": 5},
                {
                    "name": "slots",
                    "kind": "slots",
                    "model": model,
                    "format": {"name": "slots", "mode": "reason"},
                    "explain": 1,
                    "max_new_tokens": 5,
                },
                {"name": "perfect", "kind": "perfect"},
            ],
            "baselines": ["first stage"],
            "steps": [["base", "slots"]],
            "samples": 500,
        },
    }


def bench(recipe: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    summary = run(RecipeSpec.model_validate(recipe), INFO)
    return summary, json.loads(Path(summary["result"]).read_text())


def test_rows_files_and_statistics(recipe):
    summary, result = bench(recipe)
    out = Path(recipe["run"]["output_dir"])
    rows = {s["name"]: s for s in result["systems"]}
    mean = {name: row["metrics"]["ndcg@10"]["mean"] for name, row in rows.items()}
    assert (result["queries"], result["queries_without_relevant"]) == (5, 1)
    assert mean["perfect"] == 1.0 and mean["first stage"] == pytest.approx(0.5)
    assert mean["base"] == pytest.approx(0.5)  # an unreadable answer keeps first-stage order …
    assert rows["base"]["failure_rate"] == 1.0  # … and is counted
    # Two of the run's three queries count; the relevant document stays third when reversed.
    assert mean["given"] == pytest.approx(2 * 0.5 / 5) and rows["given"]["missing_queries"] == 3
    expected = sum(1 / d for d in (1, 1.585, 2, 2.3219, 2.585)) / 5
    assert mean["random"] == pytest.approx(expected, abs=0.1)
    assert rows["slots"]["explanations"]["written"] == 6
    assert sum(rows["slots"]["statuses"].values()) == 6 * 5
    assert rows["slots"]["costs"]["completion_tokens"] > 0 == len(rows["perfect"]["costs"])
    assert rows["slots"]["setting"]["format"].startswith("slots/")
    per_query = result["per_query"]["slots"]["ndcg@10"]
    assert sum(per_query.values()) / 5 == pytest.approx(mean["slots"])

    found = {(c["system"], c["metric"]): c for c in result["comparisons"]}
    assert len(found) == 5 * 2
    assert found["perfect", "ndcg@10"]["difference"] == pytest.approx(0.5)
    assert found["base", "ndcg@10"]["p"] == 1.0
    assert all(c["p_holm"] >= c["p"] for c in found.values())
    (step, _) = result["steps"]
    assert step["difference"] == pytest.approx(mean["slots"] - mean["base"])

    written = trec.read_run(out / "runs" / "slots.trec")
    assert len(written) == 6
    assert all(a[1] > b[1] for r in written.values() for a, b in zip(r, r[1:], strict=False))
    traces = [json.loads(t) for t in (out / "exchanges" / "slots.jsonl").read_text().splitlines()]
    assert len(traces) == 6 + 6 and sum("explains" in t for t in traces) == 6
    base = json.loads((out / "exchanges" / "base.jsonl").read_text().splitlines()[0])
    assert base["outcome"]["status"] == "failed" and base["prompt"]["messages"]
    assert [row["system"] for row in summary["table"]] == list(rows)
    json.dumps(summary)


def test_a_stopped_bench_goes_on_and_changes_are_computed_again(recipe, tiny_model_dir, tmp_path):
    model = str(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    for system in recipe["bench"]["systems"]:
        if "model" in system:
            system["model"] = model
    _, first = bench(recipe)
    records = Path(recipe["run"]["output_dir"]) / "systems"

    def times() -> dict[str, int]:
        return {p.stem: p.stat().st_mtime_ns for p in sorted(records.iterdir())}

    before = times()
    (records / "slots.json").unlink()
    _, second = bench(recipe)
    again = times()
    assert [n for n in before if before[n] != again[n]] == ["slots"]
    assert second["per_query"] == first["per_query"]

    recipe["bench"]["systems"][3]["max_new_tokens"] = 4
    bench(recipe)
    third = times()
    assert [n for n in again if again[n] != third[n]] == ["base"]

    from safetensors.torch import load_file, save_file

    weights = load_file(f"{model}/model.safetensors")
    trained = {name: 1.01 * tensor for name, tensor in weights.items()}
    save_file(trained, f"{model}/model.safetensors", metadata={"format": "pt"})
    bench(recipe)
    assert [n for n in third if third[n] != times()[n]] == ["base", "slots"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"systems": []}, "no systems"),
        ({"baselines": ["first_stage"]}, "nearest: first stage"),
        ({"steps": [["base", "slot"]]}, "no system 'slot'.*nearest: slots"),
        ({"metrics": []}, "no metrics"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(recipe, change, words):
    recipe["bench"].update(change)
    with pytest.raises(RecipeError, match=words):
        bench(recipe)
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_names_kinds_and_formats_must_fit(recipe):
    systems = recipe["bench"]["systems"]
    recipe["bench"]["systems"] = [systems[0], systems[0]]
    recipe["bench"].update(baselines=[], steps=[])
    with pytest.raises(RecipeError, match="share a name"):
        bench(recipe)
    recipe["bench"]["systems"] = [{**systems[3], "explain": 2}]
    with pytest.raises(RecipeError, match="cannot explain"):
        bench(recipe)
    recipe["bench"]["systems"] = [{k: v for k, v in systems[4].items() if k != "format"}]
    with pytest.raises(RecipeError, match="no format for kind slots"):
        bench(recipe)
    recipe["bench"] = None
    with pytest.raises(RecipeError, match="no systems"):
        bench(recipe)


def test_only_the_first_process_works(recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run(RecipeSpec.model_validate(recipe), INFO) == {}
    assert not Path(recipe["run"]["output_dir"]).exists()


def test_the_readme_table_comes_from_the_result(recipe, tmp_path):
    recipe["bench"]["systems"] = [
        s for s in recipe["bench"]["systems"] if s["kind"] in ("first_stage", "perfect")
    ]
    recipe["bench"].update(steps=[["first stage", "perfect"]])
    summary, _ = bench(recipe)
    source = Path(summary["result"]).relative_to(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n<!-- table:{source} -->\nold\n<!-- /table -->\nafter\n")
    assert tables.main([str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("<!-- /table -->\nafter\n")
    assert "old" not in text
    assert "| perfect | 1.000 | 1.000 to 1.000 |" in text
    assert "| tokens in |" not in text  # no system asked a model
    assert "first stage → perfect: ndcg@10 +0.500 (+0.500 to +0.500, p " in text
    assert "5 test queries" in text and "`recipes/x/bench.yaml` (abc123)" in text
    tables.regenerate(readme)
    assert readme.read_text() == text


def test_a_readme_that_names_no_result_is_one_line(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:gone.json -->\n<!-- /table -->\n")
    assert tables.main([str(readme)]) == 2
    assert "gone.json: no such file" in capsys.readouterr().err
    (tmp_path / "gone.json").write_text("[]")
    assert tables.main([str(readme)]) == 2
    assert "not a benchmark result" in capsys.readouterr().err
