"""Matched arms laid out as a pipeline: what is shared, what is compared; nothing is launched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rank_rl.cli import arm_plan, pipeline
from rank_rl.cli.app import app
from rank_rl.errors import RecipeError

RECIPE = """
run: {{name: {stage}, output_dir: unused/{stage}}}
model: {{name: start}}
data: {{source: jsonl, path: t.jsonl}}
format: {{name: permutation}}
{more}
"""
ARMS = """
name: compared
launch: cpu.yaml
stages: {stages}
bench: bench.yaml
"""
FOUR = ["answer-sft", "answer-sft+grpo", "reason-sft", "reason-sft+grpo"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "recipes"
    found.mkdir()
    for stage in ("score", "sft", "grpo", "bench"):
        more = "bench: {systems: []}" if stage == "bench" else ""
        (found / f"{stage}.yaml").write_text(RECIPE.format(stage=stage, more=more))
    (tmp_path / "cpu.yaml").write_text("use_cpu: true\nnum_processes: 1\n")
    write(found)
    return found


def write(folder: Path, more: str = "", stages: str = "{sft: sft.yaml, grpo: grpo.yaml}") -> None:
    (folder / "arms.yaml").write_text(ARMS.format(stages=stages) + more)


def laid_out(found: pipeline.Pipeline) -> list[tuple[str, str, str, tuple[int, ...]]]:
    return [
        (step.title, str(step.out_dir), step.recipe.spec.model.name, step.after)
        for step in found.steps
    ]


def test_four_arms_share_their_sft(folder: Path) -> None:
    found = arm_plan.load(folder)
    out = "outputs/compared"
    answer, reason = f"{out}/answer-sft/sft", f"{out}/reason-sft/sft"
    assert laid_out(found) == [
        ("answer-sft sft", answer, "start", ()),
        ("answer-sft+grpo grpo", f"{out}/answer-sft+grpo/grpo", f"{answer}/final", (0,)),
        ("reason-sft sft", reason, "start", ()),
        ("reason-sft+grpo grpo", f"{out}/reason-sft+grpo/grpo", f"{reason}/final", (2,)),
        ("bench", f"{out}/bench", "start", (0, 1, 2, 3)),
    ]
    modes = [step.recipe.spec.format.mode for step in found.steps[:4]]
    assert modes == ["answer", "answer", "reason", "reason"]
    assert found.out_dir == Path(out)


def test_all_arms_beside_what_they_must_beat(folder: Path) -> None:
    bench = arm_plan.load(folder).steps[-1].recipe.spec.bench
    assert bench is not None
    bases = ["untrained base, answer", "untrained base, reason"]
    names = [system.name for system in bench.systems]
    assert names == ["random", "first stage", *bases, *FOUR, "perfect order"]
    by_name = {system.name: system for system in bench.systems}
    assert by_name["reason-sft"].model == "outputs/compared/reason-sft/sft/final"
    assert [by_name[base].model for base in bases] == ["start", "start"]
    shown = [by_name[base].format for base in bases]
    assert [fmt.mode for fmt in shown if fmt] == ["answer", "reason"]
    assert bench.baselines == ["first stage", bases[0]]
    assert bench.steps == [
        (bases[0], "answer-sft"),
        (bases[1], "reason-sft"),
        ("answer-sft", "answer-sft+grpo"),
        ("reason-sft", "reason-sft+grpo"),
        ("answer-sft", "reason-sft"),
        ("answer-sft+grpo", "reason-sft+grpo"),
    ]


def test_rows_of_the_recipe_stay_and_may_name_arms(folder: Path) -> None:
    rows = """bench:
  baselines: [BM25]
  steps: [[BM25, mine]]
  systems:
    - {name: BM25, kind: first_stage}
    - {name: mine, kind: text, model: "arm:reason-sft", max_new_tokens: 7}
    - {name: raw, kind: text, model: start}
