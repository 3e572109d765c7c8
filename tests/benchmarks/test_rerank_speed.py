"""``benchmarks/rerank.py``: its arithmetic on literal inputs, and a whole run on the tiny model.

The run has rank_rl and a plain loop over transformers as processes of their own; nothing is said
about which of them is faster.
"""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = ("accounting", "tables", "workloads", "processes", "protocol", "prompts")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a part of the benchmark by name; its modules leave with the test."""
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("rerank", *PARTS):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in ("rerank", *PARTS):
            del sys.modules[name]


def shape(accounting: ModuleType, **changes: Any) -> Any:
    """Two matrices of 4 x 8 weights, a head of 4 x 10, one layer 4 wide."""
    sizes = {"linear": ((4, 8), (8, 4)), "head": (4, 10), "layers": 1, "width": 4}
    return accounting.Shape(**{**sizes, **changes})


def block(seconds: float, rankings: list[list[str]], **more: Any) -> dict[str, Any]:
    known = {"rows": [[1, 2, 3], [1, 2, 4]], "written": 2, "calls": 2, "computed": 6, "texts": []}
    return {"seconds": seconds, "rankings": rankings, **known, **more}


@pytest.mark.parametrize(
    ("rows", "tokens", "seen"),
    [
        ([], 0, 0),
        ([[7]], 1, 1),
        ([[1, 2, 3]], 3, 1 + 2 + 3),
        ([[1, 2, 3], [1, 2, 3]], 3, 6),  # asked twice, computed once
        ([[1, 2, 4], [5], [1, 2, 3]], 5, 1 + 2 + 3 + 3 + 1),
        ([[1, 2], [1, 2, 3]], 3, 6),
    ],
)
def test_what_prompts_begin_with_counts_once(
    bench: Any, rows: list[list[int]], tokens: int, seen: int
) -> None:
    assert bench("accounting").distinct(rows) == (tokens, seen)


def test_an_encoder_shares_nothing_but_equal_rows(bench: Any) -> None:
    rows = [[1, 2, 3], [1, 2], [1, 2, 3]]
    assert bench("accounting").separate(rows) == (5, 9 + 4)


def test_the_floor_counts_weights_attention_and_head(bench: Any) -> None:
    accounting = bench("accounting")
    rows = [[1, 2, 3], [1, 2, 4]]  # 4 tokens, which see 1 + 2 + 3 + 3 positions
    tokens, flops = accounting.floor_flops(shape(accounting), rows, 2)
    assert (tokens, flops) == (4, 2 * 64 * 4 + 4 * 1 * 4 * 9 + 2 * 40 * 2)
    tokens, flops = accounting.floor_flops(shape(accounting, shared=False), rows, 2)
    assert (tokens, flops) == (6, 2 * 64 * 6 + 4 * 1 * 4 * (9 + 9) + 2 * 40 * 2)


def test_ratios_are_medians_over_blocks_with_an_interval_that_holds_them(bench: Any) -> None:
    found = bench("accounting").ratio([1.0, 2.0, 1.0], [3.0, 4.0, 2.5])  # 3, 2, 2.5
    assert found == {"median": 2.5, "low": 2.0, "high": 3.0, "blocks": 3}
    again = bench("accounting").ratio([2.0, 2.0], [1.0, 1.0])
    assert (again["median"], again["low"], again["high"]) == (0.5, 0.5, 0.5)


def test_a_system_is_summed_over_its_blocks(bench: Any) -> None:
    accounting = bench("accounting")
    made = accounting.summary(
        [block(2.0, []), block(3.0, [])], queries=2, shape=shape(accounting), rate=816.0
    )
    assert made["queries_per_second"] == pytest.approx(4 / 5)
    assert made["tokens_per_second"] == pytest.approx(12 / 5)
    assert (made["calls_per_query"], made["tokens_per_query"]) == (1.0, 3.0)
    assert (made["computed_per_query"], made["distinct_per_query"]) == (3.0, 2.0)
    # Each block needs 816 operations: a second of the machine's five.
    assert made["share_of_floor"] == pytest.approx(2 / 5)
    assert made["floor_seconds_per_query"] == pytest.approx(2 / 4)


def test_rankings_and_answers_are_compared_one_by_one(bench: Any) -> None:
    accounting = bench("accounting")
    ours = [block(1.0, [["a", "b"], ["c", "d"]], texts=["x", "y"]), block(1.0, [["e", "f"]])]
    theirs = [block(1.0, [["a", "b"], ["d", "c"]], texts=["y", "z"]), block(1.0, [["e", "f"]])]
    assert accounting.agreement(ours, theirs) == {
        "same_rankings": 2,
        "same_first": 2,
        "rankings": 3,
        "same_texts": 1,
        "texts": 2,
    }
    theirs[1]["texts"] = ["more"]  # another number of answers: nothing to compare
    assert "texts" not in accounting.agreement(ours, theirs)


def test_a_run_writes_numbers_reasons_and_the_page(
    bench: Any, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rerank, tables = bench("rerank"), bench("tables")
    output, page = tmp_path / "speed.json", tmp_path / "speed.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    rerank.main([
        "--model", str(tiny_model_dir), "--strategies", "slots", "listwise", "--documents", "4",
        "--doc-tokens", "8", "--queries", "1", "--blocks", "2", "--threads", "1",
        "--output", str(output), "--docs", str(page),
        "--systems", "rank_rl", "transformers, batches", "vLLM",
    ])  # fmt: skip
    parts = {part["strategy"]: part for part in json.loads(output.read_text())["parts"]}
    assert list(parts) == ["slots", "listwise"]
    for part in parts.values():
        rows = {row["system"]: row for row in part["systems"]}
        assert "--venv vllm=FOLDER" in rows["vLLM"]["did_not_run"]
        assert "queries_per_second" not in rows["vLLM"]
        plain, ours = rows["transformers, batches of 8"], rows["rank_rl"]
        assert plain["fastest_peer"] and not ours["fastest_peer"]
        assert len(plain["seconds"]) == len(ours["seconds"]) == 2
        ratios = [b / a for a, b in zip(ours["seconds"], plain["seconds"], strict=True)]
        assert plain["ratios"]["rank_rl"]["median"] == pytest.approx(sum(ratios) / 2, rel=0.02)
        assert plain["agreement"]["rank_rl"]["same_rankings"] == 2
        assert 0 < plain["share_of_floor"] < 1 and part["gigaflops"] > 0
    slots = {row["system"]: row for row in parts["slots"]["systems"]}
    # What the documents of a query share is computed once by rank_rl, and again by the loop.
    assert slots["rank_rl"]["computed_per_query"] < slots["rank_rl"]["tokens_per_query"]
    plain = slots["transformers, batches of 8"]
    assert plain["computed_per_query"] >= plain["tokens_per_query"]
    assert plain["distinct_per_query"] == slots["rank_rl"]["distinct_per_query"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    assert "| rank_rl | " in text and "| vLLM | did not run |" in text


def test_a_worker_that_fails_is_told_by_what_it_said(bench: Any, tmp_path: Path) -> None:
    processes = bench("processes")
    log = tmp_path / "log"

    def started(script: str) -> Any:
        return closing(processes.Worker(script, sys.executable, threads=1, log=log, timeout=120))

    refused = pytest.raises(processes.WorkerError, match="absent.py")
    with started("absent.py") as worker, refused:
        worker.ask(do="open", system="x", settings={}, workload={})
    refused = pytest.raises(processes.WorkerError, match="^OSError: ")
    settings = {"folder": "no-such-folder", "size": 1, "dtype": "float32"}
    with started("worker_plain.py") as worker, refused:
        worker.ask(do="open", system="x", settings=settings, workload={})
    assert worker.process.returncode is not None
