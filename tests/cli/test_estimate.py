"""``rank-rl check``: what a view costs, against prompts counted one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.cli.estimate import duration, prompt_tokens, size
from rank_rl.hub.contract import PromptContract
from rank_rl.models.counting import Words, token_counter
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import FormatSpec, StrategySpec

TEXTS = ("The film was made in the town.", "The river runs.", "It does not say who.")
QUERY = Query(qid="q", text="where was the film made?")
VIEW = numbered(
    QUERY, [Candidate(docid=str(i), text=text, rank=i) for i, text in enumerate(TEXTS, 1)]
)


def test_label_slots_share_their_beginning(tiny_model_dir: Path) -> None:
    tokens, said = token_counter(str(tiny_model_dir))
    assert said == f"counted with the tokenizer of {tiny_model_dir}"
    fmt = formats.make(FormatSpec(name="slots"))
    alone = [tokens.count_prompt(prompt) for prompt in fmt.prompts(VIEW)]
    prefix, _ = tokens.encode_slots(fmt.slots(VIEW))
    assert len(prefix) > 20
    assert prompt_tokens(VIEW, fmt, tokens, alone=True) == sum(alone)
    assert prompt_tokens(VIEW, fmt, tokens) == sum(alone) - 2 * len(prefix)


def test_a_list_is_one_prompt(tiny_model_dir: Path) -> None:
    tokens, _ = token_counter(str(tiny_model_dir))
    fmt = formats.make(FormatSpec(name="permutation"))
    (prompt,) = fmt.prompts(VIEW)
    assert prompt_tokens(VIEW, fmt, tokens) == tokens.count_prompt(prompt)


def test_a_model_that_is_not_there_yet_is_counted_in_words() -> None:
    tokens, said = token_counter("outputs/none/score/final")
    assert isinstance(tokens, Words)
    assert said.startswith("counted in words, because outputs/none/score/final is not there yet")
    fmt = formats.make(FormatSpec(name="slots"))
    packed, alone = (prompt_tokens(VIEW, fmt, tokens, alone=alone) for alone in (False, True))
    shared = len(f"{fmt.slots(VIEW).system} {fmt.slots(VIEW).head}".split())
    assert packed == alone - 2 * shared


def recipe(folder: Path, model: Path | str, **training: object) -> Path:
    tasks = [
        {
            "qid": f"q{n}",
            "query": "where was the film made?",
            "split": "train",
            "candidates": [
                {"docid": str(i), "text": text, "score": 9.0 - i} for i, text in enumerate(TEXTS)
            ],
            "grades": {"0": 1},
        }
        for n in range(3)
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tasks))
    content = {
        "run": {"name": "r", "output_dir": str(folder / "out")},
        "model": {"name": str(model), "autocast": "off"},
        "data": {
            "source": "jsonl",
            "path": str(folder / "tasks.jsonl"),
            "validation": 0.0,
            "test_split": "",
            "first_stage": {"name": "given"},
        },
        "format": {"name": "slots"},
        "training": {"max_steps": 7, **training},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def said(path: Path, *more: str) -> str:
    result = CliRunner().invoke(app, ["check", str(path), "--stage", "score", *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_check_says_what_a_step_takes(tmp_path: Path, tiny_model_dir: Path) -> None:
    shown = said(recipe(tmp_path, tiny_model_dir))
    assert "one step of stage score, estimated for one process (CPU, " in shown
    assert "at the peak: process 0.8 GB, weights " in shown
    assert "whole run: 7 steps " in shown and "no validation" in shown


def test_check_without_measuring(tmp_path: Path, tiny_model_dir: Path) -> None:
    shown = said(recipe(tmp_path, tiny_model_dir), "--no-measure")
    assert "tokens packed" in shown and "at least " in shown
    assert "seconds and activations: not measured" in shown
    assert "whole run" not in shown


def test_what_the_stage_refuses_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    path = recipe(tmp_path, tiny_model_dir, load_best_model_at_end=True)
    found = CliRunner().invoke(app, ["check", str(path), "--stage", "score", "--no-measure"])
    assert found.exit_code == 2
    assert "error: training: --load_best_model_at_end" in found.stderr
    shown = said(recipe(tmp_path, "outputs/none/score/final"))
    assert "one step: not estimated, because the model is not there yet" in shown


def test_numbers_as_a_reader_wants_them() -> None:
    seconds = (0.034, 4.24, 14.2, 120, 2820, 9000)
    assert [duration(s) for s in seconds] == [
        "0.034 s",
        "4.2 s",
        "14 s",
        "2 min",
        "47 min",
        "2.5 h",
    ]
    assert [size(n) for n in (3.2e6, 6.13e9)] == ["3 MB", "6.1 GB"]


def changed(path: Path, **sections: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **sections}))
    return path


def test_explanations_are_as_long_as_the_bench_writes_them(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    slots = FormatSpec(name="slots", mode="reason")
    saved = Path(shutil.copytree(tiny_model_dir, tmp_path / "final"))
    contract = PromptContract.of(formats.make(slots), StrategySpec(), max_new_tokens=70)
    contract.write(saved)
    skips = Path(shutil.copytree(tiny_model_dir, tmp_path / "skips"))
    PromptContract.of(formats.make(slots), StrategySpec(), reasoning="skip").write(skips)
    rows = {
        "own": {"model": str(tiny_model_dir), "max_new_tokens": 5},
        "saved": {"model": str(saved)},
        "later": {"model": "outputs/none/grpo/final"},
        "quiet": {"model": str(skips)},
    }
    systems = [{"name": n, "kind": "slots", "explain": 2, **row} for n, row in rows.items()]
    fmt = slots.model_dump(mode="json")
    path = recipe(tmp_path, tiny_model_dir)
    changed(path, format=fmt, eval={"max_new_tokens": 9}, bench={"systems": systems})
    found = CliRunner().invoke(app, ["check", str(path), "--no-measure"])
    assert found.exit_code == 0, found.output
    lines = [" ".join(t.split()) for t in found.output.splitlines() if "bench system" in t]
    assert len(lines) == 3  # no explanation of what skips its reasoning
    by_name = dict(zip(("own", "saved", "later"), lines, strict=True))
    assert all(f"'{name}': 6 explanations" in text for name, text in by_name.items())
    assert "at most 30 new ones" in by_name["own"] and "at most 420 new" in by_name["saved"]
    assert by_name["later"].endswith(
        "at most 1,536 new ones (256 each, if its checkpoint says nothing else)"
    )


def test_stage_rank_is_estimated_for_its_split(tmp_path: Path, tiny_model_dir: Path) -> None:
    path = recipe(tmp_path, tiny_model_dir)
    tasks = [json.loads(row) for row in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    tasks += [{**tasks[0], "qid": "t", "query": "who?", "split": "test"}]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tasks))
    data = {**json.loads(path.read_text())["data"], "test_split": "test"}
    changed(path, data=data, rank={"split": "train"})
    (tmp_path / "pipeline.yaml").write_text(
        "name: x\nlaunch: cpu.yaml\nstages: [{stage: rank, recipe: recipe.yaml}]\n"
    )

    def shown(*more: str) -> str:
        found = CliRunner().invoke(app, ["check", str(path), "--no-measure", *more])
        assert found.exit_code == 0, found.output
        return found.output

    assert "ranking train: 3 queries with by_score" in shown()
    assert "3 queries: 3 calls showing 9 documents" in shown()
    assert "one evaluation of 1 queries" in shown("--stage", "score")
    test = shown("--set", "rank.split=test")
    assert "ranking test: 1 queries with by_score" in test and "1 query: 1 call showing" in test
    # The length is that of a checkpoint that says nothing, not of validation.
    named = {"format.name": "permutation", "eval.strategy.name": "single"}
    lists = shown(*[word for k, v in named.items() for word in ("--set", f"{k}={v}")])
    assert "3 queries: 3 calls" in lists and "at most 768 new ones" in lists
    fixed = shown("--set", "rank.strategy={name: by_score, params: {size: 1}}")
    assert "3 queries: 9 calls" in fixed
