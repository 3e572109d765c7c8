"""Alarms of a GRPO run: its entropy, length, parses or groups collapse, or its reward is hacked.

``Watch`` decides: log records in, alarms out, nothing else. Means over the last ``window`` records
are compared with those over the first ``window`` of the run itself, and each kind is raised once.
``AlarmCallback`` shows it what a trainer logs, says each alarm in one line, and stops the run where
the recipe asks for it. A short run has shorter windows, see ``fitting``. What it knows is
recomputed from the trainer's own log history, which a checkpoint carries, so a resumed run decides
as if it had not been killed.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from rank_rl.specs import AlarmSpec, RecipeSpec
from rank_rl.training import notes
from rank_rl.training.resume import SETTING, eval_fingerprint

logger = logging.getLogger(__name__)

# What is watched, by the names under which the two policies log it; the first one present counts.
_SOURCES = {
    "entropy": ("entropy",),
    "length": ("completions/mean_length",),
    "unreadable": ("ranking/parse_failed",),
    "truncated": ("ranking/truncated", "completions/clipped_ratio"),
    "flat": ("ranking/flat_groups", "frac_reward_zero_std"),
    "reward": ("ranking/reward",),
    "copy": ("ranking/copy",),
    "ceiling": ("ranking/ceiling",),
}
_SHARES = {
    "unreadable": "of the answers cannot be read",
    "truncated": "of the answers are cut off",
    "flat": "of the groups earn the same with every answer",
}
_BETTER = 0.9  # a share that is no more than this part of the start's has got better
_SOLVED = 0.95  # of the way from copying to the ceiling: groups are flat because all is right

_HINTS = {
    "entropy": "lower training.learning_rate, or raise training.temperature or training.beta",
    "length": "pay for what should stay (reward length or overlong), lower training.learning_rate",
    "unreadable": "give reward format more weight, lower training.learning_rate, or train sft "
    "first",
    "truncated": "raise training.max_completion_length, or add reward overlong or "
    "training.mask_truncated_completions",
    "flat": "raise training.num_generations or temperature, or draw other views (data.sampler)",
    "hacking": "see which part pays (rewards/*/share), and whether training views look like those "
    "of validation (data.sampler, eval.strategy)",
}
_SLOT_HINTS = {
    "entropy": "lower training.learning_rate, or raise grpo.temperature or grpo.supervised",
    "flat": "raise grpo.group_size or grpo.temperature, or draw other views (data.sampler)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing that went wrong: ``value`` now against ``start``, and one line of text."""

    kind: str
    step: int
    value: float
    start: float
    text: str

    def record(self) -> dict[str, Any]:
        """As a record of the training log."""
        return {
            "step": self.step,
            "alarm": self.kind,
            "text": self.text,
            "value": round(self.value, 6),
            "start": round(self.start, 6),
        }


@dataclass(slots=True, kw_only=True)
class _Series:
    """The first and the last ``window`` values of one quantity."""

    window: int
    first: list[float] = field(default_factory=list)
    last: deque[float] = field(default_factory=deque)
    count: int = 0

    def add(self, value: float) -> None:
        """Take in the next value."""
        self.count += 1
        if len(self.first) < self.window:
            self.first.append(value)
        self.last.append(value)
        if len(self.last) > self.window:
            self.last.popleft()

    @property
    def start(self) -> float:
        """Mean of the first values."""
        return math.fsum(self.first) / len(self.first)

    @property
    def now(self) -> float:
        """Mean of the last values."""
        return math.fsum(self.last) / len(self.last)


