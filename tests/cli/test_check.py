"""``rank-rl check`` refuses what the stages would, in one line, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from small_recipes import content, write_tasks
from typer.testing import CliRunner

from rank_rl.cli.app import app

CROSS = {"name": "cross_encoder"}
SLOTS = {"name": "slots"}
GRPO = {
    "format": SLOTS,
    "grpo": {"policy": "slots", "supervised": 0.5},
    "rewards": [{"name": "ndcg"}],
}


def check(folder: Path, stage: str | None, sections: dict[str, Any], model: Any = "m") -> Result:
    file = folder / "tasks.jsonl"
    write_tasks(file, tests=2)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content(Path(model), file, folder / "out", sections)))
    named = ["--stage", stage] if stage else []
    return CliRunner().invoke(app, ["check", str(path), "--no-measure", *named])


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"name": "zzz"}, "unknown loss 'zzz'"),
        ({"name": "tsp_margin", "params": {"x": 1}}, "loss 'tsp_margin': unknown parameter 'x'"),
        ({"name": "tsp_margin"}, "there are no weights of pairs with format 'cross_encoder'"),
        ({"name": "label_ce"}, "there are no label logits with format 'cross_encoder'"),
        ({"name": "lm"}, "there are no ideal texts with format 'cross_encoder'"),
        ({"name": "kl"}, "loss 'kl': there are no teacher scores"),
        ({"name": "ranknet", "params": {"target": "teacher"}}, "there are no teacher scores"),
        ({"name": "info_nce", "params": {"temperature": 0}}, "temperature 0"),
        ({"name": "ranknet", "weight": -1}, "weight -1.0; expected at least 0"),
        ({"name": "ranknet", "weight": float("nan")}, "weight nan"),
        ({"name": "ranknet", "weight": float("inf")}, "weight inf"),
        ({"name": "ranknet", "weight": 0}, "losses: every weight is 0; expected one above 0"),
    ],
)
def test_losses_are_made_and_tried(tmp_path: Path, loss: dict[str, Any], words: str) -> None:
    result = check(tmp_path, "score", {"format": CROSS, "losses": [loss]})
    assert words in refused(result)


def test_names_of_losses_are_resolved_without_a_stage(tmp_path: Path) -> None:
    assert "unknown loss 'zzz'" in refused(check(tmp_path, None, {"losses": [{"name": "zzz"}]}))


def test_losses_of_grpo(tmp_path: Path) -> None:
    said = refused(check(tmp_path, "grpo", {**GRPO, "losses": [{"name": "kl"}]}))
    assert "there are no teacher scores with format 'slots' in stage grpo" in said
    alone = {**GRPO, "grpo": {"policy": "slots"}, "losses": [{"name": "zzz"}]}
    assert "unknown loss 'zzz'" in refused(check(tmp_path, "grpo", alone))


@pytest.mark.parametrize(
    ("stage", "sections", "words"),
    [
        ("score", {"format": {"name": "permutation"}}, "no label slots, which stage score"),
        ("sft", {"format": CROSS}, "format 'cross_encoder' writes no text"),
        (None, {"format": SLOTS, "eval": {"readout": "guided"}}, "eval.readout: readout 'guided'"),
        ("score", {"format": SLOTS, "eval": {"readout": "guided"}}, "eval.readout: readout"),
        ("sft", {"eval": {"reasoning": "skip"}}, "eval.reasoning: format 'permutation' in mode an"),
        ("sft", {"eval": {"metric": "zzz"}}, "eval.metric: unknown metric 'zzz'"),
    ],
)
def test_what_a_stage_refuses(
    tmp_path: Path, stage: str | None, sections: dict[str, Any], words: str
) -> None:
    assert words in refused(check(tmp_path, stage, sections))


@pytest.mark.parametrize(
    ("params", "strategy", "words"),
    [
        ({"pick": "best"}, {"name": "elimination"}, "picks the best document"),
        ({"pick": "worst"}, {"name": "setwise"}, "picks the worst document"),
        ({}, {"name": "by_score", "params": {"size": 2}}, "orders or picks documents"),
    ],
)
def test_a_strategy_that_refuses_the_pick(
    tmp_path: Path, params: dict[str, Any], strategy: dict[str, Any], words: str
) -> None:
    fmt = {"name": "choice", "params": params}
    found = check(tmp_path, "sft", {"format": fmt, "eval": {"strategy": strategy}})
    said = refused(found)
    assert f"eval: strategy {strategy['name']!r}: " in said and words in said


def test_a_system_of_the_bench_is_checked_where_its_model_is_here(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    fmt = {"name": "choice", "params": {"pick": "worst"}}
    row = {"name": "x", "kind": "text", "format": fmt, "strategy": {"name": "setwise"}}
    bench = {"systems": [{**row, "model": str(tiny_model_dir)}]}
    said = refused(check(tmp_path, None, {"bench": bench}))
    assert "bench.systems 'x': strategy 'setwise': the format picks the worst document" in said
    # What a checkpoint that is still to be trained says of itself is not known.
    bench["systems"][0]["model"] = "out/final"
    small = {"name": "permutation", "prompt_tokens": 2048}
    result = check(tmp_path, "bench", {"bench": bench, "format": small}, tiny_model_dir)
    assert result.exit_code == 0, result.output
