"""The model card: metadata for the Hub, numbers of the run's files, unknown where it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import runs
from hub_server import card_errors
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from runs import BASE, COMMIT, Run

from rank_rl import formats
from rank_rl.hub.contract import PromptContract
from rank_rl.hub.licence import front_matter, licence, of_base
from rank_rl.hub.model import ModelOptions, model_tree
from rank_rl.models.sources import fingerprint
from rank_rl.specs import FormatSpec, StrategySpec


def card(run: Run, scratch: Path, **options: Any) -> str:
    known: dict[str, Any] = {"checkpoint": run.checkpoint, "repo": "me/tiny"}
    made = model_tree(ModelOptions(**{**known, "benches": (run.bench,), **options}), scratch)
    found = next(i.source for i in made.items if i.path == "README.md")
    assert isinstance(found, bytes)
    return found.decode()


def measured(run: Run, **changes: Any) -> None:
    """Replace the benchmark's result."""
    content = runs.result(fingerprint(run.checkpoint), **changes)
    runs.write_json(run.bench / "result.json", content)


def test_metadata_is_what_the_hub_reads(finished: Run, tmp_path: Path):
    text = card(finished, tmp_path, licence="Apache-2.0", languages=("en",), datasets=("me/data",))
    assert card_errors(text, "model") == []
    (tmp_path / "README.md").write_text(text)
    data = metadata_load(tmp_path / "README.md")
    assert data is not None
    assert data["license"] == "apache-2.0" and data["language"] == ["en"]
    assert (data["base_model"], data["base_model_relation"]) == (BASE, "finetune")
    assert data["datasets"] == ["me/data"]
    assert (data["pipeline_tag"], data["library_name"]) == ("text-ranking", "rank_rl")
    assert {"rank_rl", "reranker", "slots", "sft", "score"} <= set(data["tags"])
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "tiny" and len(results) == 2
    first = results[0]
    assert (first.task_type, first.dataset_name, first.dataset_split) == (
        *("text-ranking", "rivers"),
        "test",
    )
    assert (first.metric_type, first.metric_name, first.metric_value) == (
        *("ndcg@10", "nDCG@10"),
        0.6234,
    )
    assert ModelCard(text).data.eval_results == results
    assert str(ModelCard(text)) == text


def test_results_are_a_table_with_intervals_and_verdicts(finished: Run, tmp_path: Path):
    text = card(finished, tmp_path)
    assert "12 test queries (1 more have nothing relevant and do not count)" in text
    rows = re.findall(r"^\| (\S.*?) \| (\d\.\d{3} \(\S+\)) \|", text, re.MULTILINE)
    assert rows == [
        ("random", "0.200 (0.150–0.250)"),
        ("first stage", "0.400 (0.350–0.450)"),
        ("untrained base", "0.300 (0.250–0.350)"),
        ("**trained**", "0.623 (0.573–0.673)"),
        ("perfect order", "1.000 (0.950–1.050)"),
    ]
    assert "| +0.223, p < 0.001 | +0.040, p 0.310 | 1.0 | 812 | 0 |" in text
    assert "significantly better than *first stage* in nDCG@10: +0.223 (+0.123 to +0.323)" in text
    assert (
        "not significantly different from *untrained base* in nDCG@10: +0.040 (-0.060 to +0.140), "
        "p 0.310; these queries would show 0.080 or more." in text
    )
    assert "1.2% of its label slots could not be read" in text


def test_training_is_told_stage_by_stage(finished: Run, tmp_path: Path):
    text = card(finished, tmp_path)
    assert f"[{BASE}](https://huggingface.co/{BASE}) at `{COMMIT}`" in text
    assert text.index("| 1. score |") < text.index("| 2. sft |")
    assert "48 training queries of rivers" in text
    assert "losses label_ce × 1, 4 steps, learning rate 0.0001, seed 7, all weights" in text
    assert "ndcg@10 0.500 → 0.610 over 10 queries; first stage 0.400" in text
    assert "torch 2.13.0" in text and "`dddddddddddd`, with changes that are not in it" in text
    assert "- sft: flat at step 3: ball/b the same" in text  # names are words, not markup


def test_the_prompt_shown_is_the_one_that_rank_rl_asks(finished: Run, tmp_path: Path):
    text = card(finished, tmp_path)
    assert "<|im_start|>system\n" in text and "<|im_start|>assistant\n" in text
    assert "What may follow: ` no`, ` yes`." in text
    contract = PromptContract.read(finished.checkpoint)
    assert f"contract `{contract.hash}`" in text and f"`{contract.version}`" in text


def test_what_nobody_knows_is_unknown(own: Run, tmp_path: Path):
    for name in ("provenance.json", "done.json", "recipe.resolved.yaml"):
        (own.checkpoint.parent / name).unlink()
    text = card(own, tmp_path, benches=())
    data = front_matter(text)
    assert data["license"] == "unknown" and "base_model" not in data and "model-index" not in data
    assert "language" not in data and "datasets" not in data
    assert card_errors(text, "model") == []
    assert "Not measured: this checkpoint was published without a benchmark." in text
    assert "unknown (outputs/score/final is not here, so the walk back ends here)" in text
    assert "Languages: unknown." in text and "This checkpoint: unknown." in text
    assert "| 1. sft |" in text and "| unknown | unknown |" in text
    assert "unknown number of queries" in text


