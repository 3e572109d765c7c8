"""Alarms: what is decided from records, and what a real run does about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage_runs import SLOTS, STOPPING, TRAINING, interrupted, learned, records

from rank_rl.records import Completion, Grades, Outcome, View
from rank_rl.specs import AlarmSpec, RecipeSpec
from rank_rl.training import common, grpo
from rank_rl.training.alarm import Alarm, Watch

Recipe = Callable[..., RecipeSpec]


def watched(lines: list[dict[str, Any]], policy: str = "text", **limits: Any) -> list[Alarm]:
    watch = Watch(AlarmSpec(window=2, **limits), metric="ndcg@10", policy=policy)
    return [a for step, line in enumerate(lines, 1) for a in watch.see({"step": step, **line})]


def series(name: str, values: list[float | None]) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


def validated(value: float, first: float = 0.5) -> dict[str, float]:
    return {"eval_ndcg@10": value, "eval_first_stage": first}


@pytest.mark.parametrize(
    ("name", "values", "kind", "step"),
    [
        ("entropy", [2, 2, 0.1, 0.1, 0.1], "entropy", 4),
        ("entropy", [2, 2, 2, 0.1, 0.1], "entropy", 5),
        ("completions/mean_length", [50, 50, 100, 300, 200], "length", 4),
        ("completions/mean_length", [90, 90, 60, 30, 20], "length", 5),
        ("ranking/parse_failed", [0.1, 0.1, 0.5, 0.7, 0.7], "unreadable", 4),
        ("ranking/truncated", [0, 0, 0, 1, 1], "truncated", 4),
        ("completions/clipped_ratio", [0, 0, 0, 1, 1], "truncated", 4),
        ("ranking/flat_groups", [0.5, 0.5, 1, 1, 1], "flat", 4),
        ("frac_reward_zero_std", [1, 1, 1, 1, 1], "flat", 4),
    ],
)
def test_a_kind_is_raised_once_when_its_window_passes_the_limit(
    name: str, values: list[float | None], kind: str, step: int
) -> None:
    found = watched([*series(name, values), *series(name, values[-1:] * 5)])
    assert [(a.kind, a.step) for a in found] == [(kind, step)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("entropy", [2, 2, 0.3, 0.3, 0.3]),
        ("entropy", [2, 2, 0.01]),  # the last two are not yet all later than the first two
        ("entropy", [0, 0, 0, 0]),
        ("completions/mean_length", [50, 50, 149, 149, 17, 17]),
        ("ranking/parse_failed", [1, 1, 0.9, 0.9, 0.8, 0.8]),  # bad, but getting better
        ("ranking/flat_groups", [0.8] * 6),
        ("ranking/flat_groups", [None] * 6),
        ("ranking/truncated", [float("nan")] * 6),
    ],
)
def test_no_alarm_without_a_cause(name: str, values: list[float | None]) -> None:
    assert watched(series(name, values)) == []


def test_a_line_has_the_numbers_and_what_to_change() -> None:
    (alarm,) = watched(series("entropy", [2, 2, 0.1, 0.1]))
    assert alarm.text == (
        "entropy 0.1, at the start 2 (limit: 0.1 of it); lower training.learning_rate, or raise "
        "training.temperature or training.beta"
    )
    assert alarm.record() == {
        "step": 4, "alarm": "entropy", "text": alarm.text, "value": 0.1, "start": 2.0
    }  # fmt: skip
    (alarm,) = watched(series("ranking/flat_groups", [1, 1, 1, 1]), policy="slots")
    assert alarm.text.startswith("100% of the groups earn the same with every answer, at the st")
    assert "grpo.group_size" in alarm.text


@pytest.mark.parametrize("kind", ["entropy", "length", "unreadable", "truncated", "flat"])
def test_a_kind_without_a_limit_is_not_watched(kind: str) -> None:
    names = {
        "entropy": ("entropy", [2, 2, 0, 0]),
        "length": ("completions/mean_length", [2, 2, 90, 90]),
        "unreadable": ("ranking/parse_failed", [0, 0, 1, 1]),
        "truncated": ("ranking/truncated", [0, 0, 1, 1]),
        "flat": ("ranking/flat_groups", [0, 0, 1, 1]),
    }
    assert [a.kind for a in watched(series(*names[kind]))] == [kind]  # type: ignore[arg-type]
    assert watched(series(*names[kind]), **{kind: None}) == []  # type: ignore[arg-type]


REWARDED = [{"ranking/reward": 0.9, "ranking/copy": 0.6}] * 2


@pytest.mark.parametrize(
    ("lines", "raised"),
    [
        ([validated(0.6), *REWARDED, validated(0.55)], True),  # it fell
        ([validated(0.4), *REWARDED, validated(0.4)], True),  # below the first stage, no better
        ([validated(0.4), *REWARDED, validated(0.45)], False),  # below it, but rising
        ([validated(0.6), *REWARDED, validated(0.595)], False),  # within noise
        ([validated(0.6), *REWARDED], False),  # not validated since
        ([validated(0.6), *REWARDED[:1], validated(0.4)], False),  # not a whole window
        ([validated(0.6), *[{"ranking/reward": 0.62, "ranking/copy": 0.6}] * 2, validated(0.4)],
         False),  # the reward is that of copying
    ],
)  # fmt: skip
def test_hacking_is_a_reward_above_copying_with_a_validation_that_fell(
    lines: list[dict[str, Any]], raised: bool
) -> None:
    found = watched(lines)
    assert [a.kind for a in found] == ["hacking"] * raised
    if raised:
        assert "reward 0.300 above copying the input (limit: 0.05)" in found[0].text


# Real runs on the tiny model, with a reward that makes every group flat.


class Constant:
    """Half for every answer."""

    name = "constant"
    bounds = (0.0, 1.0)

    def __call__(
        self, outcome: Outcome, view: View, grades: Grades, completion: Completion
    ) -> float:
        return 0.5


GRPO = {"policy": "slots", "group_size": 4, "supervised": 0.01}
FLAT = {"window": 2, "entropy": None, "hacking": None}


def flat(recipe: Recipe, alarm: dict[str, Any], **run: Any) -> RecipeSpec:
    return recipe(
        format=SLOTS,
        rewards=[{"name": "test_alarm:Constant"}],
        grpo={**GRPO, "alarm": {**FLAT, **alarm}},
        losses=[STOPPING],
        training={**TRAINING, "max_steps": 9, "save_steps": 3},
        eval={"every": 2},
        run=run,
    )


def test_a_warning_is_said_once_and_the_run_goes_on(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    spec = flat(recipe, {})
    summary = grpo.run(spec, {})
    assert summary["steps"] == 9 and "stopped" not in summary["metrics"]
    (line,) = [r.getMessage() for r in caplog.records if "alarm" in r.getMessage()]
    assert line.startswith("alarm flat at step 4: 100% of the groups earn the same with every")
    assert "\n" not in line
    (record,) = [r for r in records(spec.run.output_dir) if "alarm" in r]
    assert (record["alarm"], record["step"], record["value"]) == ("flat", 4, 1.0)
    assert summary["metrics"]["alarms"] == [f"flat at step 4: {record['text']}"]


def test_stop_ends_the_run_and_the_best_weights_are_final(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    spec = flat(recipe, {"action": "stop"})
    summary = grpo.run(spec, {})
    assert summary["steps"] == 4
    assert summary["metrics"]["stopped"] == {"step": 4, "why": "alarm flat"}
    assert "training stops at step 4: alarm flat" in caplog.messages
    assert summary["metrics"]["best"]["step"] == 4  # equal values go to the later step
    out = Path(spec.run.output_dir)
    assert (out / "final" / "model.safetensors").is_file()
    assert (out / "best.json").is_file()


def test_off_watches_nothing(recipe: Recipe) -> None:
    spec = flat(recipe, {"action": "off"})
    summary = grpo.run(spec, {})
    assert summary["steps"] == 9 and "alarms" not in summary["metrics"]


@pytest.mark.parametrize("late", [False, True])
def test_a_killed_run_raises_what_it_would_have_raised(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Killed within step 4, or when it had stopped there; the checkpoint is that of step 3."""
    whole = flat(recipe, {"action": "stop"})
    out = Path(whole.run.output_dir)
    grpo.run(whole, {})
    broken = flat(recipe, {"action": "stop"}, output_dir=str(out.with_name("broken")))
    with monkeypatch.context() as patched:
        if late:
            patched.setattr(common, "finish", lambda *_, **__: interrupt())
        interrupted(lambda: grpo.run(broken, {}), calls=99 if late else 2 * 3 + 1)
    assert len(learned(broken.run.output_dir)) == (4 if late else 3)
    summary = grpo.run(broken, {})
    assert summary["steps"] == 4
    assert summary["metrics"]["stopped"] == {"step": 4, "why": "alarm flat"}
    assert learned(broken.run.output_dir) == learned(out)
    alarms = [r for r in records(broken.run.output_dir) if "alarm" in r]
    assert alarms == [r for r in records(out) if "alarm" in r]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_other_limits_do_not_start_a_run_over(recipe: Recipe) -> None:
    """What only watches is no part of what was learned."""
    spec = flat(recipe, {"action": "stop"})
    grpo.run(spec, {})
    again = flat(recipe, {"flat": None})
    summary = grpo.run(again, {})
    assert summary["steps"] == 9
    assert [r["step"] for r in learned(again.run.output_dir)] == list(range(1, 10))
    assert "stopped" not in summary["metrics"]


def test_generated_answers_that_cannot_be_read_raise_an_alarm(recipe: Recipe) -> None:
    """An untrained model writes nothing that parses."""
    spec = recipe(
        rewards=[{"name": "ndcg"}, {"name": "format"}],
        grpo={"alarm": {"window": 1, "action": "stop", "flat": None, "truncated": None}},
        training={"max_steps": 4, "num_generations": 2, "per_device_train_batch_size": 2,
                  "max_completion_length": 40},
    )  # fmt: skip
    summary = grpo.run(spec, {})
    assert summary["steps"] == 2
    assert summary["metrics"]["stopped"] == {"step": 2, "why": "alarm unreadable"}
    assert summary["metrics"]["alarms"][0].startswith("unreadable at step 2: 100% of the answers")
