"""``rank-rl report`` from the command line: files, figures, what it prints, its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made
import pytest
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.report import figures
from rank_rl.report.reading import sources
from rank_rl.report.training import stages

RUNNER = CliRunner(env={"COLUMNS": "160"})


def run(*arguments: object) -> tuple[int, str, str]:
    done = RUNNER.invoke(app, ["report", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_every_output_at_once(
    bench_dir: Path, other_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = made.training(tmp_path / "stage")
    code, out, _ = run(
        bench_dir, other_dir, "--training", stage, "--compare", "first stage", made.SYSTEMS[3].name,
        "--markdown", "r.md", "--latex", "r.tex", "--metric", "map",
    )  # fmt: skip
    assert code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "stage: validation" in page and 'id="compare"' in page and 'id="macro"' in page
    for words in ("made, 12 queries", "other, 7 queries", "All collections", "report.html (",
                  "a: first stage", "against first stage, 12 queries", "steps",
                  "Highest map of the systems that ask a model"):  # fmt: skip
        assert words in out, words
    assert "## All collections" in (tmp_path / "r.md").read_text()
    assert r"\begin{tabular}" in (tmp_path / "r.tex").read_text()


def test_figures_are_the_same_for_the_same_results(
    bench_dir: Path, other_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plots)")
    few = sources([other_dir])
    (stage,) = stages(sources([bench_dir]))
    curves = [replace(stage, figures=stage.figures[:2])]
    first = figures.write(few, curves, tmp_path / "a")
    names = [path.name for path in first]
    for wanted in ("other-leaderboard", "other-cost-seconds", "other-cost-tokens",
                   "other-position", "other-calibration-0", "slow-validation",
                   "slow-mean-of-each-reward"):  # fmt: skip
        assert f"{wanted}.svg" in names and f"{wanted}.png" in names
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in first if p.suffix == ".png")
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    again = figures.write(few, curves, tmp_path / "b")
    svgs = [path for path in first if path.suffix == ".svg"]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in svgs]
    leaderboard = (tmp_path / "a" / "other-leaderboard.svg").read_text()
    assert "reasoner | 50% &amp; more_or_less" in leaderboard  # text stays text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["{bench}", "--metric", "ndgc@10"], "no metric 'ndgc@10'"),
        (["{bench}", "--compare", "slow", "fast"], "no system 'fast'"),
        (["{bench}", "--training", "{bench}/runs"], "no training_log.jsonl"),
    ],
)
def test_errors_are_one_line(
    bench_dir: Path, arguments: list[str], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*(a.replace("{bench}", str(bench_dir)) for a in arguments))
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "report.html").exists()