def test_counts_of_another_division_are_not_taken(own: Run, tmp_path: Path):
    recipe = own.bench / "recipe.resolved.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 7", "seed: 8"))
    text = card(own, tmp_path)
    assert "48 training queries" not in text and "unknown number of queries" in text


def test_old_results_and_other_depths_of_detail_are_read(own: Run, tmp_path: Path):
    changes: dict[str, Any] = {"schema": None, "collection": None, "minimal_difference": None}
    measured(own, **changes, comparisons=[])
    text = card(own, tmp_path)
    assert "### rivers" in text and "against" not in text.split("## How")[0]


def test_rows_and_ceilings_that_are_missing_are_told(own: Run, tmp_path: Path):
    content = runs.result(fingerprint(own.checkpoint), ceiling={"ndcg@10": 0.97})
    content["systems"] = [s for s in content["systems"] if s["kind"] == "slots"]
    runs.write_json(own.bench / "result.json", content)
    text = card(own, tmp_path)
    assert "The perfect order of the same candidates has nDCG@10 0.970." in text
    assert "No row for: first stage, random." in text


def test_one_seed_of_several_has_its_own_value(own: Run, tmp_path: Path):
    """A row's numbers are means over seeds; a checkpoint is one of them."""
    content = runs.result(fingerprint(own.checkpoint))
    row = next(s for s in content["systems"] if s["name"] == "trained")
    row["seeds"] = {"7": {"ndcg@10": 0.7, "mrr@10": 0.3}, "8": {"ndcg@10": 0.5, "mrr@10": 0.2}}
    row["model"]["revision"] = "files:other"
    runs.write_json(own.bench / "result.json", content)
    (own.bench / "documents").mkdir()
    for seed, mark in ((8, "other"), (7, fingerprint(own.checkpoint))):
        record = {"system": "trained", "seed": seed, "model": {"revision": f"files:{mark}"}}
        runs.write_json(own.bench / "documents" / f"trained.seed{seed}.json", record)
    text = card(own, tmp_path)
    index = front_matter(text)["model-index"]
    assert index[0]["results"][0]["metrics"][0]["value"] == 0.7
    assert "this checkpoint is that of seed 7: nDCG@10 0.700" in text


def test_the_row_asked_as_the_contract_says_is_the_main_one(own: Run, tmp_path: Path):
    content = runs.result(fingerprint(own.checkpoint))
    row = next(s for s in content["systems"] if s["name"] == "trained")
    other = json.loads(json.dumps(row)) | {"name": "decoded", "metrics": row["metrics"]}
    other["setting"]["readout"] = "decoded"
    other["metrics"] = {m: runs.interval(0.9) for m in row["metrics"]}
    content["systems"].insert(0, other)
    runs.write_json(own.bench / "result.json", content)
    text = card(own, tmp_path)
    assert front_matter(text)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.6234
    assert "| **decoded** |" in text and "| **trained** |" in text


def test_names_of_anybody_make_no_markup(own: Run, tmp_path: Path):
    content = runs.result(fingerprint(own.checkpoint))
    content["systems"][0]["name"] = "a|b [x](http://evil) <script>alert(1)</script>\n# Title"
    content["collection"]["name"] = content["data"]["name"] = "rivers <img src=x>"
    runs.write_json(own.bench / "result.json", content)
    text = card(own, tmp_path)
    assert "<script" not in text and "<img" not in text and "[x](" not in text
    assert "\n# Title" not in text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("My Own Licence 2.0", {"license": "other", "license_name": "my-own-licence-2.0"}),
        ("", {"license": "unknown"}),
    ],
)
def test_licences_become_what_the_hub_accepts(said: str, expected: dict[str, str]):
    assert licence(said).metadata() == expected
    linked = licence(said, "https://x.org/l").metadata()
    assert linked == expected | (
        {"license_link": "https://x.org/l"} if "license_name" in expected else {}
    )


def test_a_base_says_its_licence_on_its_card_or_in_its_package(tmp_path: Path):
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n# x\n")
    found = of_base("google/x", tmp_path)
    assert (found.id, found.source) == ("gemma", "the card of the base model")
    assert of_base("google/x", None).id == "unknown"
    assert of_base("pip:numpy", None).source in ("", "the package `numpy`")
    assert of_base("pip:no-such-package", None).id == "unknown"


def test_every_format_has_a_card_with_code_that_compiles(tiny_model_dir: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    from rank_rl.hub.example import example
    from rank_rl.hub.usage import Published, section

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    for name in (*formats.TABLE, *formats.INPUTS):
        mode = "reason" if name == "explain" else "answer"
        fmt = formats.make(FormatSpec(name=name, mode=mode))  # type: ignore[arg-type]
        contract = PromptContract.of(fmt, StrategySpec(name="single"))
        published = Published(
            name="me/x",
            revision="",
            contract=contract,
            example=example(contract, tokenizer),
            tokenizer=tokenizer,
            own_head=True,
        )
        text = "\n".join(section(published))
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert blocks, name
        for block in blocks:
            compile(block, name, "exec")
        assert ("AutoModelForCausalLM" in text) == (name in formats.TABLE), name
        assert ("from vllm import" in text) == (name in formats.TABLE), name
        if name == "pair_scores":
            assert "compared two by two" in text