"""
    (folder / "bench.yaml").write_text(RECIPE.format(stage="bench", more=rows))
    bench = arm_plan.load(folder).steps[-1].recipe.spec.bench
    assert bench is not None
    arms = ["answer-sft", "answer-sft+grpo", "reason-sft+grpo"]
    assert [s.name for s in bench.systems] == [
        "random", "BM25", "mine", "raw", *arms, "perfect order"
    ]  # fmt: skip
    assert bench.systems[2].model == "outputs/compared/reason-sft/sft/final"
    assert bench.systems[2].max_new_tokens == 7
    assert bench.baselines == ["BM25"]
    assert bench.steps == [
        ("BM25", "mine"),
        ("raw", "answer-sft"),  # the row of the recipe is the start that the arms share
        ("raw", "mine"),
        ("answer-sft", "answer-sft+grpo"),
        ("mine", "reason-sft+grpo"),
        ("answer-sft", "mine"),
        ("answer-sft+grpo", "reason-sft+grpo"),
    ]
    (folder / "bench.yaml").write_text(
        RECIPE.format(stage="bench", more=rows.replace("arm:reason-sft", "arm:other"))
    )
    with pytest.raises(RecipeError, match=r"bench.systems 'mine': no arm 'other'"):
        arm_plan.load(folder)


def test_a_common_warm_up_runs_once_and_settings_do_not_reach_it(folder: Path) -> None:
    write(folder, stages="{score: score.yaml, sft: sft.yaml}")
    found = arm_plan.load(folder, ["score:run.seed=4", "model.name=other"])
    assert laid_out(found)[:3] == [
        ("score", "outputs/compared/score", "other", ()),
        ("answer-sft sft", "outputs/compared/answer-sft/sft", "outputs/compared/score/final", (0,)),
        ("reason-sft sft", "outputs/compared/reason-sft/sft", "outputs/compared/score/final", (0,)),
    ]
    assert [step.recipe.spec.run.seed for step in found.steps[:2]] == [4, 0]
    bench = found.steps[-1].recipe.spec.bench
    assert bench is not None
    assert {s.model for s in bench.systems if s.name.startswith("untrained")} == {"other"}


def test_a_start_that_a_stage_has_trained_is_not_called_untrained(folder: Path) -> None:
    bench = arm_plan.load(folder, ["sft:model.name=out/score/final"]).steps[-1].recipe.spec.bench
    assert bench is not None
    assert [s.name for s in bench.systems if s.model == "out/score/final"] == [
        "start, answer", "start, reason"
    ]  # fmt: skip
    assert bench.baselines == ["first stage", "start, answer"]


LISTED = """arms:
  - {name: a, stages: [sft]}
  - {name: b, stages: [sft, grpo]}
  - {name: c, stages: [sft, grpo], set: {"grpo:grpo.group_size": 8}}
  - {name: d, stages: [grpo], set: {data.reasoning: none}}
