"""The prompt contract: whole, unedited, and still in the installed wording."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.generation.readout import readout_for
from rank_rl.hub.contract import PromptContract
from rank_rl.specs import FormatSpec, StrategySpec

FORMAT = formats.make(FormatSpec(name="scores", mode="reason", doc_tokens=20, params={"max": 9}))


def contract(**known) -> PromptContract:
    return PromptContract.of(
        FORMAT, StrategySpec(name="groups", params={"size": 5}), recipe_hash="abc", **known
    )


def test_written_and_read_back(tmp_path):
    one = contract(stage="grpo", base_model="pip:x", extra={"validation": {"ndcg@10": 0.5}})
    one.write(tmp_path)
    again = PromptContract.read(tmp_path)
    assert again == one and again.hash == one.hash
    assert (again.mode, again.readout) == ("reason", "decoded")
    again.check(FORMAT)


def test_the_readout_is_resolved_and_has_to_fit_the_format():
    slots = formats.make(FormatSpec(name="slots"))
    assert PromptContract.of(slots, StrategySpec(name="by_score")).readout == "score"
    assert contract(readout="expected").readout == "expected"
    orders = formats.make(FormatSpec(name="permutation"))
    with pytest.raises(RecipeError, match=r"readout 'expected' with.*one of auto, decoded"):
        PromptContract.of(orders, StrategySpec(), readout="expected")


def test_a_contract_of_the_first_days_is_read(tmp_path):
    former = replace(contract(), readout="text")
    former.write(tmp_path)
    again = PromptContract.read(tmp_path)
    assert again.hash == former.hash
    assert readout_for(FORMAT, again.readout) == "decoded"


def test_everything_counts_in_the_hash():
    assert contract().hash != contract(stage="sft").hash
    assert contract().hash != replace(contract(), version="scores/default@999").hash
    assert contract().hash == contract().hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {**c, "strategy": {"name": "single", "params": {}}}, "hash does not match"),
        (lambda c: {k: v for k, v in c.items() if k != "format"}, "cannot be read"),
        (lambda c: {**c, "format": {**c["format"], "doc_tokens": -1}}, "cannot be read"),
    ],
)
def test_an_edited_contract_is_refused(tmp_path, change, words):
    path = contract().write(tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ModelError, match=words):
        PromptContract.read(tmp_path)


def test_missing_and_damaged_files_are_one_line(tmp_path):
    with pytest.raises(ModelError, match="is missing"):
        PromptContract.read(tmp_path)
    (tmp_path / "rank_rl.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        PromptContract.read(tmp_path)


def test_another_wording_is_refused():
    with pytest.raises(
        ModelError, match=r"trained with wording old/default@1, installed is scores"
    ):
        replace(contract(), version="old/default@1").check(FORMAT)
