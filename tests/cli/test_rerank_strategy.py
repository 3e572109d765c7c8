"""``rank-rl rerank``: strategies, fusion, scores and skipped reasoning from a saved checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from encoders import save_bert
from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.cli.asked import read_params
from rank_rl.data import trec
from rank_rl.errors import RecipeError
from rank_rl.hub.contract import PromptContract
from rank_rl.specs import FormatSpec, StrategySpec

DOCUMENTS = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]


def save(folder: Path, name: str, readout: str = "auto", mode: str = "answer", **params: Any):
    """Write a contract beside the model."""
    fmt = formats.make(FormatSpec(name=name, mode=mode, params=params))
    PromptContract.of(fmt, StrategySpec(name="by_score"), readout=readout).write(folder)


@pytest.fixture
def checkpoint(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "final"))


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """The options that name a run of two queries with five documents each."""
    corpus = [json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(DOCUMENTS)]
    rows = [f"q{q} Q0 d{i} {i + 1} {9.5 - i} x" for q in (1, 2) for i in range(5)]
    for name, lines in {
        "corpus.jsonl": corpus,
        "queries.tsv": ["q1\twho is the father?", "q2\twhere is the lake?"],
        "given.trec": rows,
    }.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    files = {"--run": "given.trec", "--corpus": "corpus.jsonl", "--queries": "queries.tsv"}
    named = {**files, "--output": "new.trec"}
    return [word for option, name in named.items() for word in (option, str(tmp_path / name))]


def invoke(checkpoint: Path, *options: str) -> Any:
    result = CliRunner().invoke(app, ["rerank", "--model", str(checkpoint), *options])
    assert result.exit_code == 0, result.stderr
    return result


def ranked(checkpoint: Path, *options: str) -> list[dict[str, Any]]:
    documents = checkpoint.parent / "documents.txt"
    documents.write_text("\n".join(DOCUMENTS))
    given = ["--query", "who?", "--documents", str(documents), "--no-explain", "--json"]
    return [json.loads(row) for row in invoke(checkpoint, *given, *options).stdout.splitlines()]


@pytest.mark.parametrize(
    ("name", "params", "strategy", "more", "sizes"),
    [
        ("choice", {}, "setwise", "children=2 top_k=2", {2, 3}),
        ("choice", {"pick": "worst"}, "elimination", "{size: 3}", {2, 3}),
        ("pair", {}, "pairs", "both=false", {2}),
        ("pointwise", {}, "by_score", "size: 1", {1}),
    ],
)
def test_each_strategy_from_a_saved_checkpoint(
    checkpoint: Path,
    run: list[str],
    name: str,
    params: dict[str, Any],
    strategy: str,
    more: str,
    sizes: set[int],
) -> None:
    save(checkpoint, name, "score", **params)
    options = ["--strategy", strategy, "--strategy-params", more]
    found = ranked(checkpoint, *options)
    assert sorted(r["docid"] for r in found) == ["1", "2", "3", "4", "5"]
    assert [r["docid"] for r in found] != ["1", "2", "3", "4", "5"]
    # Decoded, the untrained model says nothing and the order given is kept.
    assert [r["docid"] for r in ranked(checkpoint, *options, "--readout", "decoded")] == [
        "1", "2", "3", "4", "5",
    ]  # fmt: skip
    # The strategy saved with the checkpoint would show all five at once.
    exchanges = checkpoint.parent / "x.jsonl"
    invoke(checkpoint, *options, *run, "--exchanges", str(exchanges))
    asked = [json.loads(row)["docids"] for row in exchanges.read_text().splitlines()]
    assert {len(docids) for docids in asked} == sizes


def test_parameters_in_both_spellings() -> None:
    wanted = {"children": 3, "top_k": None, "both": True, "name": "a b"}
    assert read_params("children=3 top_k=null both=true name='a b'") == wanted
    assert read_params("{children: 3, top_k: null, both: true, name: a b}") == wanted
    assert read_params("size: 4") == {"size": 4} and read_params("") == {}
    for text in ("children", "=3", "{a: 1", "[1, 2]", "a=1 b", "a='1"):
        with pytest.raises(
            RecipeError, match="--strategy-params: .*expected 'children=3 top_k=10'"
        ):
            read_params(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strategy", "setwize"], "unknown strategy 'setwize'"),
        (["--strategy", "sliding", "--strategy-params", "windows=3"], "windows"),
        (["--strategy", "sliding", "--strategy-params", "window=1"], "window is 1"),
        (["--strategy", "sliding", "--strategy-params", "window"], "--strategy-params"),
        (["--strategy-params", "window=3"], "only with --strategy"),
        (["--fusion", "sum"], "one of rrf, min_max, z_score"),
        (["--fusion", "rrf", "--fusion-weight", "2"], "a number from 0 to 1"),
        (["--fusion-weight", "0.5"], "only with --fusion"),
        (["--scores"], "--scores: only with --run"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], words: str) -> None:
    # The model is not there: what is wrong is found before it is loaded.
    given = ["rerank", "--model", "none", "--query", "q", "--documents", "-", *options]
    result = CliRunner().invoke(app, given, input="one\ntwo\n")
    assert result.exit_code == 2 and words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_with_fusion_scores_and_costs(checkpoint: Path, run: list[str]) -> None:
    save(checkpoint, "pointwise", "score")
    output = Path(run[-1])
    options = ["--strategy", "by_score", "--strategy-params", "size=1", *run]
    told = invoke(checkpoint, *options, "--fusion", "min_max", "--fusion-weight", "0", "--scores")
    assert "2 queries: 10 calls showing 10 documents, depth 1, about " in told.stderr
    assert "2 queries took 10 calls, depth 1, " in told.stdout and " 0 new ones, " in told.stdout
    found = trec.read_run(output)
    assert sorted(found) == ["q1", "q2"]
    values = [score for _, score in found["q1"]]
    assert values == sorted(values, reverse=True) and any(v != int(v) for v in values)
    # A weight of 0 leaves the first stage alone; the reranker's own run is another one.
    joined = trec.read_run(output.with_name("new.fused.trec"))
    assert [d for d, _ in joined["q1"]] == [f"d{i}" for i in range(5)]
    assert [d for d, _ in found["q1"]] != [f"d{i}" for i in range(5)]
    plain = invoke(checkpoint, *options)
    assert [s for _, s in trec.read_run(output)["q1"]] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert [d for d, _ in trec.read_run(output)["q1"]] == [d for d, _ in found["q1"]]
    # The tokens that were foreseen are those of a sample, here of all.
    expected = int(told.stderr.split("about ")[-1].split(" prompt")[0].replace(",", ""))
    spent = int(plain.stdout.split("depth 1, ")[1].split(" prompt")[0].replace(",", ""))
    assert expected == pytest.approx(spent, rel=0.05)


def test_scores_that_are_not_there_are_said(checkpoint: Path, run: list[str]) -> None:
    save(checkpoint, "permutation")
    given = ["rerank", "--model", str(checkpoint), "--strategy", "single", *run, "--scores"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2 and "no ranking has scores" in result.stderr
    assert sorted(trec.read_run(Path(run[-1]))) == ["q1", "q2"]


def test_the_fused_place_of_a_single_query(checkpoint: Path) -> None:
    save(checkpoint, "pointwise", "score")
    options = ["--strategy", "by_score", "--strategy-params", "size=1"]
    plain = ranked(checkpoint, *options)
    assert all("fused_rank" not in row for row in plain)
    found = ranked(checkpoint, *options, "--fusion", "rrf", "--fusion-weight", "0")
    assert [{k: v for k, v in row.items() if k != "fused_rank"} for row in found] == plain
    # Documents are numbered in the order given, which the first stage alone keeps.
    assert all(row["fused_rank"] == int(row["docid"]) for row in found)
    top = ranked(checkpoint, *options, "--fusion", "rrf", "--top-k", "2")
    assert [row["docid"] for row in top] == [row["docid"] for row in plain[:2]]


def test_a_single_query_says_what_could_not_be_read_and_what_it_cost(checkpoint: Path) -> None:
    documents = checkpoint.parent / "documents.txt"
    documents.write_text("\n".join(DOCUMENTS))
    given = ["--query", "who?", "--documents", str(documents), "--no-explain", "--json"]
    save(checkpoint, "permutation")
    told = invoke(checkpoint, *given, "--strategy", "single").stderr
    foreseen, spent = told.splitlines()
    assert foreseen.startswith("1 query: 1 call showing 5 documents, depth 1, about ")
    assert foreseen.endswith(" and at most 256 new ones")
    assert spent.startswith("1 query took 1 call, depth 1, ")
    assert told.endswith("of 1 answers 0 were repaired and 1 could not be read\n")
    save(checkpoint, "choice", pick="worst")
    message = "strategy 'setwise': the format picks the worst document"
    result = CliRunner().invoke(
        app, ["rerank", "--model", str(checkpoint), *given, "--strategy", "setwise"]
    )
    assert result.exit_code == 2 and message in result.stderr


def test_reasoning_is_skipped_on_request(checkpoint: Path, run: list[str]) -> None:
    save(checkpoint, "choice", mode="reason")
    exchanges = checkpoint.parent / "x.jsonl"
    options = ["--strategy", "single", *run, "--exchanges", str(exchanges)]
    invoke(checkpoint, *options, "--no-reasoning", "--readout", "score")
    record = json.loads(exchanges.read_text().splitlines()[0])
    assert record["prompt"]["prefill"].endswith("</think>\n<answer>")
    assert record["completion"]["completion_tokens"] == 0
    save(checkpoint, "choice")
    given = ["rerank", "--model", str(checkpoint), *options, "--no-reasoning"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2 and "has no reasoning to skip" in result.stderr


def test_a_run_is_reranked_by_a_cross_encoder(tmp_path: Path, run: list[str]) -> None:
    folder = save_bert(tmp_path / "bert", classifier=True)
    fmt = formats.make(FormatSpec(name="cross_encoder", doc_tokens=16))
    PromptContract.of(fmt, StrategySpec(name="by_score"), readout="score").write(folder)
    told = invoke(folder, *run)
    assert "2 queries: 2 calls showing 10 documents, depth 1, about " in told.stderr
    assert "2 queries took 2 calls, depth 1, " in told.stdout
    expected = int(told.stderr.split("about ")[-1].split(" prompt")[0].replace(",", ""))
    spent = int(told.stdout.split("depth 1, ")[1].split(" prompt")[0].replace(",", ""))
    assert expected == pytest.approx(spent, rel=0.05)
    assert sorted(trec.read_run(Path(run[-1]))) == ["q1", "q2"]
