"""recipes/own_data with the files that its README shows, for each of its three data sources."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rank_rl import data
from rank_rl.cli.app import app
from rank_rl.recipe import load

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "own_data"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds the recipes and every file of the README's examples."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECIPES, "recipes")
    shutil.copytree(ROOT / "accelerate_configs", "accelerate_configs")
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^`(data/\S+)`[^\n]*\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for name, content in shown:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, encoding="utf-8")
    return tmp_path


def choose(source: str) -> None:
    """Uncomment a data source of common.yaml in place of the one that is set."""
    path = Path("recipes/common.yaml")
    rows = path.read_text(encoding="utf-8").splitlines()
    start = rows.index(f"  # source: {source}")
    end = next(i for i in range(start, len(rows)) if not rows[i].startswith(("  # ", "  #  ")))
    end = next((i for i in range(start, end) if rows[i].startswith("  # Or")), end)
    rows[start:end] = [row.replace("  # ", "  ", 1) for row in rows[start:end]]
    kept = [row for row in rows if row not in ("  source: beir", "  path: data/my_collection")]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")


def check(stage: str, model: Path, *overrides: str) -> str:
    sets = [part for item in (f"model.name={model}", *overrides) for part in ("--set", item)]
    result = CliRunner().invoke(app, ["check", f"recipes/{stage}.yaml", *sets])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("source", "folder", "first_stage"),
    [
        ("beir", "my_collection", "BM25 (bm25s, Lucene scoring, k1 0.9, b 0.4, Snowball stemmer)"),
        ("trec", "my_trec", "run, first 20"),
        ("jsonl", "my_tasks", "order of the file"),
    ],
)
def test_every_source(
    here: Path, tiny_model_dir: Path, source: str, folder: str, first_stage: str
) -> None:
    if source != "beir":
        choose(source)
    said = check("score", tiny_model_dir)
    assert "training: 8 arguments fit the score stage" in said
    assert "<user> Question: who wrote" in said
    assert "Relevant: yes" in said and "Relevant: no" in said
    spec = load("recipes/score.yaml").spec
    found = data.load(spec.data, seed=0)
    assert found.provenance["first_stage"].startswith(first_stage)
    assert {t.query.qid for t in found.test} == ({"q2", "q4"} if source == "jsonl" else {"q2"})
    hashed = found.provenance["files"]
    assert len(hashed) == len([f for f in (here / "data" / folder).rglob("*") if f.is_file()])


@pytest.mark.parametrize("stage", ["sft", "grpo", "bench"])
def test_every_stage(here: Path, tiny_model_dir: Path, stage: str) -> None:
    explained = ["format.mode=reason", "bench.systems.5.explain=1"] if stage == "bench" else []
    said = check(stage, tiny_model_dir, *explained)
    assert "1 call showing 2 documents" in said
    assert ("arguments fit the" in said) == (stage != "bench")
    assert ("rewards (between 0.00 and 1.20)" in said) == (stage == "grpo")
    assert ("bench system '+ grpo': 1 explanations more" in said) == (stage == "bench")


def test_a_trec_collection_without_a_run(here: Path) -> None:
    choose("trec")
    spec = load("recipes/score.yaml", ["data.params.run=null"]).spec
    found = data.load(spec.data, seed=0)
    assert found.test[0].docids == ("d2", "d1")
    assert found.provenance["first_stage"].endswith("first 20 of the corpus")


def test_one_qrels_file_for_all_queries(here: Path) -> None:
    qrels = here / "data" / "my_collection" / "qrels"
    rows = [line for f in sorted(qrels.iterdir()) for line in f.read_text().splitlines()[1:]]
    shutil.rmtree(qrels)
    (qrels.parent / "qrels.tsv").write_text("\n".join(rows) + "\n")
    spec = load("recipes/score.yaml", ["data.params.test_share=0.5"]).spec
    found = data.load(spec.data, seed=0)
    assert (len(found.train), len(found.test)) == (1, 1)
