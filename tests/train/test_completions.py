"""The completions of a run as parquet: what a row holds, and that no row is lost or left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
from stage_runs import SLOTS, STOPPING, TRAINING, interrupted, learned
from transformers import TrainerControl, TrainerState

from rank_rl.errors import StorageError
from rank_rl.records import Outcome
from rank_rl.rewards.adapter import Seen
from rank_rl.rewards.baselines import Baselines
from rank_rl.rewards.compose import Scored
from rank_rl.rewards.monitor import Judged
from rank_rl.specs import RecipeSpec
from rank_rl.training import grpo
from rank_rl.training.completions import SLOTS as SLOT_COLUMNS
from rank_rl.training.completions import TEXT, CompletionLog

Recipe = Callable[..., RecipeSpec]
TEXTS = {
    "max_steps": 3,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 40,
}


def files(spec: RecipeSpec) -> list[str]:
    return sorted(p.name for p in (Path(spec.run.output_dir) / "completions").iterdir())


def table(spec: RecipeSpec) -> Any:
    return pandas.read_parquet(Path(spec.run.output_dir) / "completions")


def test_generated_answers_with_all_that_is_known_of_them(recipe: Recipe) -> None:
    spec = recipe(
        rewards=[{"name": "ndcg"}, {"name": "recall"}, {"name": "format", "weight": 0.5}],
        grpo={"log_completions": 2},
        training=TEXTS,
    )
    grpo.run(spec, {})
    assert files(spec) == ["step_000001.parquet", "step_000002.parquet"]
    rows = table(spec)
    assert list(rows.columns) == [*TEXT, "rewards/ndcg", "rewards/recall", "rewards/format"]
    assert rows["step"].tolist() == [1] * 4 + [2] * 4
    assert rows["group"].tolist() == [0, 0, 1, 1] * 2
    assert rows["qid"].str.fullmatch(r"train\d").all()
    assert rows["prompt"].str.contains("<|im_start|>assistant", regex=False).all()
    assert rows["completion"].str.len().min() > 0
    assert set(rows["status"]) == {"failed"} and all(len(i) for i in rows["issues"])
    assert rows["tokens"].between(1, 40).all()
    assert rows.loc[rows["tokens"] < 40, "truncated"].tolist() == [False] * sum(rows["tokens"] < 40)
    assert rows["truncated"].any()
    # An untrained model earns nothing, and the same as its neighbours.
    assert rows["reward"].tolist() == rows["advantage"].tolist() == [0.0] * 8
    assert rows["rewards/recall"].isna().all()  # does not apply to four documents
    assert (rows["copy"] < rows["ceiling"]).any()


def test_a_run_of_many_rows_is_one_dataset(recipe: Recipe) -> None:
    from datasets import load_dataset

    spec = recipe(rewards=[{"name": "format"}], grpo={"log_completions": 1}, training=TEXTS)
    grpo.run(spec, {})
    pattern = str(Path(spec.run.output_dir) / "completions" / "*.parquet")
    found = load_dataset("parquet", data_files=pattern, split="train")
    assert len(found) == 12 and found[0]["status"] == "failed"


def test_by_default_nothing_is_written(recipe: Recipe) -> None:
    spec = recipe(rewards=[{"name": "format"}], training={**TEXTS, "max_steps": 1})
    grpo.run(spec, {})
    assert not (Path(spec.run.output_dir) / "completions").exists()


def test_answers_that_are_cut_short_are_not_trained_where_they_are_masked(recipe: Recipe) -> None:
    spec = recipe(
        rewards=[{"name": "format"}],
        grpo={"log_completions": 1},
        training={**TEXTS, "max_completion_length": 20, "mask_truncated_completions": True},
    )
    grpo.run(spec, {})
    rows = table(spec)
    assert rows["truncated"].any() and (rows["trained"] == ~rows["truncated"].astype(bool)).all()


@pytest.mark.parametrize("action", ["plackett_luce", "labels"])
def test_orders_and_labels_drawn_from_slots(recipe: Recipe, action: str) -> None:
    spec = recipe(
        format=SLOTS,
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "group_size": 16, "action": action, "log_completions": 1},
    )
    grpo.run(spec, {})
    rows = table(spec)
    assert list(rows.columns) == [*SLOT_COLUMNS, "rewards/ndcg"]
    assert len(rows) == 2 * 2 * 8  # steps, views, the first 8 actions
    first = rows.iloc[0]
    assert sorted(first["order"]) == sorted(first["documents"])
    assert (first["values"] is None) == (action == "plackett_luce")
    if action == "labels":
        assert set(first["values"]) <= {0.0, 1.0}
    assert (rows["logprob"] < 0).all()
    assert (rows["reward"] == rows["rewards/ndcg"]).all()
    # Advantages sum to 0 over all 16, and follow the rewards within a group.
    for _, group in rows.groupby(["step", "group"]):
        assert (group["advantage"].rank() == group["reward"].rank()).all()


def slots(recipe: Recipe, every: int, **sections: Any) -> RecipeSpec:
    return recipe(
        format=SLOTS,
        rewards=[{"name": "ndcg"}],
        losses=[STOPPING],
        grpo={"policy": "slots", "group_size": 8, "supervised": 0.01, "log_completions": every},
        training={**TRAINING, "max_steps": 8, "save_steps": 3},
        **sections,
    )


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_killed_run_has_the_rows_of_one_that_was_not(recipe: Recipe, every: int) -> None:
    whole = slots(recipe, every)
    out = Path(whole.run.output_dir)
    grpo.run(whole, {})
    broken = slots(recipe, every, run={"output_dir": str(out.with_name("broken"))})
    interrupted(lambda: grpo.run(broken, {}), calls=2 * 5 + 1)  # within step 6
    before = files(broken)
    assert before == [f for f in files(whole) if f < "step_000006"]
    # As if a former attempt had come further, and had been killed while it wrote.
    folder = Path(broken.run.output_dir) / "completions"
    (folder / "step_000007.parquet").write_bytes(b"of another attempt")
    (folder / ".step_000002.parquet.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    grpo.run(broken, {})
    (folder / "notes.txt").unlink()
    assert files(broken) == files(whole)
    pandas.testing.assert_frame_equal(table(broken), table(whole))
    assert learned(out) == learned(broken.run.output_dir)


def test_a_new_run_removes_what_the_former_one_wrote(recipe: Recipe) -> None:
    first = slots(recipe, 1)
    grpo.run(first, {})
    again = slots(recipe, 4, run={"seed": 4})
    grpo.run(again, {})
    assert files(again) == [f"step_{n:06d}.parquet" for n in (1, 4, 8)]


def test_with_iterations_an_answer_is_recorded_when_it_is_drawn(recipe: Recipe) -> None:
    spec = recipe(
        format=SLOTS,
        rewards=[{"name": "ndcg"}],
        grpo={"policy": "slots", "group_size": 4, "iterations": 2, "log_completions": 2},
        training={**TRAINING, "max_steps": 6},
    )
    grpo.run(spec, {})
    # Drawn in steps 1, 3 and 5: the first ones at or behind 1, 2 and 4.
    assert files(spec) == [f"step_{n:06d}.parquet" for n in (1, 3, 5)]


def judged(total: float) -> Judged:
    return Judged(
        group="g",
        outcome=Outcome(status="ok"),
        scored=Scored(total=total, parts={"ndcg": total}),
        baselines=Baselines(copy=0.0, ceiling=1.0),
    )


def seen(*totals: float) -> Seen:
    n = len(totals)
    return Seen(
        rows=[{"qid": "q"}] * n,
        prompts=["p"] * n,
        texts=["t"] * n,
        tokens=[None] * n,
        judged=[judged(t) for t in totals],
    )


def step(log: CompletionLog, number: int, batch: Seen, rank: int = 0) -> None:
    args, control = SimpleNamespace(process_index=rank), TrainerControl()
    log.on_step_begin(args, TrainerState(global_step=number - 1), control)
    log.see(batch)
    log.on_step_end(args, TrainerState(global_step=number), control)


def test_each_process_writes_its_own_rows(recipe: Recipe) -> None:
    spec = recipe(rewards=[{"name": "ndcg"}], grpo={"log_completions": 1})
    Path(spec.run.output_dir).mkdir()
    for rank in (0, 1):
        step(CompletionLog(spec), 1, seen(0.5, 1.0), rank)
    assert files(spec) == ["step_000001.parquet", "step_000001.rank1.parquet"]
    assert table(spec)[["rank", "reward"]].values.tolist() == [
        [0, 0.5], [0, 1.0], [1, 0.5], [1, 1.0]
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written_is_one_line(recipe: Recipe) -> None:
    spec = recipe(rewards=[{"name": "ndcg"}], grpo={"log_completions": 1})
    out = Path(spec.run.output_dir)
    out.mkdir()
    (out / "completions").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written") as error:
        step(CompletionLog(spec), 1, seen(1.0))
    assert "\n" not in str(error.value)