class Watch:
    """Decides about alarms from the records that a trainer logs.

    Args:
        spec: limits; a kind whose limit is None is not watched.
        metric: the validation metric, as ``eval.metric`` names it.
        policy: ``text`` or ``slots``, for the hints.
    """

    def __init__(self, spec: AlarmSpec, *, metric: str, policy: str = "text") -> None:
        self.spec, self.metric = spec, f"eval_{metric}"
        self.hints = {**_HINTS, **(_SLOT_HINTS if policy == "slots" else {})}
        self.series = {name: _Series(window=spec.window) for name in _SOURCES}
        self.validation: list[tuple[float, float]] = []  # metric, the first stage's
        self.raised: set[str] = set()

    def see(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Take in one record (``step`` and what was logged); returns alarms not raised before."""
        for name, sources in _SOURCES.items():
            value = next((v for s in sources if (v := _number(record.get(s))) is not None), None)
            if value is not None:
                self.series[name].add(value)
        found, first = _number(record.get(self.metric)), _number(record.get("eval_first_stage"))
        if found is not None and first is not None:
            self.validation.append((found, first))
        step = int(record.get("step") or 0)
        made = (self._entropy(), self._length(), *map(self._share, _SHARES), self._hacking())
        alarms = []
        for kind, value, start, text in filter(None, made):
            if kind not in self.raised:
                self.raised.add(kind)
                line = f"{text}; {self.hints[kind]}"
                alarms.append(Alarm(kind=kind, step=step, value=value, start=start, text=line))
        return alarms

    def _window(self, name: str) -> _Series | None:
        """A quantity that was logged often enough for the last values not to be the first."""
        series = self.series[name]
        return series if series.count >= 2 * self.spec.window else None

    def _entropy(self) -> tuple[str, float, float, str] | None:
        series, limit = self._window("entropy"), self.spec.entropy
        if series is None or limit is None or not series.now < limit * series.start:
            return None
        text = f"entropy {series.now:.4g}, at the start {series.start:.4g} (limit: {limit:g} of it)"
        return "entropy", series.now, series.start, text

    def _length(self) -> tuple[str, float, float, str] | None:
        series, limit = self._window("length"), self.spec.length
        if series is None or limit is None or self._gained():
            return None
        start, now = series.start, series.now
        if start / limit < now < start * limit:
            return None
        text = f"answers of {now:.0f} tokens, at the start {start:.0f} (limit: {limit:g} times)"
        return "length", now, start, text

    def _share(self, kind: str) -> tuple[str, float, float, str] | None:
        """A share at its limit or above, unless it is a tenth better than at the start."""
        series, limit = self._window(kind), getattr(self.spec, kind)
        if series is None or limit is None or series.now < limit:
            return None
        if series.now <= _BETTER * series.start or (kind == "flat" and self._solved()):
            return None
        text = f"{series.now:.0%} {_SHARES[kind]}, at the start {series.start:.0%}"
        return kind, series.now, series.start, f"{text} (limit: {limit:.0%})"

    def _gained(self) -> bool:
        """Whether the reward is higher than at the start by more than noise."""
        reward = self._window("reward")
        return reward is not None and reward.now - reward.start > self.spec.noise

    def _solved(self) -> bool:
        """Whether the answers earn nearly all there is above copying the input."""
        reward, copy, ceiling = (self.series[name] for name in ("reward", "copy", "ceiling"))
        if not (reward.count and copy.count and ceiling.count):
            return False
        room = ceiling.now - copy.now
        # Where copying is already the best, groups are flat for want of something to learn.
        return room > 1e-6 and reward.now - copy.now >= _SOLVED * room

    def _hacking(self) -> tuple[str, float, float, str] | None:
        """A reward above copying while validation has fallen, or stays below the first stage."""
        reward, copy, margin = self.series["reward"], self.series["copy"], self.spec.hacking
        if margin is None or reward.count < self.spec.window or len(self.validation) < 2:
            return None
        gain = reward.now - copy.now if copy.count else -math.inf
        begun, (now, first) = self.validation[0][0], self.validation[-1]
        noise = self.spec.noise
        fallen = now < begun - noise or (now < first - noise and now <= begun)
        if not fallen or gain < margin:
            return None
        name = self.metric.removeprefix("eval_")
        text = (
            f"reward {gain:.3f} above copying the input (limit: {margin:g}), but validation "
            f"{name} is {now:.4f}, at the start {begun:.4f}, first stage {first:.4f}"
        )
        return "hacking", now, begun, text


def fitting(spec: AlarmSpec, records: int) -> AlarmSpec:
    """Limits for a run of so many log records: a window is a quarter of them, 2 at least.

    Two windows are needed for a decision, so a run of window 10 and 12 records could not have any.
    """
    return spec.model_copy(update={"window": min(spec.window, max(2, records // 4))})


def planned(args: Any, state: TrainerState) -> int:
    """Training records that a run will log."""
    when = str(getattr(args.logging_strategy, "value", args.logging_strategy))
    if when == "steps":
        return state.max_steps // max(1, int(state.logging_steps))
    return state.num_train_epochs if when == "epoch" else 0


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


class AlarmCallback(TrainerCallback):  # type: ignore[misc]
    """Says each alarm once, in the log and in ``training_log.jsonl``; stops the run if asked to.

    What is logged is the same on all processes, so all of them decide the same. Of a run that goes
    on, validations of other settings of ``eval`` are left out.
    """

    def __init__(self, spec: RecipeSpec) -> None:
        self.recipe, self.spec = spec, spec.grpo.alarm
        self.out_dir, self.setting = Path(spec.run.output_dir), eval_fingerprint(spec.eval)
        self.watch = self._watch(self.spec)
        self.stopping: list[str] = []  # the kinds for which the run ends

    def _watch(self, limits: AlarmSpec) -> Watch:
        return Watch(limits, metric=self.recipe.eval.metric, policy=self.recipe.grpo.policy)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fit the window, and take up what a resumed run has logged; its alarms are known."""
        count = planned(args, state)
        limits = fitting(self.spec, count)
        self.watch = self._watch(limits)
        if count < 2 * limits.window:
            logger.info(
                "the run is too short for alarms other than hacking (log records: %s, needed: %s; "
                "training.logging_steps)",
                count,
                2 * limits.window,
            )
        # Not empty in a new run either: the start has been validated.
        for record in state.log_history:
            if "eval_selection" not in record or record.get(SETTING) == self.setting:
                self.watch.see(record)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at one record."""
        for alarm in self.watch.see({**(logs or {}), "step": state.global_step}):
            logger.warning("alarm %s at step %s: %s", alarm.kind, alarm.step, alarm.text)
            if state.is_world_process_zero:
                notes.append(self.out_dir, alarm.record())
            if self.spec.action == "stop" and notes.halt(state, control):
                self.stopping.append(alarm.kind)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say why the run ended: once, as a step may log twice, and unless patience has said so."""
        if self.stopping and "stopped" not in notes.summary(self.out_dir, state.global_step):
            several = "s" if len(self.stopping) > 1 else ""
            why = f"alarm{several} {', '.join(self.stopping)}"
            notes.say_stopped(self.out_dir, state, why)


def watchers(spec: RecipeSpec) -> list[TrainerCallback]:
    """The callbacks that watch a GRPO run as ``grpo.alarm`` says; behind the one that logs."""
    return [] if spec.grpo.alarm.action == "off" else [AlarmCallback(spec)]
