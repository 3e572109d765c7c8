"""Two sides compared: who they are, paired numbers, and what changed most."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import made
import pytest

from rank_rl.bench import stats
from rank_rl.errors import DataError, RecipeError
from rank_rl.report.compare import compared
from rank_rl.report.compared import shown
from rank_rl.report.reading import sources

TEACHER = made.SYSTEMS[3].name


def test_differences_are_those_of_the_statistics(bench_dir: Path, read_result) -> None:
    (found,) = compared(sources([bench_dir]), "first stage", TEACHER)
    values = read_result(bench_dir)["per_query"]
    assert (found.first, found.second, found.queries, found.apart) == (
        "first stage", TEACHER, 12, 0
    )  # fmt: skip
    assert [m.metric for m in found.measured] == list(made.METRICS)
    for m in found.measured:
        one, other = values["first stage"][m.metric], values[TEACHER][m.metric]
        a, b = list(one.values()), [other[q] for q in one]
        expected = stats.difference(a, b, samples=200, seed=7)
        assert (m.difference, m.low, m.high) == (expected.mean, expected.low, expected.high)
        assert m.p == stats.randomisation_test(a, b, samples=200, seed=7)
        assert m.second - m.first == pytest.approx(m.difference)
        assert m.wins + m.ties + m.losses == 12
    gaps = sorted(values[TEACHER]["ndcg@10"][q] - v
                  for q, v in values["first stage"]["ndcg@10"].items())  # fmt: skip
    assert [c.second - c.first for c in found.gains] == gaps[::-1][:5]
    assert [c.second - c.first for c in found.falls] == [g for g in gaps if g < 0][:5]


def test_orders_have_texts_and_grades(bench_dir: Path) -> None:
    (found,) = compared(sources([bench_dir]), "first stage", "perfect order")
    change = found.gains[0]
    assert change.query.startswith("where does river")
    assert [d.grade for d in change.after][:4] == [2, 1, 0, None]
    assert change.before[0].text.startswith("Title 0 of") and len(change.before) == 8
    tables = shown(found, "compare-1")
    _, said, orders = tables.gained[0]
    assert said == f"{change.first:.3f} → 1.000 ({1 - change.first:+.3f})"
    assert orders.written()[0]["perfect order"].startswith("[grade 2] Title")
    assert tables.summary.written()[0]["difference"].startswith(
        f"{found.measured[0].difference:+.3f} ("
    )


def test_sides_are_systems_checkpoints_or_results(bench_dir: Path, tmp_path: Path) -> None:
    read = sources([bench_dir])
    again = Path(shutil.copytree(bench_dir, tmp_path / "again"))

    def names(first: str, second: str) -> list[tuple[str, str]]:
        return [(c.first, c.second) for c in compared(read, first, second)]

    assert names("out/slow/final", "random") == [("slow", "random")]
    both = [(f"{s.name} (bench)", f"{s.name} (again)") for s in made.SYSTEMS[2:5]]
    assert names(str(bench_dir), str(again)) == both
    assert names(f"{bench_dir}::slow", f"{again}::random") == [("slow (bench)", "random (again)")]
    assert names("slow", f"{again}::{TEACHER}") == [("slow (bench)", f"{TEACHER} (again)")]
    assert names("slow", str(again / "result.json")) == [("slow (bench)", "slow (again)")]
    with pytest.raises(RecipeError, match="no system 'slwo'; expected one of .*nearest: slow"):
        compared(read, "slwo", "random")
    with pytest.raises(RecipeError, match="no system 'nobody'"):
        compared(read, "slow", f"{again}::nobody")


def test_every_collection_that_has_both_is_compared(bench_dir: Path, other_dir: Path) -> None:
    read = sources([bench_dir, other_dir])
    found = compared(read, "first stage", TEACHER)
    assert [c.queries for c in found] == [12, 7]
    (only,) = compared(read, "first stage", "slow")
    assert only.queries == 12


def test_results_that_differ_are_warned_about_or_refused(
    bench_dir: Path, other_dir: Path, tmp_path: Path
) -> None:
    read = sources([bench_dir])
    with pytest.raises(DataError, match="share no query"):
        compared(read, "slow", f"{other_dir}::random")
    folder = Path(shutil.copytree(bench_dir, tmp_path / "less"))
    result = json.loads((folder / "result.json").read_text())
    result["collection"]["judgements"] = "others"
    for by_metric in result["per_query"].values():
        for values in by_metric.values():
            del values["made-3"]
    (folder / "result.json").write_text(json.dumps(result))
    (found,) = compared(read, "slow", f"{folder}::slow")
    assert (found.queries, found.apart) == (11, 1)
    assert found.warnings == (
        "The two results differ in their judgements: differences may come from that.",
    )
    assert found.gains == found.falls == ()


def test_old_results_are_compared_without_texts(old_dir: Path) -> None:
    (found,) = compared(sources([old_dir]), "first stage", TEACHER)
    change = found.gains[0]
    assert change.query.startswith("where does river")  # out of the exchanges
    assert change.before[0].text == "" and not change.before[0].judged
    row = shown(found, "c").gained[0][2].written()[0]
    assert row["first stage"] == change.before[0].docid
