"""Validation: what is measured, which weights are kept, what is written to the log."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stage_runs import STOPPING, interrupted, learned, moved
from transformers import TrainerControl, TrainerState, TrainingArguments

from rank_rl.errors import DataError, ModelError, RecipeError, StorageError
from rank_rl.records import (
    Candidate,
    Completion,
    Exchange,
    Order,
    Outcome,
    Prompt,
    Query,
    Ranking,
    RankingTask,
    numbered,
)
from rank_rl.rerank import TaskResult
from rank_rl.specs import RecipeSpec
from rank_rl.strategies.groups import Groups
from rank_rl.training import common, score, sft
from rank_rl.training.callbacks import LogCallback, measure, stale, summarise

Recipe = Callable[..., RecipeSpec]
QUERY = Query(qid="q", text="which?")
TASK = RankingTask(
    query=QUERY,
    candidates=tuple(Candidate(docid=d, text=d, rank=i + 1) for i, d in enumerate("abc")),
    grades={"b": 1, "elsewhere": 1},
)


def result(order: str, status: str) -> TaskResult:
    outcome = Outcome(status=status, answer=Order(docids=tuple(order)))  # type: ignore[arg-type]
    exchange = Exchange(
        qid="q",
        view=numbered(QUERY, TASK.candidates),
        prompt=Prompt(messages=()),
        completion=Completion(text=""),
        outcome=outcome,
    )
    return TaskResult(
        ranking=Ranking(qid="q", docids=tuple(order)),
        exchanges=(exchange,),
        calls=1,
        depth=1,
        prompt_tokens=1,
        completion_tokens=1,
        seconds=0.0,
        statuses={"ok": 0, "repaired": 0, "failed": 0, status: 1},
    )


def test_an_unreadable_answer_keeps_its_order_but_never_wins_the_choice() -> None:
    read = summarise([TASK], [result("acb", "ok")], measure("mrr@10"), "mrr@10")
    failed = summarise([TASK], [result("bac", "failed")], measure("mrr@10"), "mrr@10")
    assert (read["eval_mrr@10"], read["eval_selection"]) == (pytest.approx(1 / 3),) * 2
    assert (failed["eval_mrr@10"], failed["eval_selection"]) == (1.0, 0.0)
    assert failed["eval_parse_failed"] == 1.0
    assert (read["eval_first_stage"], read["eval_perfect"]) == (0.5, 1.0)


def test_documents_that_were_not_retrieved_count_in_the_ideal() -> None:
    values = summarise([TASK], [result("bac", "ok")], measure("ndcg@10"), "ndcg@10")
    assert values["eval_ndcg@10"] == pytest.approx(1 / (1 + 1 / 1.5849625))
    assert values["eval_perfect"] == values["eval_ndcg@10"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ndcg@1", 1.0), ("recall@2", 0.5), ("mrr", 1.0), ("map", 0.5), ("NDCG@1", 1.0)],
)
def test_metrics_by_name(name: str, value: float) -> None:
    assert measure(name)("bac", {"b": 1, "z": 1}) == value


@pytest.mark.parametrize("name", ["bleu", "ndcg@", "ndcg@ten", "map@5", ""])
def test_unknown_metrics_are_refused(name: str) -> None:
    if name == "ndcg@":
        assert measure(name)("b", {"b": 1}) == 1.0
        return
    with pytest.raises(RecipeError, match="eval.metric: unknown metric"):
        measure(name)


@pytest.mark.parametrize("on_start", [True, False])
def test_the_start_is_validated_where_it_is_asked_for(recipe: Recipe, on_start: bool) -> None:
    spec = recipe(eval={"on_start": on_start, "max_new_tokens": 2}, training={"max_steps": 1})
    metrics = sft.run(spec, {})["metrics"]
    log = (Path(spec.run.output_dir) / "training_log.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, log) if "eval_selection" in r]
    assert steps == ([0, 1] if on_start else [1])
    assert (metrics["start"] is not None) == on_start
    assert metrics["best"]["step"] == 1


def test_the_best_weights_are_kept_and_become_the_final_ones(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation is given its values here, so that the best step lies in the middle."""
    from rank_rl.training import callbacks

    given = iter([0.9, 0.2, 0.7, 0.5, 0.6])

    def values(*_: object) -> dict[str, float]:
        value = next(given)
        names = ("eval_ndcg@10", "eval_selection", "eval_first_stage", "eval_perfect")
        return {**dict.fromkeys(names, value), "eval_parse_failed": 0.0}

    monkeypatch.setattr(callbacks, "summarise", values)
    spec = recipe(
        eval={"every": 1, "max_new_tokens": 2},
        training={"max_steps": 4, "per_device_train_batch_size": 2, "save_steps": 1,
                  "save_total_limit": 9, "learning_rate": 1e-3},
    )  # fmt: skip
    summary = sft.run(spec, {})
    out = Path(spec.run.output_dir)
    assert summary["metrics"]["start"]["eval_selection"] == 0.9
    assert summary["metrics"]["best"]["step"] == 2
    assert summary["metrics"]["last"]["eval_selection"] == 0.6
    second = (out / "checkpoint-2" / "model.safetensors").read_bytes()
    assert (out / "final" / "model.safetensors").read_bytes() == second
    assert (out / "checkpoint-4" / "model.safetensors").read_bytes() != second
    contract = json.loads((out / "final" / "rank_rl.json").read_text())
    assert contract["extra"]["validation"]["step"] == 2


