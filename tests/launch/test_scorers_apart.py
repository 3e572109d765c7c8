"""Stage score with scorers in two processes: they learn what one does, and save whole scorers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import save_bert
from launching import KINDS, alone, curve, launch, needs, write_recipe

from rank_rl import formats
from rank_rl.models.scorers.loading import load_scorer
from rank_rl.specs import FormatSpec, ModelSpec

FORMATS: dict[str, dict[str, Any]] = {
    "cross_encoder": {"name": "cross_encoder", "params": {"term_control": 0.5}},
    "listwise": {"name": "embedding", "params": {"listwise": 2, "listwise_order": "own"}},
}
CELLS = [(config, case) for config in ("ddp", "fsdp2", "zero2", "zero3") for case in FORMATS]


def scorer(folder: Path, spec: dict[str, Any]) -> dict[str, torch.Tensor]:
    loaded = load_scorer(ModelSpec(name=str(folder)), formats.make(FormatSpec(**spec)))
    return {n: w for n, w in loaded.model.state_dict().items() if not n.startswith("terms.")}


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(("config", "case"), CELLS)
def test_two_processes_learn_what_one_does(config: str, case: str, tmp_path: Path) -> None:
    needs(config)
    bert = save_bert(tmp_path / "bert")
    spec = {**FORMATS[case], "doc_tokens": 16, "prompt_tokens": 128}
    sections = {
        "format": spec,
        "eval": {"strategy": {"name": "by_score"}},
        "losses": [{"name": "listnet"}],
        # Without Adam, which hides the scale of gradients: their mean and their clipping count.
        "training": {"optim": "sgd", "learning_rate": 0.1},
    }
    done = launch(config, "score", write_recipe(tmp_path, bert, name="two", **sections))
    assert done.status == 0, done.said
    summary = json.loads((tmp_path / "two" / "done.json").read_text())["summary"]
    assert summary["launch"] == {"processes": 2, "kind": KINDS[config]}
    alone("score", write_recipe(tmp_path, bert, name="one", accumulate=2, **sections))
    seen, wanted = curve(tmp_path / "two"), curve(tmp_path / "one")
    for got, expected in zip(seen, wanted, strict=True):
        shared = {k: v for k, v in expected.items() if k in got}
        assert {k: got[k] for k in shared} == pytest.approx(shared, abs=1e-4, rel=1e-4)
    two, one = (scorer(tmp_path / name / "final", spec) for name in ("two", "one"))
    assert two.keys() == one.keys()
    assert max(float((two[n] - one[n]).abs().max()) for n in one) < 1e-3
    before = scorer(bert, spec)
    assert any(not before[n].equal(two[n]) for n in before)
