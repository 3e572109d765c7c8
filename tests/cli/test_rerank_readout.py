"""``rank-rl rerank --readout``: the checkpoint's readout unless another one is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.hub.contract import PromptContract
from rank_rl.specs import FormatSpec, StrategySpec

DOCUMENTS = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]


@pytest.fixture
def checkpoint(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A checkpoint that was validated by its decoded labels."""
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "final"))
    fmt = formats.make(FormatSpec(name="slots"))
    PromptContract.of(fmt, StrategySpec(name="by_score"), readout="decoded").write(folder)
    return folder


def ranked(checkpoint: Path, *options: str) -> tuple[list[str], list[float]]:
    """Ids and scores of the five documents as printed."""
    documents = checkpoint.parent / "documents.txt"
    documents.write_text("\n".join(DOCUMENTS))
    given = ["--model", str(checkpoint), "--query", "who?", "--documents", str(documents)]
    result = CliRunner().invoke(app, ["rerank", *given, "--no-explain", "--json", *options])
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [row["docid"] for row in rows], [row["score"] for row in rows]


def test_the_checkpoints_readout_is_kept_and_can_be_changed(checkpoint: Path) -> None:
    # The untrained model decodes no label, so that its decoded ranking is the order given.
    assert ranked(checkpoint)[0] == ["1", "2", "3", "4", "5"]
    assert ranked(checkpoint, "--readout", "auto") == ranked(checkpoint)
    ids, scores = ranked(checkpoint, "--readout", "expected")
    assert all(0 < score < 1 for score in scores) and ids != ["1", "2", "3", "4", "5"]
    assert ids == ranked(checkpoint, "--readout", "score")[0]


def test_a_model_without_contract_is_asked_in_the_format_named(tiny_model_dir: Path) -> None:
    given = ["rerank", "--model", str(tiny_model_dir), "--query", "q", "--documents", "-"]
    result = CliRunner().invoke(app, given, input="one\ntwo\n")
    assert result.exit_code == 2 and "e.g. rerank --format slots" in result.stderr
    options = ["--no-explain", "--json", "--format"]
    result = CliRunner().invoke(app, [*given, *options, "slots"], input="one\ntwo\n")
    assert result.exit_code == 0, result.stderr
    assert sorted(json.loads(line)["docid"] for line in result.stdout.splitlines()) == ["1", "2"]
    result = CliRunner().invoke(app, [*given, *options, "slot"], input="one\ntwo\n")
    assert result.exit_code == 2 and "nearest: slots" in result.stderr


def test_an_unknown_readout_is_one_line(checkpoint: Path) -> None:
    given = ["--model", str(checkpoint), "--query", "q", "--documents", "-", "--readout", "greedy"]
    result = CliRunner().invoke(app, ["rerank", *given], input="one\ntwo\n")
    assert result.exit_code == 2
    assert "readout 'greedy'" in result.stderr and "one of auto, score, expected" in result.stderr
    assert result.stderr.count("\n") == 1


def test_guided_scores_of_a_checkpoint(checkpoint: Path) -> None:
    """A checkpoint validated by guided scores is used that way; its integers can be had too."""
    fmt = formats.make(FormatSpec(name="scores", mode="answer", params={"max": 9, "quote": 3}))
    strategy = StrategySpec(name="groups", params={"size": 2})
    PromptContract.of(fmt, strategy, readout="guided").write(checkpoint)
    ids, scores = ranked(checkpoint)
    assert sorted(ids) == ["1", "2", "3", "4", "5"]
    assert all(0 < score < 9 for score in scores) and len(set(scores)) == 5
    # Free decoding of an untrained model is no answer: the order given, without scores.
    assert ranked(checkpoint, "--readout", "decoded")[0] == ["1", "2", "3", "4", "5"]