@pytest.mark.parametrize(
    ("values", "min_gain", "count"),
    [
        ([], 0.0, 0),
        ([0.5], 0.0, 0),
        ([0.5, 0.5], 0.0, 1),  # equal is no gain
        ([0.5, 0.4, 0.6], 0.0, 0),
        ([0.5, 0.4, 0.3], 0.0, 2),
        ([0.5, 0.51, 0.52, 0.53], 0.02, 1),  # small steps add up to a gain
        ([0.5, 0.51, 0.51], 0.02, 2),
        ([0.0, 0.0], 0.0, 1),
    ],
)
def test_validations_without_a_gain_are_counted(
    values: list[float], min_gain: float, count: int
) -> None:
    assert stale(values, min_gain) == count


def given_values(monkeypatch: pytest.MonkeyPatch, values: dict[int, float]) -> None:
    """Validation is given its values by step, whoever asks and however often."""
    from rank_rl.training import callbacks

    real = callbacks.RerankCallback._validate
    steps: list[int] = []

    def summary(*_: object) -> dict[str, float]:
        names = ("eval_ndcg@10", "eval_selection", "eval_first_stage", "eval_perfect")
        return {**dict.fromkeys(names, values[steps[-1]]), "eval_parse_failed": 0.0}

    def validate(self: Any, state: Any) -> dict[str, float]:
        steps.append(state.global_step)
        return real(self, state)

    monkeypatch.setattr(callbacks, "summarise", summary)
    monkeypatch.setattr(callbacks.RerankCallback, "_validate", validate)


VALUES = {0: 0.9, 1: 0.2, 2: 0.7, 3: 0.5, 4: 0.6, 5: 0.8, 6: 0.1, 7: 0.1, 8: 0.1, 9: 0.1}


def patient(recipe: Recipe, patience: int, **sections: Any) -> RecipeSpec:
    return recipe(
        format={"name": "slots", "mode": "answer"},
        losses=[STOPPING],
        training={"max_steps": 9, "save_steps": 3, "learning_rate": 1e-3, "save_total_limit": 9},
        eval={"every": 1, "patience": patience},
        **sections,
    )


