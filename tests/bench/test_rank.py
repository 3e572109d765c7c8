"""Stage rank: a model's scores of a split, which another model learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_recipes import content, write_tasks

from rank_rl import data
from rank_rl.bench import rank
from rank_rl.data import trec
from rank_rl.errors import DataError, RecipeError
from rank_rl.specs import RecipeSpec


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    write_tasks(tmp_path / "tasks.jsonl", tests=2)
    sections = {"format": {"name": "slots"}, "rank": {"split": "train"}}
    return content(tiny_model_dir, tmp_path / "tasks.jsonl", tmp_path / "out", sections)


def run(recipe: dict[str, Any]) -> dict[str, Any]:
    return rank.run(RecipeSpec.model_validate(recipe), {})


def test_a_split_is_ranked_and_teaches(recipe: dict[str, Any], tmp_path: Path) -> None:
    summary = run(recipe)
    assert Path(summary["run"]) == tmp_path / "out" / "train.trec" and summary["queries"] == 8
    ranked = trec.read_run(Path(summary["run"]))
    assert set(ranked) == {f"train{i}" for i in range(8)}
    scores = [score for _, score in ranked["train0"]]
    assert len(scores) == 4 and any(not score.is_integer() for score in scores)
    spec = RecipeSpec.model_validate(
        {**recipe, "data": {**recipe["data"], "teacher_run": summary["run"]}}
    )
    collection = data.load(spec.data, seed=3)
    assert collection.teacher["train0"] == pytest.approx(dict(ranked["train0"]))


def test_another_split_is_another_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    run(recipe)
    summary = run({**recipe, "rank": {"split": "validation"}})
    assert set(trec.read_run(Path(summary["run"]))) == {f"validation{i}" for i in range(3)}
    assert (tmp_path / "out" / "train.trec").is_file()


def test_a_finished_run_is_not_asked_again(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = Path(run(recipe)["run"]).read_text(encoding="utf-8")
    exchanges = tmp_path / "out" / "exchanges" / "teacher.jsonl"
    exchanges.unlink()  # written whenever the model is asked
    assert Path(run(recipe)["run"]).read_text(encoding="utf-8") == first
    assert not exchanges.exists()


def test_what_could_not_be_read_teaches_nothing(recipe: dict[str, Any]) -> None:
    written = {**recipe, "format": {"name": "permutation", "doc_tokens": 16}}
    with pytest.raises(DataError, match="none of 8 queries has an answer that could be read"):
        run({**written, "eval": {"max_new_tokens": 4}})


def test_a_wrong_readout_is_blamed_where_it_stands(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="^rank.readout: readout 'guided'"):
        run({**recipe, "rank": {"readout": "guided"}})
    with pytest.raises(RecipeError, match="^rank.reasoning: .* no reasoning to skip"):
        run({**recipe, "rank": {"reasoning": "skip"}})
    orders = {"name": "permutation", "doc_tokens": 16}
    by_two = {"strategy": {"name": "by_score", "params": {"size": 2}}}
    with pytest.raises(RecipeError, match="^rank.strategy 'by_score': the format orders"):
        run({**recipe, "format": orders, "rank": by_two})


def test_what_cannot_be_ranked_is_said(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="no section rank"):
        run({k: v for k, v in recipe.items() if k != "rank"})
