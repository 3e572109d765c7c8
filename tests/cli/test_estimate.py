"""``rank-rl check``: what a view costs, against prompts counted one by one."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from rank_rl import formats
from rank_rl.cli.app import app
from rank_rl.cli.estimate import duration, prompt_tokens, size
from rank_rl.models.counting import Words, token_counter
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import FormatSpec

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


def test_an_estimate_that_fails_is_one_line(tmp_path: Path, tiny_model_dir: Path) -> None:
    shown = said(recipe(tmp_path, tiny_model_dir, load_best_model_at_end=True), "--no-measure")
    assert "one step: not estimated (RecipeError: training: --load_best_model_at_end" in shown
    assert "Traceback" not in shown
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
