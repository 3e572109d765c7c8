"""Pass rates of the start model: what is asked, written, taken up again and left out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stage_runs import STOP, in_two_processes, interrupted
from stage_runs import training as longer

from rank_rl import rewards
from rank_rl.data.curriculum import Rated, view_key
from rank_rl.data.rows import view_of
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Completion, Grades, Order, Outcome, View
from rank_rl.specs import RecipeSpec
from rank_rl.training import common, grpo_text, pass_rates

Recipe = Callable[..., RecipeSpec]
ALWAYS, NEVER = ("train1", "train5"), ("train0", "train2", "train3")
ASKED: list[str] = []
training = partial(longer, max_completion_length=20)


class Planted:
    """Pays 1 or 0 by the query, so that the pass rates of a model are known beforehand."""

    name = "planted"
    bounds = (0.0, 1.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float:
        if not completion.completion_tokens:  # copy and ceiling, not an answer
            assert isinstance(outcome.answer, Order)
            return float(bool(grades[outcome.answer.docids[0]]) and outcome.answer.docids[0] != "")
        if STOP["after"] == 0:
            raise KeyboardInterrupt
        STOP["after"] -= 1
        ASKED.append(view.query.qid)
        if view.query.qid in (*ALWAYS, *NEVER):
            return float(view.query.qid in ALWAYS)
        return float(sum(map(ord, completion.text)) % 2)


def spec_of(recipe: Recipe, **keys: Any) -> RecipeSpec:
    return recipe(
        rewards=[{"name": "test_pass_rates:Planted"}],
        training=training(),
        grpo={"pass_rate": {"samples": 3, "threshold": 1.0, **keys}},
    )


def prepared(spec: RecipeSpec) -> tuple[common.Stage, list[dict[str, Any]], Any, Any]:
    stage = common.begin("grpo", spec, {})
    composite = rewards.make(spec.rewards)
    rows, longest, _ = grpo_text.training_rows(stage)
    return stage, rows, composite, grpo_text.arguments(stage, list(composite.weights), longest)


def selected(spec: RecipeSpec) -> tuple[list[str], dict[str, Any]]:
    """Queries of the rows that are kept, in their order, and the report."""
    ASKED.clear()
    rows, report = pass_rates.select(*prepared(spec))
    return [row["qid"] for row in rows], report.get("pass_rate", {})


def lines(spec: RecipeSpec) -> list[dict[str, Any]]:
    text = (Path(spec.run.output_dir) / pass_rates.FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def planted(spec: RecipeSpec, path: Path, rates: dict[str, tuple[float, ...]]) -> str:
    """A file of rates for the rows of a recipe."""
    with path.open("w", encoding="utf-8") as file:
        for row in prepared(spec)[1]:
            key = view_key(view_of(row)[0])
            one = Rated(key=key, qid=row["qid"], totals=rates[row["qid"]], copy=0.0, ceiling=1.0)
            file.write(json.dumps(one.record()) + "\n")
    return str(path)


def test_rows_that_the_model_never_or_always_solves_are_left_out(recipe: Recipe) -> None:
    spec = spec_of(recipe)
    before = [row["qid"] for row in prepared(spec)[1]]
    kept, report = selected(spec)
    assert len(ASKED) == 3 * 8 and len(before) == 8
    rates = {r["qid"]: sum(r["totals"]) / 3 for r in lines(spec)[1:]}
    assert {q for q, r in rates.items() if r == 1} >= set(ALWAYS)
    assert {q for q, r in rates.items() if r == 0} >= set(NEVER)
    assert kept == [qid for qid in before if 0 < rates[qid] < 1] and 0 < len(kept) <= 3
    assert report["kept"] == len(kept) and report["rows"] == 8 and json.dumps(report)
    # Answers to one row are different draws.
    free = selected(spec_of(recipe, low=None, high=None))[0]
    assert free == before and not ASKED  # bounds can be changed without asking again


def test_a_killed_measurement_goes_on_where_it_was(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pass_rates, "CHUNK", 2)
    spec = spec_of(recipe)
    whole, _ = selected(spec)
    found = lines(spec)
    path = Path(spec.run.output_dir) / pass_rates.FILE
    path.unlink()
    ASKED.clear()
    interrupted(lambda: pass_rates.select(*prepared(spec)), 14)
    assert len(lines(spec)) == 1 + 4  # two whole chunks of two rows, three answers each
    with path.open("a") as file:
        file.write('{"key": "cut sho')
    first = set(ASKED[:12])
    again, _ = selected(spec)
    assert again == whole and lines(spec) == found
    assert len(ASKED) == 12 and not first & set(ASKED)
    assert selected(spec)[0] == whole and not ASKED


def test_rates_of_other_rewards_are_not_taken_up(recipe: Recipe) -> None:
    spec = spec_of(recipe)
    selected(spec)
    other = recipe(
        rewards=[{"name": "test_pass_rates:Planted", "weight": 2.0}],
        training=training(),
        grpo={"pass_rate": {"samples": 3, "threshold": 1.0}},
    )
    selected(other)
    assert len(ASKED) == 24 and lines(other)[0] != {"identity": ""} and len(lines(other)) == 9
    assert {total for r in lines(other)[1:] for total in r["totals"]} == {0.0, 2.0}


SCRIPT = """
import json, sys
from pathlib import Path
from rank_rl.specs import RecipeSpec
from rank_rl.training import pass_rates
from test_pass_rates import ASKED, prepared, selected

