"""Every stage under every kind of parallelism: two real processes learn what one does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from launching import KINDS, alone, curve, launch, needs, records, weights, write_recipe

SLOTS = {"name": "slots", "mode": "answer", "doc_tokens": 16, "prompt_tokens": 512}
GRPO = {
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "max_completion_length": 40,
}
# An untrained model answers nothing that can be read; digits it writes by chance.
DIGITS = [{"name": "chance:Digits"}, {"name": "format"}]
STAGES: dict[str, dict[str, Any]] = {
    # Without Adam, which hides the scale of gradients: their mean and their clipping count.
    "score": {"format": SLOTS, "training": {"optim": "sgd", "learning_rate": 0.5}},
    "sft": {},
    "grpo": {"training": GRPO, "rewards": DIGITS},
    "slots": {
        "format": SLOTS,
        "grpo": {"policy": "slots", "group_size": 8, "iterations": 2},
        "training": {"max_steps": 4},
        "rewards": [{"name": "ndcg"}],
    },
}
# What `make test` runs; the others take `make test-distributed`.
QUICK = {("ddp", "grpo"), ("fsdp2", "sft")}
# Answers are drawn by transformers there, from one random state a process.
OTHER_DRAWS = {("fsdp2", "grpo")}
# Largest difference between the curves of two processes and one, in fp32.
TOLERANCE = 1e-4


def cells() -> list[Any]:
    pairs = [(c, s) for c in ("ddp", "fsdp2", "zero2", "zero3") for s in STAGES]
    pairs += [("zero2_offload", "sft"), ("zero3_offload", "sft")]  # compile for minutes once
    marks = [[] if pair in QUICK else [pytest.mark.slow] for pair in pairs]
    return [
        pytest.param(*pair, marks=own, id="-".join(pair))
        for pair, own in zip(pairs, marks, strict=True)
    ]


@pytest.mark.distributed
@pytest.mark.parametrize(("config", "stage"), cells())
def test_two_processes_learn_what_one_does(
    config: str, stage: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    needs(config)
    name = "grpo" if stage == "slots" else stage
    recipe = write_recipe(tmp_path, tiny_model_dir, name="two", **STAGES[stage])
    done = launch(config, name, recipe)
    assert done.status == 0, done.said
    summary = json.loads((tmp_path / "two" / "done.json").read_text())["summary"]
    assert summary["launch"] == {"processes": 2, "kind": KINDS[config]}

    seen = curve(tmp_path / "two")
    assert [r["step"] for r in seen] == list(range(1, summary["steps"] + 1))
    assert all(math.isfinite(r["loss"]) for r in seen)
    assert any(r["grad_norm"] > 0 for r in seen)
    validated = [r["step"] for r in records(tmp_path / "two") if "eval_ndcg@10" in r]
    assert validated == [0, summary["steps"]]
    before, after = weights(tiny_model_dir), weights(summary["checkpoint"])
    assert before.keys() == after.keys()
    assert all(not before[n].equal(after[n]) for n in before)
    assert {w.dtype for w in after.values()} == {w.dtype for w in before.values()}

    if (config, stage) in OTHER_DRAWS:
        return
    one = write_recipe(tmp_path, tiny_model_dir, name="one", accumulate=2, **STAGES[stage])
    assert alone(name, one)["launch"]["processes"] == 1
    wanted = curve(tmp_path / "one")
    for got, expected in zip(seen, wanted, strict=True):
        shared = {k: v for k, v in expected.items() if k in got}
        assert {k: got[k] for k in shared} == pytest.approx(shared, abs=TOLERANCE, rel=TOLERANCE)
    reference = weights(tmp_path / "one" / "final")
    assert max(float((after[n] - reference[n]).abs().max()) for n in after) < 1e-3


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("config", ["fsdp2", "zero3"])
def test_adapters_of_divided_weights_are_gathered_and_merged(
    config: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    needs(config)
    lora = {"model": {"lora": {"r": 4, "alpha": 8}}, "training": {"learning_rate": 1e-2}}
    done = launch(config, "sft", write_recipe(tmp_path, tiny_model_dir, name="two", **lora))
    assert done.status == 0, done.said
    alone("sft", write_recipe(tmp_path, tiny_model_dir, name="one", accumulate=2, **lora))
    before = weights(tiny_model_dir)
    two, one = (weights(tmp_path / name / "final") for name in ("two", "one"))
    assert before.keys() == two.keys()
    assert {n for n in two if not two[n].equal(before[n])} == {n for n in two if "_proj" in n}
    assert max(float((two[n] - one[n]).abs().max()) for n in two) < 1e-4
