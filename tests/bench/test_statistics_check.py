"""The statistics in short simulations by ``benchmarks/statistics_check.py``, and its tables.

Requirements: of 1,000 null comparisons no more are significant at 5 % than the 95 % error bound of
a binomial of so many allows (6.1 %), 95 % intervals hold the truth in 93 to 97 % of 1,000 runs, and
the smallest detectable difference is found in 75 to 85 %. Seeds are fixed, so that a run is the
same anywhere; the long run, in results/statistics.json, has every population and size.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
BANK = "entailmentbank_groupwise"
PAIR = ("first stage", "label slots")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it imports its neighbour."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(
        "statistics_check", FOLDER / "statistics_check.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "statistics_check", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def effort(check: ModuleType):
    return check.Effort(runs=1000, resamples=300, seed=1)


def bound(runs: int = 1000) -> float:
    """What a true rate of 5 % stays below with 95 % in so many runs."""
    return 0.05 + 1.645 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize(("metric", "n"), [("ndcg@10", 15), ("mrr@10", 40)])
def test_false_positives_of_the_tests(check: ModuleType, effort, metric: str, n: int):
    found = check.false_positives(BANK, PAIR, metric, n, effort)
    assert found["ties"] > 0.04
    assert 0.02 < found["randomisation"] <= bound()
    assert 0.02 < found["t"] <= bound()
    assert found["interval"] <= bound()


def test_false_positives_of_families(check: ModuleType, effort):
    found = check.families(BANK, "ndcg@10", 30, effort)
    assert found["comparisons"] == 3
    assert found["randomisation_holm"] <= bound() and found["t_holm"] <= bound()
    assert found["randomisation"] > 0.08  # what the correction is for


@pytest.mark.parametrize(
    ("name", "n"),
    [
        (f"{BANK}, first stage, ndcg@10", 15),
        (f"{BANK}, label slots - first stage, mrr@10", 30),
        ("made up, ndcg, 40% zeros", 30),
        ("made up, mrr, 50% zeros", 60),
    ],
)
def test_coverage(check: ModuleType, effort, name: str, n: int):
    kind, values = check.populations()[name]
    found = check.coverage(name, kind, values, n, effort)
    assert 0.93 <= found["bootstrap"] <= 0.97
    assert found["percentile"] < found["bootstrap"]


def test_the_smallest_difference_is_found_in_four_of_five(check: ModuleType, effort):
    found = check.detected(BANK, PAIR, "ndcg@10", 30, effort)
    assert 0.75 <= found["randomisation"] <= 0.85 and 0.75 <= found["t"] <= 0.85
    assert found["estimated"] == pytest.approx(found["difference"], rel=0.1)
    planned = check.planned(BANK, PAIR, "mrr@10", effort)
    assert planned and 0.75 <= planned["randomisation"] <= 0.85


def test_coverage_over_seeds(check: ModuleType):
    few = check.Effort(runs=1000, resamples=150, seed=1)
    found = check.seeded("ndcg@10", 0.25, 5, 60, few)
    assert 0.93 <= found["seeds_interval"] <= 0.97
    assert 0.93 <= found["to_baseline"] <= 0.97
    assert found["queries_only"] < 0.9  # one seed's luck is not in an interval over queries
    assert found["measured_spread"] == pytest.approx(found["true_spread"], rel=0.3)


def test_a_run_writes_results_and_tables(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = np.array([0.0, 0.1, 0.2, 0.4, 0.5, 0.8, 1.0])
    few = check.Effort(runs=4, resamples=50)
    todo = [
        ("coverage", check.coverage, ("a", "values", values, 5, few)),
        ("coverage", check.coverage, ("b", "differences", values - 0.3, 5, few)),
        ("false_positives", check.false_positives, (BANK, PAIR, "mrr@10", 5, few)),
        ("families", check.families, (BANK, "mrr@10", 5, few)),
        ("power", check.detected, (BANK, PAIR, "mrr@10", 5, few)),
        ("planned", check.planned, (BANK, PAIR, "mrr@10", few)),
        ("planned", check.planned, (BANK, ("+ sft", "+ sft"), "mrr@10", few)),
        ("seeds", check.seeded, ("mrr@10", 0.1, 2, 5, few)),
    ]
    monkeypatch.setattr(check, "jobs", lambda effort: todo)
    result = check.simulate(few, 1)
    assert [len(result[s]) for s in ("coverage", "planned", "seeds")] == [2, 1, 1]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{check.BEGIN}\nold\n{check.END}\nafter\n")
    check.render(json.loads(json.dumps(result)), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "4 simulations a row" in text and "| 5 | 1 of values | `bootstrap` |" in text


def test_the_page_has_the_numbers_of_the_result(check: ModuleType, tmp_path: Path):
    page = ROOT / "docs" / "statistics.md"
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    content = (ROOT / "results" / "statistics.json").read_text(encoding="utf-8")
    check.render(json.loads(content), copy)
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