def test_patience_ends_a_run_and_says_why(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given_values(monkeypatch, VALUES)
    spec = patient(recipe, 2)
    summary = score.run(spec, {})
    why = "no gain in ndcg@10 for 2 validations (eval.patience), the best is 0.7000 of step 2"
    assert summary["steps"] == 4
    assert summary["metrics"]["stopped"] == {"step": 4, "why": why}
    assert (summary["metrics"]["best"]["step"], summary["metrics"]["start"]["eval_selection"]) == (
        2, 0.9
    )  # fmt: skip
    assert caplog.messages[-1:] == [f"training stops at step 4: {why}"]
    # Nothing is lost from the log where a step is validated, too.
    assert [r["step"] for r in learned(spec.run.output_dir)] == [1, 2, 3, 4]


def test_more_patience_goes_on_where_the_run_stopped(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_values(monkeypatch, VALUES)
    assert score.run(patient(recipe, 2), {})["steps"] == 4
    summary = score.run(patient(recipe, 3), {})
    assert (summary["steps"], summary["metrics"]["best"]["step"]) == (8, 5)
    assert summary["metrics"]["stopped"]["why"].startswith("no gain in ndcg@10 for 3 validations")
    assert summary["metrics"]["start"]["eval_selection"] == 0.9
    assert score.run(patient(recipe, 0), {})["steps"] == 9


def test_a_run_that_ends_anyway_is_not_said_to_stop(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_values(monkeypatch, VALUES)
    spec = patient(recipe, 4)
    summary = score.run(spec, {})
    assert summary["steps"] == 9 and "stopped" not in summary["metrics"]
    assert (Path(spec.run.output_dir) / "checkpoint-9").is_dir()


@pytest.mark.parametrize("late", [False, True])
def test_a_killed_run_stops_where_it_would_have_stopped(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The checkpoint of step 6 lies among the validations that are counted: 0.8 was step 5."""
    given_values(monkeypatch, VALUES)
    whole = patient(recipe, 3)
    out = Path(whole.run.output_dir)
    assert score.run(whole, {})["steps"] == 8
    broken = patient(recipe, 3, run={"output_dir": str(out.with_name("broken"))})
    with monkeypatch.context() as patched:
        if late:
            patched.setattr(common, "finish", interrupt)
        interrupted(lambda: score.run(broken, {}), calls=99 if late else 2 * 7 + 1)
    summary = score.run(broken, {})
    assert summary["steps"] == 8
    assert summary["metrics"]["best"]["step"] == 5
    assert learned(broken.run.output_dir) == learned(out)
    assert not moved(out / "final", summary["checkpoint"])


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_patience_without_validation_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="set eval.every too"):
        recipe(eval={"patience": 2})
    spec = recipe(
        data={"validation_split": None, "validation": 0.0}, eval={"every": 1, "patience": 2}
    )
    with pytest.raises(RecipeError, match=r"eval\.patience: no validation queries"):
        sft.run(spec, {})


def test_the_readout_of_validation_is_saved_with_the_checkpoint(recipe: Recipe) -> None:
    labels = {"labels": [" 0", " 1"]}
    spec = recipe(
        format={"name": "slots", "params": labels}, eval={"readout": "decoded"},
        losses=[{"name": "listnet"}], training={"max_steps": 1},
    )  # fmt: skip
    summary = score.run(spec, {})
    out = Path(spec.run.output_dir)
    assert json.loads((out / "final" / "rank_rl.json").read_text())["readout"] == "decoded"
    start = summary["metrics"]["start"]
    # The untrained model writes no label, so that its decoded ranking is the first stage.
    assert start["eval_parse_failed"] == 1.0
    assert start["eval_ndcg@10"] == start["eval_first_stage"]


def test_validation_draws_groups_with_the_seed_of_the_run(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rank_rl.training import callbacks

    seen: list[object] = []

    class Watched(callbacks.Reranker):
        def __init__(self, **given: Any) -> None:
            seen.append(given["strategy"])
            super().__init__(**given)

    monkeypatch.setattr(callbacks, "Reranker", Watched)
    strategy = {"name": "groups", "params": {"size": 2, "repeats": 1}}
    spec = recipe(eval={"strategy": strategy, "max_new_tokens": 1}, training={"max_steps": 1})
    sft.run(spec, {})
    assert seen == [Groups(size=2, repeats=1, seed=3)] * 2


def test_scores_of_several_tokens_are_found_before_training(recipe: Recipe) -> None:
    several = {"name": "scores", "params": {"max": 100}}
    with pytest.raises(ModelError, match=r"more than one token.*max to 9"):
        common.begin("sft", recipe(format=several, eval={"readout": "expected"}), {})


def test_a_collection_without_splits_says_how_to_train_on_it(
    recipe: Recipe, tmp_path: Path
) -> None:
    spec = recipe(data={"validation_split": None})
    file = tmp_path / "tasks.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    unsplit = [{k: v for k, v in record.items() if k != "split"} for record in records]
    file.write_text("".join(json.dumps(record) + "\n" for record in unsplit))
    with pytest.raises(DataError, match=r"no training queries \(.*set data\.params\.test_share"):
        common.begin("sft", spec, {})


def test_a_readout_that_does_not_fit_is_found_before_training(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"eval\.readout: readout 'expected' with format"):
        sft.run(recipe(eval={"readout": "expected"}), {})


def test_without_validation_queries_the_last_weights_are_final(recipe: Recipe) -> None:
    spec = recipe(data={"validation_split": None, "validation": 0.0})
    summary = sft.run(spec, {})
    assert summary["metrics"]["best"] is None
    out = Path(spec.run.output_dir)
    last = (out / "checkpoint-2" / "model.safetensors").read_bytes()
    assert (out / "final" / "model.safetensors").read_bytes() == last


def logged(tmp_path: Path, **logs: object) -> None:
    state = TrainerState(global_step=7, is_world_process_zero=True)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    LogCallback(tmp_path).on_log(args, state, TrainerControl(), logs=logs)


def test_the_log_has_one_json_record_a_step_without_nan(tmp_path: Path) -> None:
    logged(tmp_path, loss=1.5, reward=float("nan"), note="x")
    logged(tmp_path, loss=1.25)
    lines = (tmp_path / "training_log.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["step"], first["loss"], first["reward"], first["note"]) == (7, 1.5, None, "x")
    assert second["loss"] == 1.25


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_that_names_the_checkpoint_left(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5}')
    (tmp_path / "training_log.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"No space left.*goes on from checkpoint-5") as error:
        logged(tmp_path, loss=1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_librarys_words_for_a_full_disk_are_known(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StorageError), common.saving(tmp_path):
        raise error


def test_other_errors_pass_through_saving(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), common.saving(tmp_path):
        raise RuntimeError("a bug")


LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no"}


@pytest.mark.parametrize(
    ("processes", "kind", "env"),
    [
        # What `accelerate launch --cpu --num_processes 2` leaves in the environment.
        (1, "NO", {**LAUNCHED, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}),
        (1, "NO", {**LAUNCHED, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}),
        (2, "MULTI_CPU", {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}),
        (2, "MULTI_CPU", {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}),
    ],
)
def test_a_launch_that_is_not_what_was_asked_for_stops(
    processes: int, kind: str, env: dict[str, str]
) -> None:
    accelerator = SimpleNamespace(num_processes=processes, distributed_type=kind)
    with pytest.raises(RecipeError, match="accelerate launch"):
        common.check_processes(accelerator, env)


def test_launches_that_are_as_asked_for_pass() -> None:
    for processes, kind, env in (
        (1, "NO", {}),
        (1, "NO", LAUNCHED),
        (2, "MULTI_CPU", {"WORLD_SIZE": "2"}),
        (2, "FSDP", {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}),
    ):
        accelerator = SimpleNamespace(num_processes=processes, distributed_type=kind)
        common.check_processes(accelerator, env)
