"""Leaderboards, steps and means: every number is the result's, in page, Markdown and LaTeX."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import made
import pytest

from rank_rl.report import latex, leaderboard, listing, pareto, shown
from rank_rl.report.diagnosis import counted, parts
from rank_rl.report.differences import sensitivity, steps
from rank_rl.report.finding import finding
from rank_rl.report.macro import macro
from rank_rl.report.pareto import Priced, frontier
from rank_rl.report.reading import sources

TEACHER = made.SYSTEMS[3].name


def test_numbers_as_people_read_them() -> None:
    assert shown.score(0.57949) == "0.579" and shown.score(-0.0) == "0.000"
    assert shown.signed(-0.0004) == "+0.000" and shown.signed(-0.0006) == "-0.001"
    assert shown.probability(0.0009) == "< 0.001" and shown.probability(0.04) == "0.040"
    assert [shown.amount(v) for v in (0, 0.00123, 0.0456, 1.234, 12.34, 1234.5)] == [
        "0", "0.0012", "0.046", "1.23", "12.3", "1,234"
    ]  # fmt: skip
    assert shown.percent(0.905) == "90.5 %"
    for empty in (shown.score, shown.signed, shown.probability, shown.amount, shown.percent):
        assert empty(None) == ""
    assert shown.number(float("nan")) is None and shown.number(True) is None


def test_leaderboard_has_the_numbers_of_the_result(bench_dir: Path, read_result) -> None:
    (source,) = sources([bench_dir])
    rows = leaderboard.leaderboard(source).written()
    result = read_result(bench_dir)
    assert [r["system"] for r in rows] == [s["name"] for s in result["systems"]]
    for row, system in zip(rows, result["systems"], strict=True):
        for metric in made.METRICS:
            found = system["metrics"][metric]
            said = f"{found['mean']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
            assert row[metric].startswith(said)
    by_name = {r["system"]: r for r in rows}
    assert by_name["slow"]["s / query"] == "9.00" and by_name["slow"]["tokens in"] == "5,000"
    assert by_name["slow"]["USD / 1000"] == "5.00 (gpu hours)"
    assert by_name["untrained base"]["unreadable"] == "50.0 %"
    assert by_name[TEACHER]["of teacher"] == "100.0 % (gain 100.0 %)"
    assert by_name["first stage"]["of teacher"].endswith("% (gain 0.0 %)")
    assert by_name["slow"]["judged@10"] == "25.0 %"
    assert by_name["slow"]["± seeds"] == "0.014 (2 seeds)" and by_name["random"]["calls"] == ""
    for c in result["comparisons"]:
        if c["metric"] == "ndcg@10" and c["baseline"] == "first stage":
            cell = by_name[c["system"]]["vs first stage (a)"]
            assert cell == f"{c['difference']:+.3f} (p {shown.probability(c['p_holm'])})"


def test_marks_are_the_significant_comparisons(bench_dir: Path, read_result) -> None:
    (source,) = sources([bench_dir])
    result = read_result(bench_dir)
    expected = {
        (c["metric"], c["system"], c["baseline"], c["difference"] > 0)
        for c in result["comparisons"]
        if c["p_holm"] < 0.05
    }
    found = {
        (metric, system, mark.baseline, mark.better)
        for (metric, system), marks in leaderboard.marks(source).items()
        for mark in marks
    }
    assert found == expected and any(better for *_, better in found)
    letters = [(m.letter, m.baseline) for m in leaderboard.legend(source)]
    assert letters == [("a", "first stage"), ("b", "untrained base")]


def test_warnings_are_the_results_own_or_made_for_old_ones(
    bench_dir: Path, old_dir: Path, tmp_path: Path
) -> None:
    (source,) = sources([bench_dir])
    assert "answers could not be read" in leaderboard.warnings(source)["untrained base"][0]
    assert "first stage" not in leaderboard.warnings(source)
    folder = Path(shutil.copytree(old_dir, tmp_path / "old"))
    result = json.loads((folder / "result.json").read_text())
    slow = result["systems"][4]
    slow["metrics"]["ndcg@10"] = {"mean": 0.1, "low": 0.0, "high": 0.2}
    slow["missing_queries"] = 3
    (folder / "result.json").write_text(json.dumps(result))
    (source,) = sources([folder])
    assert leaderboard.warnings(source)["slow"] == [
        f"ndcg@10 0.100 is far below the input order, which has "
        f"{result['systems'][1]['metrics']['ndcg@10']['mean']:.3f}",
        "3 queries are missing from its run and count as zero",
    ]


def test_steps_sensitivity_and_finding(bench_dir: Path, old_dir: Path, read_result) -> None:
    (source,) = sources([bench_dir])
    result = read_result(bench_dir)
    table = steps(source, ["ndcg@10"])
    assert table is not None and len(table.rows) == 2
    s = next(s for s in result["steps"] if s["metric"] == "ndcg@10" and s["to"] == TEACHER)
    (row,) = [r for r in table.written() if r["step"].endswith(TEACHER)]
    assert row["difference"].startswith(f"{s['difference']:+.3f} ({s['low']:+.3f} to")
    assert (row["p"], row["p (t-test)"]) == (f"{s['p']:.3f}", f"{s['p_t']:.3f}")
    power = sensitivity(source)
    assert power is not None
    small = result["minimal_difference"]["ndcg@10"]["first stage"]
    assert power.written()[0]["smallest difference from first stage"] == f"{small:.3f}"
    assert power.written()[0]["ceiling"] == "1.000"
    (before,) = sources([old_dir])
    old = sensitivity(before)
    assert old is not None and "smallest" not in " ".join(old.written()[0])
    assert "p (t-test)" not in (steps(before) or table).written()[0]
    mean = result["systems"][3]["metrics"]["ndcg@10"]["mean"]
    assert f"{TEACHER}, {mean:.3f}" in finding(source) and "Holm's p" in finding(source)


def test_diagnosis_shows_what_there_is(bench_dir: Path, old_dir: Path) -> None:
    (source,) = sources([bench_dir])
    found = {part.title: part for part in parts(source)}
    assert list(found) == [
        "The order of the input", "How documents are written", "Calibration",
        "Answers that could not be read", "Wins and losses",
    ]  # fmt: skip
    (gains,) = found["The order of the input"].figures
    assert [s.name for s in gains.chart.series] == [s.name for s in made.SYSTEMS[2:5]]
    gap = found["How documents are written"].tables[0].written()[1]
    assert gap["slow"] == "-0.200 (-0.300 to -0.100)"
    assert len(found["Calibration"].figures) == 3
    kinds = [t.caption.split(",")[0] for t in found["Answers that could not be read"].tables]
    assert kinds[1:] == ["Failures by kind", "Rules of the formats that answers broke"]
    by_type = found["Wins and losses"].tables[1]
    assert {r["type of the query"] for r in by_type.written()} == {"bridge", "comparison"}
    (before,) = sources([old_dir])
    titles = [part.title for part in parts(before)]
    assert titles == ["Answers that could not be read", "Wins and losses"]


def test_wins_are_counted_by_query(bench_dir: Path, read_result) -> None:
    (source,) = sources([bench_dir])
    values = read_result(bench_dir)["per_query"]
    one, other = values[TEACHER]["ndcg@10"], values["first stage"]["ndcg@10"]
    gaps = [one[q] - other[q] for q in one]
    expected = (sum(g > 0 for g in gaps), sum(g == 0 for g in gaps), sum(g < 0 for g in gaps))
    assert counted(source, TEACHER, "first stage") == expected


def test_the_frontier_is_what_nobody_beats() -> None:
    def at(name: str, cost: float, quality: float) -> Priced:
        return Priced(name=name, cost=cost, quality=quality, low=quality, high=quality)

    some = [at("a", 1, 0.2), at("b", 2, 0.5), at("c", 3, 0.5), at("d", 4, 0.4), at("e", 9, 0.9)]
    assert [s.name for s in frontier(some)] == ["a", "b", "e"]
    twins = [at("a", 1, 0.5), at("b", 1, 0.5)]
    assert [s.name for s in frontier(twins)] == ["a", "b"]
    assert frontier([]) == []


def test_kinds_of_cost_are_those_measured(bench_dir: Path, old_dir: Path) -> None:
    (new,), (old,) = sources([bench_dir]), sources([old_dir])
    assert [c.key for c in pareto.costs(new)] == ["seconds", "tokens", "price", "latency"]
    assert [c.key for c in pareto.costs(old)] == ["seconds", "tokens"]
    assert [name for name, _ in pareto.references(new)] == ["random", "first stage"]


def test_mean_over_collections_of_what_all_have(
    bench_dir: Path, other_dir: Path, read_result
) -> None:
    read = sources([bench_dir, other_dir])
    table, said = macro(read)
    assert table is not None and "4 systems that all results have; 2 that some lack" in said
    both = [read_result(folder) for folder in (bench_dir, other_dir)]
    for row, name in zip(table.written(), [s.name for s in made.SYSTEMS[:4]], strict=True):
        means = [next(s for s in r["systems"] if s["name"] == name)["metrics"] for r in both]
        assert row["system"] == name
        for metric in made.METRICS:
            mean = sum(m[metric]["mean"] for m in means) / 2
            assert row[f"mean {metric}"] == f"{mean:.3f}"
        assert row["ndcg@10, other"] == f"{means[1]['ndcg@10']['mean']:.3f}"
    assert macro(read[:1]) == (None, "")


def test_markdown_has_every_table_and_escapes_names(
    bench_dir: Path, other_dir: Path, read_result
) -> None:
    text = listing.markdown(sources([bench_dir, other_dir]))
    assert text.startswith("# 2 results\n\n## All collections\n")
    mean = read_result(bench_dir)["systems"][3]["metrics"]["ndcg@10"]["mean"]
    assert f"| reasoner \\| 50% & more\\_or\\_less | {mean:.3f} (" in text
    assert "- a: first stage; +a better, -a worse" in text and "### Steps" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table
    assert "| interval |" not in text


def test_latex_marks_the_best_and_escapes(bench_dir: Path, other_dir: Path, read_result) -> None:
    text = latex.latex(sources([bench_dir, other_dir]))
    assert r"reasoner \textbar{} 50\% \& more\_or\_less" in text
    systems = read_result(bench_dir)["systems"]
    means = sorted(
        (s["metrics"]["ndcg@10"]["mean"] for s in systems if s["kind"] == "text"), reverse=True
    )
    first, second = (f"{m:.3f}" for m in means[:2])
    assert rf"\textbf{{{first}}}$^{{\dagger" in text and rf"\underline{{{second}}}" in text
    assert r"perfect order & 1.000" in text  # out of competition
    for command in (r"\begin{tabular}", r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 3
    assert text.count("{") == text.count("}") and r"$^{\dagger}$ significantly better" in text
    for table in text.split("\n\n"):
        body = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in body}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50% #1", r"a\_b \& 50\% \#1"),
        (r"\input{x}$y^2~", r"\textbackslash{}input\{x\}\$y\textasciicircum{}2\textasciitilde{}"),
        ("a\n\nb → c", r"a b $\rightarrow$ c"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert latex.escaped(text) == expected
