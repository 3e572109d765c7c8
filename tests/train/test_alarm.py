"""Alarms: what is decided from records, and what a real run does about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chance import Share
from stage_runs import SLOTS, STOPPING, TRAINING, interrupted, learned, records
from transformers import IntervalStrategy, TrainerControl, TrainerState

from rank_rl.errors import RecipeError
from rank_rl.specs import AlarmSpec, RecipeSpec
from rank_rl.training import common, grpo
from rank_rl.training.alarm import Alarm, AlarmCallback, Watch, fitting, planned
from rank_rl.training.resume import SETTING, eval_fingerprint

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
        ("ranking/parse_failed", [1, 1, 0.999, 0.999, 0.999], "unreadable", 4),  # hardly better
        ("ranking/parse_failed", [0.7, 0.7, 0.64, 0.64], "unreadable", 4),
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
        ([validated(0.6), *REWARDED, validated(0.585)], False),
        ([validated(0.51, 0.52), *REWARDED, validated(0.505, 0.52)], False),
        ([validated(0.6), *REWARDED, validated(0.575)], True),
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


def test_what_noise_is_can_be_said() -> None:
    lines = [validated(0.6), *REWARDED, validated(0.585)]
    assert [a.kind for a in watched(lines, noise=0.01)] == ["hacking"]
    assert watched([validated(0.6), *REWARDED, validated(0.5)], noise=0.2) == []


@pytest.mark.parametrize(
    ("reward", "ceiling", "raised"),
    [
        (0.99, 1.0, False),  # all is solved
        (0.9, 1.0, True),  # of 0.6 to 1.0, that is three quarters
        (0.6, 0.6, True),  # nothing can be earned above copying
        (0.99, None, True),  # not known
    ],
)
def test_flat_groups_at_the_ceiling_are_no_alarm(
    reward: float, ceiling: float | None, raised: bool
) -> None:
    line = {"ranking/flat_groups": 1.0, "ranking/reward": reward, "ranking/copy": 0.6}
    found = watched([{**line, "ranking/ceiling": ceiling}] * 5)
    assert [a.kind for a in found] == ["flat"] * raised


@pytest.mark.parametrize(("later", "raised"), [(0.5, True), (0.515, True), (0.53, False)])
def test_other_lengths_with_a_higher_reward_are_no_alarm(later: float, raised: bool) -> None:
    start = {"completions/mean_length": 50, "ranking/reward": 0.5}
    end = {"completions/mean_length": 200, "ranking/reward": later}
    assert [a.kind for a in watched([start, start, end, end])] == ["length"] * raised


@pytest.mark.parametrize(
    ("window", "records", "fitted"),
    [(10, 400, 10), (10, 40, 10), (10, 39, 9), (10, 6, 2), (10, 0, 2), (1, 100, 1), (20, 40, 10)],
)
def test_a_short_run_has_shorter_windows(window: int, records: int, fitted: int) -> None:
    assert fitting(AlarmSpec(window=window), records).window == fitted


@pytest.mark.parametrize(
    ("when", "records"), [("steps", 12), (IntervalStrategy.STEPS, 12), ("epoch", 3), ("no", 0)]
)
def test_log_records_are_planned(when: str, records: int) -> None:
    state = TrainerState(max_steps=60, logging_steps=5, num_train_epochs=3)
    assert planned(SimpleNamespace(logging_strategy=when), state) == records


def begun(spec: RecipeSpec, state: TrainerState) -> AlarmCallback:
    callback = AlarmCallback(spec)
    args = SimpleNamespace(logging_strategy="steps")
    callback.on_train_begin(args, state, TrainerControl())  # type: ignore[arg-type]
    return callback


@pytest.mark.parametrize(("steps", "said"), [(3, 1), (4, 0), (6, 0)])
def test_a_run_too_short_for_alarms_says_so(
    recipe: Recipe, caplog: pytest.LogCaptureFixture, steps: int, said: int
) -> None:
    caplog.set_level("INFO", logger="rank_rl")
    begun(recipe(), TrainerState(max_steps=steps, logging_steps=1))
    lines = [m for m in caplog.messages if "too short for alarms" in m]
    assert len(lines) == said
    assert all("(log records: 3, needed: 4;" in m for m in lines)


@pytest.mark.parametrize("same", [True, False])
def test_validations_of_other_settings_are_not_compared(recipe: Recipe, same: bool) -> None:
    spec = recipe()
    setting = eval_fingerprint(spec.eval) if same else "other"
    before = {"step": 0, "eval_selection": 0.9, SETTING: setting, **validated(0.9)}
    history = [before, *({"step": s, **line} for s, line in enumerate(REWARDED, 1))]
    state = TrainerState(max_steps=40, logging_steps=1, global_step=2, log_history=history)
    watch = begun(spec, state).watch
    found = [*watch.see({"step": 3, **validated(0.6)}), *watch.see({"step": 3, **validated(0.6)})]
    assert watch.validation[:1] == [(0.9, 0.5)] * same + [(0.6, 0.5)] * (not same)
    assert found == []  # two records of a window of ten


def test_one_record_names_all_kinds_that_stop_a_run(recipe: Recipe) -> None:
    limits = {"window": 1, "action": "stop"}
    spec = recipe(grpo={"alarm": limits}, eval={"every": 1})
    state, control = TrainerState(max_steps=9, logging_steps=1), TrainerControl()
    callback = begun(spec, state)
    out = Path(spec.run.output_dir)
    out.mkdir(parents=True)
    bad = {"ranking/parse_failed": 1.0, "ranking/truncated": 1.0}
    for step in (1, 2):
        state.global_step = step
        callback.on_log(None, state, control, logs=bad)
    callback.on_log(None, state, control, logs={"entropy": 0.0})
    assert control.should_training_stop and not control.should_save
    callback.on_train_end(None, state, control)
    assert [r for r in records(out) if "stopped" in r] == [
        {"step": 2, "stopped": "alarms unreadable, truncated"}
    ]
    assert [r["alarm"] for r in records(out) if "alarm" in r] == ["unreadable", "truncated"]


def test_an_alarm_cannot_stop_a_run_that_keeps_no_other_weights(recipe: Recipe) -> None:
    stop = {"alarm": {"action": "stop"}}
    with pytest.raises(ValueError, match=r"grpo\.alarm\.action stop .*set eval\.every too"):
        recipe(grpo=stop)
    data = {"validation_split": None, "validation": 0.0}
    spec = recipe(
        format=SLOTS,
        data=data,
        grpo={**GRPO, **stop},
        eval={"every": 1},
        rewards=[{"name": "ndcg"}],
    )
    with pytest.raises(RecipeError, match=r"grpo\.alarm\.action: no validation queries"):
        grpo.run(spec, {})


# Real runs on the tiny model, with a reward that makes every group flat.


class Constant(Share):
    """Half for every answer."""

    name = "constant"

    def paid(self, text: str) -> float:
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
    spec = flat(recipe, {"window": 20})  # of 9 records: 2
    caplog.set_level("INFO", logger="rank_rl")
    summary = grpo.run(spec, {})
    assert summary["steps"] == 9 and "stopped" not in summary["metrics"]
    assert not [m for m in caplog.messages if "too short" in m]
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
        eval={"every": 1, "max_new_tokens": 2},
        training={"max_steps": 4, "num_generations": 2, "per_device_train_batch_size": 2,
                  "max_completion_length": 40},
    )  # fmt: skip
    summary = grpo.run(spec, {})
    assert summary["steps"] == 2
    assert summary["metrics"]["stopped"] == {"step": 2, "why": "alarm unreadable"}
    assert summary["metrics"]["alarms"][0].startswith("unreadable at step 2: 100% of the answers")