pass_rates.CHUNK = 2
folder = Path(sys.argv[1])
spec = RecipeSpec.model_validate_json((folder / "spec.json").read_text())
kept, report = selected(spec)
from accelerate import PartialState
name = f"rank{PartialState().process_index}.json"
(folder / name).write_text(json.dumps({"kept": kept, "asked": ASKED}))
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_processes_divide_the_work_and_agree(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pass_rates, "CHUNK", 2)
    spec = spec_of(recipe)
    alone, _ = selected(spec)
    written = lines(spec)
    changed = {"output_dir": str(tmp_path / "two")}
    two = spec.model_copy(
        update={
            "run": spec.run.model_copy(update=changed),
            "training": {**spec.training, "use_cpu": True},
        }
    )
    parts = in_two_processes(SCRIPT, two, tmp_path)
    assert parts[0]["kept"] == parts[1]["kept"] == alone
    assert [len(part["asked"]) for part in parts] == [12, 12]
    assert not set(parts[0]["asked"]) & set(parts[1]["asked"])
    assert lines(two) == written and len(list((tmp_path / "two").glob("pass_rates*"))) == 1


RATES = {
    "train0": (1, 1, 1, 1),
    "train1": (0, 0, 0, 0),
    "train2": (1, 0, 0, 0),
    "train3": (1, 1, 1, 0),
    "train4": (1, 1, 0, 0),
    "train5": (0, 0, 0, 0),
    "train6": (1, 1, 0.9, 0),
    "train7": (1, 1, 1, 1),
}


def test_planted_rates_drop_and_order_exactly_the_planted_rows(
    recipe: Recipe, tmp_path: Path
) -> None:
    file = planted(spec_of(recipe), tmp_path / "rates.jsonl", RATES)
    before = [row["qid"] for row in prepared(spec_of(recipe))[1]]
    kept = selected(spec_of(recipe, file=file))[0]
    assert kept == [q for q in before if q in ("train2", "train3", "train4", "train6")]
    assert not ASKED
    easy = selected(spec_of(recipe, file=file, order="easy_first"))[0]
    assert easy == ["train3", "train6", "train4", "train2"]
    hard = selected(spec_of(recipe, file=file, order="hard_first", high=None))[0]
    assert hard[:4] == ["train2", "train4", "train6", "train3"]
    assert set(hard[4:]) == {"train0", "train7"}


def test_training_sees_the_rows_in_the_planted_order(recipe: Recipe, tmp_path: Path) -> None:
    file = planted(spec_of(recipe), tmp_path / "rates.jsonl", RATES)
    ASKED.clear()
    spec = recipe(
        rewards=[{"name": "test_pass_rates:Planted"}],
        training=training(max_steps=4),
        grpo={"pass_rate": {"threshold": 1.0, "file": file, "order": "easy_first"}},
        data={"validation_split": None, "validation": 0.0},
    )
    summary = grpo_text.run(spec, {})
    assert ASKED[::4] == ["train3", "train6", "train4", "train2"] and len(ASKED) == 16
    assert summary["metrics"]["rows"]["pass_rate"]["kept"] == 4


