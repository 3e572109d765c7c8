"""``benchmarks/strategies.py`` at a tiny scale: costs, table, plot, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small_recipes import write_tasks

from rank_rl.errors import RecipeError
from rank_rl.specs import FormatSpec

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it imports its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("strategies_cost", FOLDER / "strategies.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "strategies_cost", module)
    spec.loader.exec_module(module)
    return module


def common(model: Path, folder: Path) -> list[str]:
    """Arguments of a run over two questions, two documents a prompt, written to ``folder``."""
    pytest.importorskip("matplotlib")
    write_tasks(folder / "tasks.jsonl", tests=3)
    arguments = ["--model", str(model), "--data", str(folder / "tasks.jsonl")]
    arguments += ["--queries", "2", "--size", "2"]
    for name in ("output", "results", "docs"):
        arguments += [f"--{name}", str(folder / name)]
    return arguments


def test_rows_are_measured_and_shown(
    benchmark: ModuleType, tiny_model_dir: Path, tmp_path: Path
) -> None:
    written = common(tiny_model_dir, tmp_path)
    arguments = [*written, "--max-new-tokens", "5", "--per-document", "2"]
    arguments += ["--format", "{name: permutation, doc_tokens: 16}"]
    arguments += ["--rows", "single", "sliding", "groups", "pairs, wins"]
    benchmark.main(arguments)

    result = json.loads((tmp_path / "results" / "strategies.json").read_text())
    assert result["queries"] == 2
    costs = {s["name"]: s["costs"] for s in result["systems"] if s["costs"]}
    # Four documents: windows of 2 moved by 1, groups of 2, each in two pairs.
    assert {name: cost["calls"] for name, cost in costs.items()} == {
        "single": 1, "sliding": 3, "sliding, 2 passes": 6, "groups": 2, "groups, 4 times": 8,
        "pairs, wins": 4,
    }  # fmt: skip
    assert {name: cost["depth"] for name, cost in costs.items()} == {
        "single": 1, "sliding": 3, "sliding, 2 passes": 6, "groups": 1, "groups, 4 times": 1,
        "pairs, wins": 1,
    }  # fmt: skip
    assert all(c["prompt_tokens"] > 0 and c["completion_tokens"] > 0 for c in costs.values())
    assert result["asked"]["sliding"]["strategy"]["params"] == {"window": 2, "step": 1}

    page = (tmp_path / "docs" / "strategies.md").read_text()
    for system in result["systems"]:
        assert f"| {system['name']} | " in page
        assert f"| {system['metrics']['ndcg@10']['mean']:.3f} (" in page
    drawn = (tmp_path / "docs" / "strategies.svg").read_text()
    assert drawn.count("<svg") == 1 and "</svg>" in drawn

    (tmp_path / "docs" / "strategies.md").unlink()
    benchmark.main(["--render", *written[-4:]])
    assert (tmp_path / "docs" / "strategies.md").read_text() == page

    other = {**result, "seed": 8}  # another checkpoint's result has a section of its own
    (tmp_path / "results" / "strategies_other.json").write_text(json.dumps(other))
    benchmark.main(["--render", *written[-4:]])
    both = (tmp_path / "docs" / "strategies.md").read_text()
    assert both.startswith(page) and both.count("seed 8,") == 1
    assert "](strategies_other.svg)" in both and (tmp_path / "docs/strategies_other.svg").is_file()


def test_a_name_gives_a_result_of_its_own(
    benchmark: ModuleType, tiny_model_dir: Path, tmp_path: Path
) -> None:
    arguments = ["--rows", "by_score", "--name", "slots"]
    arguments += ["--format", "{name: slots, doc_tokens: 16}"]
    benchmark.main([*common(tiny_model_dir, tmp_path), *arguments])
    assert [f.name for f in (tmp_path / "results").iterdir()] == ["strategies_slots.json"]
    page = (tmp_path / "docs" / "strategies.md").read_text()
    assert "\n## Format `slots/" in page and "](strategies_slots.svg)" in page


def test_what_is_not_there_stops_the_run(benchmark: ModuleType) -> None:
    fmt = FormatSpec(name="permutation")
    row = benchmark.Row(name="a", strategy="single")
    benchmark.check([row], fmt)
    unknown = benchmark.Row(name="b", strategy="no_such_strategy")
    unread = benchmark.Row(name="c", strategy="single", readout="guided")
    with pytest.raises(RecipeError) as caught:
        benchmark.check([row, unknown, unread], fmt)
    assert "row 'b'" in str(caught.value) and "row 'c'" in str(caught.value)
    assert "row 'a'" not in str(caught.value)


def test_names_of_rows(benchmark: ModuleType) -> None:
    names = [row.name for row in benchmark.rows(10, 8)]
    assert len(set(names)) == len(names) >= 19
    wanted = ("single", "sliding", "groups", "setwise", "elimination", "tournament", "pairs")
    made = {row.strategy for row in benchmark.rows(10, 8)}
    assert made == {*wanted, "by_score", "repeated", "refine"}
    with pytest.raises(SystemExit, match="no row 'nothing'"):
        benchmark.main(["--model", "m", "--data", "d", "--format", "scores", "--rows", "nothing"])