"""


def test_listed_arms_share_what_is_the_same(folder: Path) -> None:
    write(folder, LISTED)
    found = arm_plan.load(folder, ["run.output_dir=there", "grpo:run.seed=2"])
    assert [(step.title, step.after) for step in found.steps] == [
        ("a sft", ()), ("b grpo", (0,)), ("c grpo", (0,)), ("d grpo", ()), ("bench", (0, 1, 2, 3))
    ]  # fmt: skip
    assert [step.recipe.spec.grpo.group_size for step in found.steps[:4]] == [64, 64, 8, 64]
    assert found.steps[3].recipe.spec.data.reasoning == "none"
    assert found.steps[3].recipe.spec.run.seed == 2
    assert {step.out_dir.parts[0] for step in found.steps} == {"there"}
    bench = found.steps[-1].recipe.spec.bench
    assert bench is not None
    base = "untrained base"
    assert bench.steps == [(base, "a"), (base, "d"), ("a", "b"), ("a", "c")]


@pytest.mark.parametrize(
    ("more", "stages", "said"),
    [
        ("arms: [{name: a, stages: [grpo]}]\n", "{sft: sft.yaml}", "name stages.grpo"),
        ("arms: [{name: bench, stages: [sft]}]\n", "{sft: sft.yaml}", "would share a folder"),
        ("arms: [{name: a b, stages: [sft]}]\n", "{sft: sft.yaml}", "arms.0.name"),
        ("", "{score: score.yaml}", "no arms"),
        ("arms: [{name: a, stages: [sft], set: {format.moed: reason}}]\n", "{sft: sft.yaml}",
         "unknown key 'moed'"),
        ("arms: [{name: a, stages: [sft]}, {name: a, stages: [sft]}]\n", "{sft: sft.yaml}",
         "two arms share a name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(folder: Path, more: str, stages: str, said: str) -> None:
    write(folder, more, stages)
    with pytest.raises(RecipeError, match=said):
        arm_plan.load(folder)


def said_by(folder: Path, *options: str) -> str:
    """The one line that refuses a dry run."""
    result = CliRunner().invoke(app, ["arms", str(folder), "--dry-run", *options])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    return result.stderr


@pytest.mark.parametrize("arm", ["random", "BM25-k1", "start"])
def test_an_arm_and_a_bench_row_have_two_names(folder: Path, arm: str) -> None:
    rows = "bench: {systems: [{name: BM25 k1, kind: first_stage}, {name: start, kind: random}]}"
    if arm != "random":
        (folder / "bench.yaml").write_text(RECIPE.format(stage="bench", more=rows))
    write(folder, f"arms: [{{name: {arm.replace('-', '_')}, stages: [sft]}}]\n", "{sft: sft.yaml}")
    said = said_by(folder)
    row = arm.replace("-", " ")
    assert f"arm '{arm.replace('-', '_')}' has the name of the bench row '{row}'" in said


@pytest.mark.parametrize("value", ["", "null", "~", " ", "''", "{a: b}", "[a", "[a]"])
def test_the_folder_of_all_arms_has_a_name(folder: Path, value: str) -> None:
    assert f"--set run.output_dir={value}" in said_by(folder, "--set", f"run.output_dir={value}")


@pytest.mark.parametrize(("value", "root"), [("'a b'", "a b"), ("2026", "2026"), ("x/y", "x/y")])
def test_the_folder_of_all_arms_is_yaml(folder: Path, value: str, root: str) -> None:
    found = arm_plan.load(folder, [f"run.output_dir={value}"])
    assert found.steps[0].out_dir == Path(root, "answer-sft", "sft")


@pytest.mark.parametrize(
    ("override", "decides"),
    [
        ("format.mode=reason", "arm 'answer-sft' has its own format.mode"),
        ("sft:format.mode=foo", "arm 'answer-sft' has its own format.mode"),
        ("sft:run.output_dir=there", "arm 'answer-sft' has its own run.output_dir"),
        ("bench:run.output_dir=there", "stage bench has its own run.output_dir"),
        ("grpo:model.name=other", "arm 'answer-sft+grpo' has its own model.name"),
    ],
)
def test_an_override_without_effect_is_refused(folder: Path, override: str, decides: str) -> None:
    said = said_by(folder, "--set", override)
    assert f"--set {override}: has no effect: {decides}" in said


def test_an_override_that_arms_leave_alone_has_effect(folder: Path) -> None:
    write(folder, LISTED)
    found = arm_plan.load(folder, ["sft:model.name=other", "sft:grpo.group_size=4"])
    assert [step.recipe.spec.grpo.group_size for step in found.steps[:3]] == [4, 64, 8]
    assert found.steps[0].recipe.spec.model.name == "other"
    with pytest.raises(RecipeError, match=r"arm 'c' has its own grpo.group_size"):
        arm_plan.load(folder, ["grpo.group_size=4"])
    with pytest.raises(RecipeError, match=r"arm 'd' has its own data.reasoning"):
        arm_plan.load(folder, ["data.reasoning=explicit"])


def finish(step: pipeline.Step) -> None:
    step.out_dir.mkdir(parents=True, exist_ok=True)
    (step.out_dir / "done.json").write_text(json.dumps({"hash": step.recipe.hash, "summary": {}}))


def chosen(found: pipeline.Pipeline, first: str | None = None) -> list[bool]:
    return pipeline.choose(found.steps, first=first, force=False)


def test_only_what_stands_behind_a_stage_runs_again(folder: Path) -> None:
    found = arm_plan.load(folder)
    for step in found.steps:
        finish(step)
    (found.steps[0].out_dir / "done.json").unlink()
    assert pipeline.choose(found.steps, first=None, force=False) == [True, True, False, False, True]
    finish(found.steps[0])
    assert pipeline.choose(found.steps, first=None, force=False) == [False] * 5
    assert pipeline.choose(found.steps, first="grpo", force=False) == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_dry_run_lists_and_starts_nothing(folder: Path, tmp_path: Path) -> None:
    finish(arm_plan.load(folder).steps[0])
    result = CliRunner().invoke(app, ["arms", str(folder), "--dry-run"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "[1/5] answer-sft sft: done before, outputs/compared/answer-sft/sft"
    assert lines[1].startswith("[2/5] answer-sft+grpo grpo: accelerate launch --config_file cpu.y")
    assert "'format.mode=\"answer\"'" in lines[1]
    assert lines[-1] == "4 of 5 stages would run; outputs are in outputs/compared"
    assert [p.name for p in (tmp_path / "outputs" / "compared").iterdir()] == ["answer-sft"]


def test_the_base_skips_reasoning_where_the_arms_do(folder: Path) -> None:
    fmt = "format: {name: choice, mode: reason}\n"
    stages = {"sft": "eval: {reasoning: skip, readout: score}", "bench": "bench: {systems: []}"}
    arms = "arms:\n  - {name: a, stages: [sft]}\n"
    for stage, more in stages.items():
        text = RECIPE.replace("format: {{name: permutation}}\n", "").format(stage=stage, more=more)
        (folder / f"{stage}.yaml").write_text(fmt + text)
    write(folder, arms, "{sft: sft.yaml}")

    def base(*overrides: str) -> Any:
        spec = arm_plan.load(folder, overrides).steps[-1].recipe.spec
        assert spec.bench is not None
        (row,) = [s for s in spec.bench.systems if s.name == "untrained base"]
        return row

    row = base()
    assert (row.reasoning, row.readout) == ("skip", "score")
    # Not what the recipe of the bench says, although it has the same format.
    written = base("sft:eval.reasoning=write", "sft:eval.readout=auto", "bench:eval.reasoning=skip")
    assert written.reasoning == "write"
    assert base("sft:eval.reasoning=write", "sft:format.mode=answer").reasoning is None
