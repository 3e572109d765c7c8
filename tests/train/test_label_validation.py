"""Validation by label log-probabilities, with reasoning skipped, and a checkpoint that keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stage_runs import TRAINING, training

from rank_rl import Reranker
from rank_rl.errors import RecipeError
from rank_rl.generation.reasoning import SKIPPED
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, grpo, sft

Recipe = Callable[..., RecipeSpec]
EVAL = {"strategy": {"name": "setwise"}, "readout": "score", "max_new_tokens": 8}
CHOICE = {"name": "choice", "mode": "reason"}


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_stage_validates_and_saves_the_readout(recipe: Recipe, stage: str) -> None:
    if stage == "sft":
        spec = recipe(format=CHOICE, eval={**EVAL, "reasoning": "skip"}, training=TRAINING)
        summary = sft.run(spec, {})
    else:
        rewards = [{"name": "ndcg"}, {"name": "chance:Digits"}]
        spec = recipe(
            format=CHOICE,
            eval={**EVAL, "reasoning": "skip"},
            rewards=rewards,
            training=training(),
        )
        summary = grpo.run(spec, {})
    log = (Path(spec.run.output_dir) / "training_log.jsonl").read_text().splitlines()
    values = [r for r in map(json.loads, log) if "eval_ndcg@10" in r]
    assert [r["step"] for r in values] == [0, 2]
    # Nothing was generated, and every document has its place by log-probability.
    reranker = Reranker.from_pretrained(summary["checkpoint"], device="cpu")
    assert (reranker.readout, reranker.reasoning) == ("score", "skip")
    tasks = common.begin(stage, spec, {}).collection.validation
    results = reranker.rank_tasks(tasks)
    assert all(r.completion_tokens == 0 < r.prompt_tokens for r in results)
    assert results[0].exchanges[0].prompt.prefill == SKIPPED


def test_a_recipe_that_cannot_be_read_so_is_refused_at_once(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"eval\.readout: readout 'score'.*reasoning: skip"):
        common.begin("sft", recipe(format=CHOICE, eval=EVAL), {})
    answer = {**CHOICE, "mode": "answer"}
    with pytest.raises(RecipeError, match=r"eval\.reasoning: .*no reasoning to skip"):
        common.begin("sft", recipe(format=answer, eval={**EVAL, "reasoning": "skip"}), {})
