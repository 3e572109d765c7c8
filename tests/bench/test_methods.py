"""The table of methods: what is read from recipes and result files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rank_rl.bench import methods, tables
from rank_rl.errors import DataError, RecipeError

METHOD: dict[str, Any] = {
    "title": "Some|Rank",
    "paper": "A and B, 2025",
    "arxiv": "2501.00001",
    "summary": "lists",
    "paper_recipe": ["paper.yaml"],
    "results": [{"file": "../../results/some.json", "system": "+ grpo"}],
}
RECIPE: dict[str, Any] = {
    "run": {"name": "r", "output_dir": "out"},
    "model": {"name": "m"},
    "data": {"source": "bundled", "path": "musique200"},
    "format": {"name": "slots"},
}
LISTS = {"format": {"name": "permutation", "mode": "reason"}}
STAGES: dict[str, dict[str, Any]] = {
    "score": {"losses": [{"name": "label_ce"}, {"name": "listnet", "weight": 0.3}]},
    "sft": LISTS,
    "grpo": {
        **LISTS,
        "rewards": [{"name": "ndcg_gain", "weight": 0.8}, {"name": "format", "weight": 0.2}],
        "eval": {"strategy": {"name": "sliding", "params": {"window": 5, "step": 2}}},
    },
    "bench": {"bench": {"systems": []}},
}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "some"
    folder.mkdir(parents=True)
    for stage, own in STAGES.items():
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump({**RECIPE, **own}, sort_keys=False))
    (folder / "paper.yaml").write_text(yaml.safe_dump(RECIPE))
    entries = [{"stage": stage, "recipe": f"{stage}.yaml"} for stage in STAGES]
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"name": "some", "stages": entries}))
    write(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("# R\n\n<!-- methods -->\nold\n<!-- /methods -->\n\nend\n")
    return readme


def write(root: Path, **changes: Any) -> None:
    (root / "recipes" / "some" / "method.yaml").write_text(yaml.safe_dump({**METHOD, **changes}))


def cells(page: Path) -> list[str]:
    assert tables.main([str(page)]) == 0
    *_, row, end = page.read_text().partition("<!-- /methods -->")[0].split("\n")
    assert not end
    return [cell.strip() for cell in row.replace("\\|", "!").strip("|").split(" | ")]


def test_a_row_is_read_from_the_recipes(page: Path) -> None:
    assert cells(page) == [
        "[Some!Rank](recipes/some): lists",
        "[A and B, 2025](https://arxiv.org/abs/2501.00001)",
        "score → sft → grpo",
        "`slots` (answer) → `permutation` (reason)",
        "`sliding` (window 5, step 2)",
        "`label_ce` + 0.3 `listnet`; ideal answers; 0.8 `ndcg_gain` + 0.2 `format`",
        "[paper](recipes/some/paper.yaml)",
        "not measured",
    ]
    assert page.read_text().startswith("# R\n\n<!-- methods -->\n| method |")
    assert page.read_text().endswith("<!-- /methods -->\n\nend\n")


def test_named_stages_and_label_slots(page: Path) -> None:
    sections = {
        "grpo": {"policy": "slots", "supervised": 0.3},
        "rewards": [{"name": "ndcg"}],
        "data": {**RECIPE["data"], "lessons": "l.jsonl"},
    }
    (page.parent / "recipes" / "some" / "sft.yaml").write_text(
        yaml.safe_dump({**RECIPE, **sections})
    )
    stages = [{"stage": stage, "recipe": "sft.yaml"} for stage in ("sft", "grpo")]
    write(page.parent, stages=stages, arxiv=None, paper_recipe=[])
    found = cells(page)
    assert found[1:3] == ["A and B, 2025", "sft → grpo"]
    assert found[5] == "a teacher's answers; `ndcg` and 0.3 (`bce` + 0.3 `listnet`)"
    assert found[6] == "-"


def test_stages_that_are_alternatives_are_no_chain(page: Path) -> None:
    other = yaml.safe_dump({**RECIPE, "losses": [{"name": "ranknet"}]})
    (page.parent / "recipes" / "some" / "other.yaml").write_text(other)
    stages = [{"stage": "score", "recipe": f"{recipe}.yaml"} for recipe in ("score", "other")]
    write(page.parent, stages=stages)
    assert cells(page)[2] == "score → score"
    write(page.parent, stages=stages, alternatives=True)
    found = cells(page)
    assert found[2] == "score"
    assert found[5] == "`label_ce` + 0.3 `listnet`; or `ranknet`"


def result(**values: float) -> str:
    systems = [
        {
            "name": name.replace("_", " "),
            "metrics": {"ndcg@10": {"mean": v}, "map": {"mean": v / 2}},
        }
        for name, v in values.items()
    ]
    facts = {"metrics": ["ndcg@10", "map"], "queries": 9, "data": {"name": "facts"}}
    return json.dumps({**facts, "systems": systems})


def test_values_come_from_result_files(page: Path) -> None:
    (page.parent / "results").mkdir()
    file = page.parent / "results" / "some.json"
    file.write_text(result(first_stage=0.5, untrained_base=0.25, ours=0.61))
    one = {"file": "../../results/some.json", "system": "ours"}
    other = {"file": "../../results/other.json", "system": "ours", "label": "B"}
    write(page.parent, results=[one, {**one, "metric": "map", "label": "A"}, other])
    assert cells(page)[-1] == (
        "0.610 (base 0.250, first stage 0.500; 9 queries of facts); "
        "A: 0.305 map (base 0.125, first stage 0.250; 9 queries of facts); B: not measured"
    )
    write(page.parent, results=[{**one, "system": "+ grpo"}])
    with pytest.raises(DataError, match=r"no system '\+ grpo'.*expected first stage, untrained"):
        methods.block(page)
    write(page.parent, results=[{**one, "metric": "foo@3"}])
    with pytest.raises(DataError, match=r"no metric 'foo@3'; expected ndcg@10, map"):
        methods.block(page)
    file.write_text("{}")
    with pytest.raises(DataError, match="not a benchmark result"):
        methods.block(page)


def test_what_is_missing_is_named(page: Path) -> None:
    write(page.parent, paper_recipe=["other.yaml"])
    with pytest.raises(RecipeError, match=r"other.yaml: no such file"):
        methods.block(page)
    write(page.parent, reward="ndcg")
    with pytest.raises(RecipeError, match=r"method.yaml: reward: unknown key"):
        methods.block(page)
    assert tables.main([str(page)]) == 2
