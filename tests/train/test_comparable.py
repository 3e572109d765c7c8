"""Best weights of a run that goes on: which former validations count, and which are removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_callbacks import VALUES, given_values, patient

from rank_rl.specs import EvalSpec, RecipeSpec
from rank_rl.training import score
from rank_rl.training.resume import SETTING, eval_fingerprint, resume_point

Recipe = Callable[..., RecipeSpec]


def test_values_of_another_metric_are_not_compared(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped at step 4 (best 2); the values from step 4 on are of another metric, and lower."""
    caplog.set_level("INFO", logger="rank_rl")
    given_values(monkeypatch, VALUES)
    before = patient(recipe, 2)
    assert score.run(before, {})["steps"] == 4
    best = Path(before.run.output_dir) / "best.json"
    assert json.loads(best.read_text())["step"] == 2
    given_values(monkeypatch, {4: 0.3, 5: 0.4, 6: 0.1, 7: 0.1})
    after = before.model_copy(
        update={"eval": before.eval.model_copy(update={"readout": "decoded"})}
    )
    summary = score.run(after, {})
    assert (summary["steps"], summary["metrics"]["best"]["step"]) == (7, 5)
    assert summary["metrics"]["start"] is None
    assert sum("chosen with other settings of eval" in m for m in caplog.messages) == 1
    state = json.loads((best.parent / "checkpoint-6" / "trainer_state.json").read_text())
    marks = [r[SETTING] for r in state["log_history"] if "eval_selection" in r]
    assert marks == [eval_fingerprint(before.eval)] * 4 + [eval_fingerprint(after.eval)] * 3
    assert json.loads(best.read_text())[SETTING] == marks[-1]


def test_what_makes_validations_comparable() -> None:
    same = EvalSpec(every=1, patience=3, min_gain=0.1)
    assert eval_fingerprint(same) == eval_fingerprint(EvalSpec())
    others = [{"metric": "map"}, {"readout": "decoded"}, {"max_new_tokens": 9},
              {"strategy": {"name": "sliding"}}]  # fmt: skip
    marks = {eval_fingerprint(EvalSpec.model_validate(o)) for o in [{}, *others]}
    assert len(marks) == 5


@pytest.mark.parametrize(("step", "kept"), [(3, True), (4, False)])
def test_best_weights_behind_the_checkpoint_are_removed(
    recipe: Recipe, tmp_path: Path, step: int, kept: bool
) -> None:
    out, spec = tmp_path / "some", recipe()
    (out / "checkpoint-3").mkdir(parents=True)
    (out / "best").mkdir()
    resume_point(out, spec, {})  # removes what is there: it has no run_state.json
    (out / "checkpoint-3").mkdir()
    (out / "best").mkdir()
    (out / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    (out / "best.json").write_text(json.dumps({"step": step, "eval_selection": 0.5}))
    longer = spec.model_copy(update={"training": {**spec.training, "max_steps": 9}})
    assert resume_point(out, longer, {}) == out / "checkpoint-3"
    assert ((out / "best").exists(), (out / "best.json").exists()) == (kept, kept)
