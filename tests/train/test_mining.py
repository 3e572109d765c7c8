"""Negatives mined while training: which, when, in which batches, and after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import tasks
from stage_runs import (
    SLOTS,
    STOPPING,
    TRAINING,
    in_two_processes,
    interrupted,
    learned,
    moved,
    records,
)
from test_score import trainer_of

from rank_rl.errors import RecipeError
from rank_rl.specs import FormatSpec, RecipeSpec
from rank_rl.training import grpo, mining, score, sft
from rank_rl.training.slot_trainer import SlotExample, collate

Recipe = Callable[..., RecipeSpec]
MINED = {"size": 3, "negatives": "mined", "refresh": 2}
FASTER = {**TRAINING, "learning_rate": 1e-2}


def mined_recipe(
    recipe: Recipe, tmp_path: Path, *, sampler: Any = None, **sections: Any
) -> RecipeSpec:
    """Six documents a query, of which training sees three."""
    file = tmp_path / "six.jsonl"
    sizes = {"train": 8, "validation": 3, "test": 2}
    lines = [json.dumps(t) for split, n in sizes.items() for t in tasks(n, split, documents=6)]
    file.write_text("\n".join(lines))
    changes = {"path": str(file), "sampler": {**MINED, **(sampler or {})}}
    data = {**recipe().data.model_dump(), **changes}
    return recipe(format=SLOTS, data=data, **sections)


def mined_records(out: Path | str) -> list[dict[str, Any]]:
    kept = [r for r in records(out) if "mined_changed" in r]
    return [{k: v for k, v in r.items() if k != "mined_seconds"} for r in kept]


def scores_by_query(
    trainer: Any, rows: mining.MinedRows[SlotExample]
) -> dict[str, dict[str, float]]:
    given = rows.candidates()
    found = score.scores(trainer, trainer_stage(trainer), given)
    return {t.query.qid: s for t, s in zip(given, found, strict=True)}


def trainer_stage(trainer: Any) -> Any:
    return trainer.rank_rl_stage


@pytest.fixture
def made(recipe: Recipe, tmp_path: Path) -> tuple[Any, mining.MinedRows[SlotExample]]:
    """A trainer of the tiny model and its rows."""
    from rank_rl.training import common

    spec = mined_recipe(recipe, tmp_path)
    trainer, rows = trainer_of(spec)
    trainer.rank_rl_stage = common.begin("score", spec, {})
    assert isinstance(rows, mining.MinedRows)
    return trainer, rows


def test_refreshed_negatives_are_the_best_scored_by_the_model(made: Any) -> None:
    trainer, rows = made
    first = [set(row.view.docids) for row in rows.rows]
    for task, shown in zip(rows.of, first, strict=True):
        (relevant,) = task.grades
        ranked = [d for d in task.docids if d != relevant]
        assert shown == {relevant, *ranked[:2]}  # by the first stage until something is mined
    keys, encoded = [row.key for row in rows.rows], [row.encoded for row in rows.rows]
    found = scores_by_query(trainer, rows)
    report = rows.refresh(found)
    values: list[float] = []
    for number, (task, row) in enumerate(zip(rows.of, rows.rows, strict=True)):
        (relevant,) = task.grades
        own = found[task.query.qid]
        hardest = sorted((d for d in task.docids if d != relevant), key=lambda d: -own[d])[:2]
        assert set(row.view.docids) == {relevant, *hardest}
        assert sum(row.grades.values()) == 1
        same = row.view.docids == tuple(d for d in row.view.docids if d in first[number])
        assert same or row.encoded != encoded[number]
        values += [own[d] for d in hardest]
    assert [row.key for row in rows.rows] == keys
    new = sum(len(set(r.view.docids) - old) for r, old in zip(rows.rows, first, strict=True))
    assert report.changed == new > 0
    assert report.negatives == 16
    assert report.score == pytest.approx(sum(values) / 16)
    assert report.before < report.score
    assert rows.refresh(found).changed == 0


def test_a_row_keeps_its_query(made: Any) -> None:
    _, rows = made
    first, second = (row.view for row in rows.rows[:2])
    assert first.query.qid != second.query.qid
    with pytest.raises(AssertionError, match="views of other rows"):
        rows._replace(0, second)


def test_shown_documents_are_taken_up_again(made: Any) -> None:
    _, rows = made
    before, old = rows.shown(), list(rows.rows)
    rows.refresh({t.query.qid: {d: float(i) for i, d in enumerate(t.docids)} for t in rows.tasks})
    assert rows.shown() != before
    rows.show(before)
    assert rows.shown() == before
    assert [row.encoded for row in rows.rows] == [row.encoded for row in old]


def test_batches_fetched_before_a_refresh_are_trained_on_with_the_new_negatives(made: Any) -> None:
    trainer, rows = made
    fetched = {"batch": collate([rows[0], rows[1]])["batch"]}
    assert mining.renewed(rows, fetched["batch"].examples) is None
    rows.refresh({t.query.qid: {d: float(i) for i, d in enumerate(t.docids)} for t in rows.tasks})
    now = {"batch": collate([rows[0], rows[1]])["batch"]}
    assert now["batch"].examples[0].view != fetched["batch"].examples[0].view
    with torch.no_grad():
        from rank_rl.models.packed_attention import attending

        with attending(trainer.model.eval(), trainer.attention):
            losses = [float(trainer.compute_loss(trainer.model, b)) for b in (fetched, now)]
    assert losses[0] == losses[1]
    assert mining.renewed([1, 2], [1]) is None


def test_training_goes_on_with_negatives_that_change(recipe: Recipe, tmp_path: Path) -> None:
    spec = mined_recipe(recipe, tmp_path, training={**FASTER, "max_steps": 6})
    score.run(spec, {})
    out = spec.run.output_dir
    assert [r["step"] for r in learned(out)] == [1, 2, 3, 4, 5, 6]
    found = mined_records(out)
    assert [r["step"] for r in found] == [2, 4]  # after the last step there is nothing to mine for
    assert all(r["mined_negatives"] == 16 for r in found)
    assert all(r["mined_score"] >= r["mined_before"] for r in found)
    assert found[0]["mined_changed"] > 0
    still = mined_recipe(
        recipe,
        tmp_path,
        sampler={"negatives": "hard", "refresh": 0},
        training={**FASTER, "max_steps": 6},
        run={"output_dir": str(Path(out).with_name("hard"))},
    )
    score.run(still, {})
    assert not mined_records(still.run.output_dir)
    same = [a == b for a, b in zip(learned(out), learned(still.run.output_dir), strict=True)]
    assert same[:2] == [True, True] and not all(same[2:])


@pytest.mark.parametrize(("refresh", "calls"), [(2, 11), (3, 9)])
def test_a_killed_run_has_the_negatives_of_its_checkpoint(
    recipe: Recipe, tmp_path: Path, refresh: int, calls: int
) -> None:
    """Checkpoints of step 3: one step behind a refresh, and with one."""
    changes = {
        "sampler": {"refresh": refresh},
        "losses": [STOPPING, {"name": "bce"}],
        "training": {**FASTER, "max_steps": 6, "save_steps": 3},
    }
    whole = mined_recipe(recipe, tmp_path, **changes)
    out = Path(whole.run.output_dir)
    score.run(whole, {})
    broken = mined_recipe(
        recipe, tmp_path, run={"output_dir": str(out.with_name("broken"))}, **changes
    )
    interrupted(lambda: score.run(broken, {}), calls=calls)
    score.run(broken, {})
    assert learned(broken.run.output_dir) == learned(out)
    assert mined_records(broken.run.output_dir) == mined_records(out)
    assert not moved(out / "final", Path(broken.run.output_dir) / "final")
    state = json.loads((out / "checkpoint-6" / "trainer_state.json").read_text())
    kept = state["stateful_callbacks"]["MiningCallback"]["attributes"]
    assert kept["mined_at"] == {2: 4, 3: 3}[refresh]
    assert len(kept["shown"]) == 8


TWO_PROCESSES = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rank_rl.specs import RecipeSpec
from rank_rl.training import mining, score

folder = Path(sys.argv[1])
spec = RecipeSpec.model_validate_json((folder / "spec.json").read_text())
shown, asked = [], []
refresh, scores = mining.MinedRows.refresh, score.scores

def watched(self, found):
    report = refresh(self, found)
    shown.append([sorted(found), self.shown(), report.score])
    return report

def counted(trainer, stage, tasks):
    asked.append([t.query.qid for t in tasks])
    return scores(trainer, stage, tasks)

mining.MinedRows.refresh, score.scores = watched, counted
score.run(spec, {})
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps([shown, asked]))
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_processes_share_the_scoring_and_have_the_same_negatives(
    recipe: Recipe, tmp_path: Path
) -> None:
    spec = mined_recipe(recipe, tmp_path, training={**FASTER, "max_steps": 3})
    (shown, first), (same, second) = in_two_processes(TWO_PROCESSES, spec, tmp_path)
    assert shown == same and len(shown) == 1
    assert [len(f) for f in (*first, *second)] == [4, 4]
    assert sorted([*first[0], *second[0]]) == shown[0][0]


def test_other_stages_refuse_to_mine(recipe: Recipe, tmp_path: Path) -> None:
    spec = mined_recipe(recipe, tmp_path)
    with pytest.raises(RecipeError, match="negatives: value mined; expected random, hard or mixed"):
        sft.run(spec, {})
    slots = mined_recipe(
        recipe, tmp_path, grpo={"policy": "slots", "supervised": 1.0}, rewards=[{"name": "ndcg"}]
    )
    with pytest.raises(RecipeError, match="only stage score mines while training"):
        grpo.run(slots, {})
    paths = spec.model_copy(update={"format": FormatSpec(name="pair_scores")})
    with pytest.raises(RecipeError, match="hard or mixed with format pair_scores"):
        score.run(paths, {})
