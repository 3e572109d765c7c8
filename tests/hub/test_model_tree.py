"""What goes into a model repository, what stays, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
import yaml
from runs import Run

from rank_rl.errors import DataError, ModelError, RankRLError, RecipeError
from rank_rl.hub.contract import PromptContract
from rank_rl.hub.model import ModelOptions, model_tree
from rank_rl.hub.tree import Tree
from rank_rl.models.sources import fingerprint

TOKEN = "hf_" + "Zz9" * 12


def tree(run: Run, scratch: Path, **options) -> Tree:
    known = {"checkpoint": run.checkpoint, "repo": "me/tiny", "benches": (run.bench,)}
    return model_tree(ModelOptions(**{**known, **options}), scratch)


def text(made: Tree, path: str) -> str:
    source = next(item.source for item in made.items if item.path == path)
    return (source if isinstance(source, bytes) else source.read_bytes()).decode()


def names(made: Tree) -> set[str]:
    return {item.path for item in made.items}


def test_everything_of_a_run_goes_and_nothing_else(finished: Run, tmp_path: Path):
    made = tree(finished, tmp_path)
    assert names(made) == {
        *("README.md", "rank_rl.json", "published.json", "provenance.json"),
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        *("recipe.yaml", "training_log.jsonl"),
        *("training/1-score/recipe.yaml", "training/1-score/training_log.jsonl"),
        *("bench/rivers/result.json", "bench/rivers/report.html"),
        *("bench/rivers/runs/trained.trec", "bench/rivers/completions/trained.parquet"),
    }
    left = ("notes.txt", "optimizer.pt", "rng_state.pth", "training_args.bin")
    assert made.left_out == left


def test_the_same_files_give_the_same_bytes(finished: Run, tmp_path: Path):
    first, second = tree(finished, tmp_path / "a"), tree(finished, tmp_path / "b")
    assert [(i.path, i.sha256()) for i in first.items] == [
        (i.path, i.sha256()) for i in second.items
    ]


def test_no_file_names_a_place_of_this_machine(finished: Run, tmp_path: Path):
    made = tree(finished, tmp_path)
    for item in made.items:
        if not item.path.endswith((".safetensors", ".parquet")):
            assert str(finished.root) not in text(made, item.path), item.path
    recipe = yaml.safe_load(text(made, "recipe.yaml"))
    assert recipe["data"]["path"] == "data/rivers.jsonl"
    log = [json.loads(line) for line in text(made, "training_log.jsonl").splitlines()]
    assert log[-1]["saved"] == "sft/final" and log[0]["loss"] == 1.0
    stages = json.loads(text(made, "provenance.json"))["stages"]
    assert [s["stage"] for s in stages] == ["score", "sft"]
    assert stages[1]["command"] == "rank_rl/__main__.py sft recipes/sft.yaml"
    result = json.loads(text(made, "bench/rivers/result.json"))
    assert "/m/river/1" in result["per_query"]["trained"]["ndcg@10"]
    page = text(made, "bench/rivers/report.html")
    assert str(Path.cwd()) not in page and "/etc/river/notes" in page


def test_completions_are_rows_with_their_texts_untouched(finished: Run, tmp_path: Path):
    import io

    from pyarrow import parquet

    made = tree(finished, tmp_path)
    path = "bench/rivers/completions/trained.parquet"
    data = next(i.source for i in made.items if i.path == path)
    assert isinstance(data, bytes)
    asked, note = parquet.read_table(io.BytesIO(data)).to_pylist()
    assert asked["messages"] == [{"role": "user", "content": "see /etc/river/notes"}]
    assert (asked["qid"], asked["text"], asked["order"]) == ("q1", "[1] yes\n[2] no", ["d1", "d2"])
    assert json.loads(asked["slots"]) == {"1": {" no": -2.0, " yes": -0.1}}
    assert json.loads(asked["answer"])["values"] == {"d1": 1.9}
    assert (note["explains"], note["note"], note["messages"]) == ("d1", "It says so.", None)


def test_vocabularies_that_are_no_text_go_as_they_are(own: Run, tmp_path: Path):
    data = b"\x0a\x0f\xff\xfe" + bytes(range(256))
    (own.checkpoint / "tokenizer.model").write_bytes(data)
    made = tree(own, tmp_path)
    assert next(i.source for i in made.items if i.path == "tokenizer.model") == (
        own.checkpoint / "tokenizer.model"
    )


def test_questions_and_answers_can_stay(finished: Run, tmp_path: Path):
    made = names(tree(finished, tmp_path, completions=False))
    assert "bench/rivers/result.json" in made and "bench/rivers/runs/trained.trec" in made
    assert not any("completions" in name or name.endswith(".html") for name in made)


def test_a_contract_with_an_absolute_base_is_whole_after_it_was_shortened(own: Run, tmp_path: Path):
    contract = PromptContract.read(own.checkpoint)
    from dataclasses import replace

    replace(contract, base_model=str(own.root / "outputs/score/final")).write(own.checkpoint)
    made = tree(own, tmp_path, benches=())
    (tmp_path / "rank_rl.json").write_text(text(made, "rank_rl.json"))
    assert PromptContract.read(tmp_path).base_model == "score/final"


def put(name: str, content: str) -> Callable[[Run], object]:
    return lambda run: (run.checkpoint / name).write_text(content)


def pickled(run: Run) -> None:
    (run.checkpoint / "model.safetensors").unlink()
    (run.checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}))


def renamed(run: Run) -> None:
    (run.checkpoint / "model.safetensors").write_bytes(pickle.dumps({"w": 1}))


def logged(run: Run) -> None:
    log = run.checkpoint.parent / "training_log.jsonl"
    log.write_text(log.read_text() + json.dumps({"step": 4, "note": TOKEN}) + "\n")


def answered(run: Run) -> None:
    file = run.bench / "exchanges" / "trained.jsonl"
    file.write_text(file.read_text().replace("which river?", TOKEN))


def in_weights(run: Run) -> None:
    from safetensors.torch import load_file, save_file

    file = str(run.checkpoint / "model.safetensors")
    save_file(load_file(file), file, metadata={"format": "pt", "note": TOKEN})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pickled, r"weights are pickled \(pytorch_model\.bin\); expected safetensors"),
        (renamed, "not a safetensors file"),
        (lambda run: (run.checkpoint / "model.safetensors").unlink(), "no weights"),
        (logged, r"training_log\.jsonl: line 4 holds a Hugging Face token"),
        (answered, r"exchanges/trained\.jsonl: line 1 holds a Hugging Face token"),
        (in_weights, r"model\.safetensors: line 1 holds a Hugging Face token"),
        (put("generation_config.json", "{"), r"generation_config\.json: cannot be read"),
        (put("config.json", '{"api_key": "abcd1234efgh"}'), r"config\.json: line 1 holds a key"),
    ],
)
def test_what_is_not_safe_to_publish_is_refused(own: Run, tmp_path: Path, change, words):
    change(own)
    # The fingerprint of changed files is another one, which the benchmark did not measure.
    benches = (own.bench,) if change in (answered, logged) else ()
    with pytest.raises(RankRLError, match=words) as refused:
        tree(own, tmp_path, benches=benches)
    assert TOKEN not in refused.value.line() and "abcd1234" not in refused.value.line()


def test_a_benchmark_of_other_files_is_refused(own: Run, tmp_path: Path):
    (own.checkpoint / "generation_config.json").write_text('{"top_k": 3}')
    mark = fingerprint(own.checkpoint)
    with pytest.raises(DataError, match=f"no system of this benchmark.*files:{mark}"):
        tree(own, tmp_path)
    with pytest.raises(DataError, match=r"no result\.json"):
        tree(own, tmp_path, benches=(own.root,))


def test_a_folder_of_several_collections_counts_as_many(own: Run, tmp_path: Path):
    for name in ("lakes", "seas"):
        data = {"name": name, "queries": 12}
        runs.bench(own.root / "several" / name, own.checkpoint, collection=data)
    made = names(tree(own, tmp_path, benches=(own.root / "several", own.bench)))
    assert {f"bench/{n}/result.json" for n in ("lakes", "seas", "rivers")} <= made


def test_options_that_do_nothing_are_refused(finished: Run, tmp_path: Path):
    with pytest.raises(RecipeError, match="--merge: nothing to merge"):
        tree(finished, tmp_path, merge=True)
    with pytest.raises(RecipeError, match="--base-model"):
        tree(finished, tmp_path, base_model="base")
    with pytest.raises(RecipeError, match="--license-link"):
        tree(finished, tmp_path, licence_link="https://x.org")
    with pytest.raises(ModelError, match="no such folder"):
        tree(finished, tmp_path, checkpoint=tmp_path / "nowhere")