def test_an_order_without_answers_asks_nothing(recipe: Recipe) -> None:
    spec = spec_of(recipe, samples=0, order="easy_first", order_by="best_rank")
    kept, report = selected(spec)
    rows = {row["qid"]: row for row in prepared(spec)[1]}
    places = [rows[qid]["grades"].index(1) for qid in kept]
    assert places == sorted(places) and len(kept) == 8 and not ASKED
    assert report["kept"] == 8 and report["rates"] == {}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (dict.fromkeys(RATES, (0.0,)), r"no training row is left: rows by pass rate \{0.00: 8\}"),
        (dict.fromkeys(RATES, (1.0, 0.0)), None),
    ],
)
def test_nothing_left_is_one_readable_line(
    recipe: Recipe, tmp_path: Path, rates: dict[str, tuple[float, ...]], message: str | None
) -> None:
    spec = spec_of(recipe, file=planted(spec_of(recipe), tmp_path / "r.jsonl", rates))
    if message is None:
        assert len(selected(spec)[0]) == 8
        return
    with pytest.raises(DataError, match=message) as caught:
        selected(spec)
    assert "\n" not in str(caught.value)


def test_fewer_rows_than_a_batch_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    file = planted(spec_of(recipe), tmp_path / "r.jsonl", RATES)
    spec = recipe(
        rewards=[{"name": "test_pass_rates:Planted"}],
        training=training(gradient_accumulation_steps=5),
        grpo={"pass_rate": {"threshold": 1.0, "file": file}},
    )
    with pytest.raises(DataError, match="4 training rows are left, less than a batch of 5 prompts"):
        selected(spec)


def test_files_that_hold_no_rates_of_these_rows_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    gone = r"grpo.pass_rate.file: .*gone.jsonl' cannot be read: No such file"
    with pytest.raises(RecipeError, match=gone):
        selected(spec_of(recipe, file=str(tmp_path / "gone.jsonl")))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("no rates\n{}\n")
    with pytest.raises(RecipeError, match=r"holds no pass rates; expected a pass_rates.jsonl"):
        selected(spec_of(recipe, file=str(empty)))
    file = planted(spec_of(recipe), tmp_path / "r.jsonl", RATES)
    Path(file).write_text("".join(Path(file).read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(DataError, match="grpo.pass_rate.file .*: 3 of 8 training rows have no"):
        selected(spec_of(recipe, file=file))


def test_a_file_without_rates_is_met_before_data_and_model(recipe: Recipe, tmp_path: Path) -> None:
    spec = spec_of(recipe, file=str(tmp_path))
    model = spec.model.model_copy(update={"name": "/no/such/model"})
    data = spec.data.model_copy(update={"path": "/no/such/data"})
    with pytest.raises(RecipeError, match="grpo.pass_rate.file: .* cannot be read: Is a directory"):
        grpo_text.run(spec.model_copy(update={"model": model, "data": data}), {})


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_vllm_that_is_not_installed_is_met_before_data_and_model(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    grpo_text.check_engine({"use_vllm": False})
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "vllm" else find(name, *a)
    )
    spec = recipe(rewards=[{"name": "ndcg"}], training={"use_vllm": True, "vllm_mode": mode})
    data = spec.data.model_copy(update={"path": "/no/such/data"})
    with pytest.raises(RecipeError) as caught:
        grpo_text.run(spec.model_copy(update={"data": data}), {})
    assert str(caught.value) == (
        "training.use_vllm: vLLM is not installed "
        "(pip install 'trl[vllm]', in mode server as well, or leave it out)"
    )


def test_a_shuffling_trainer_does_not_keep_an_order(recipe: Recipe) -> None:
    spec = recipe(
        rewards=[{"name": "ndcg"}],
        training=training(shuffle_dataset=True),
        grpo={"pass_rate": {"order": "hard_first"}},
    )
    with pytest.raises(RecipeError, match=r"training.shuffle_dataset: value true"):
        grpo_text.run(spec, {})
