"""Validation by really reranking, and the learning log, as callbacks of a transformers trainer.

``RerankCallback`` ranks held-out-from-train queries with the model as it is, logs the metric beside
the first stage and the perfect order, keeps the best weights, and ends training when it has not
become better for long enough. ``LogCallback`` writes one JSON record a log step. Both work with any
trainer of that family; what a metric means is in ``metrics``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from rank_rl import formats, metrics, strategies
from rank_rl.errors import RecipeError
from rank_rl.models.packed_attention import choose
from rank_rl.records import Grades, RankingTask
from rank_rl.rerank import Reranker, TaskResult
from rank_rl.training import common, notes
from rank_rl.training.resume import BEST_FILE, SETTING, eval_fingerprint, read_json, write_json

if TYPE_CHECKING:
    from rank_rl.training.common import Stage

logger = logging.getLogger(__name__)

Measure = Callable[[Sequence[str], Grades], float]
_MEASURES: dict[str, Callable[..., float]] = {
    "ndcg": metrics.ndcg,
    "mrr": metrics.reciprocal_rank,
    "recall": metrics.recall,
    "map": metrics.average_precision,
}


def measure(name: str) -> Measure:
    """The metric that a recipe calls ``name``: ndcg@k, mrr@k, recall@k (k 10 if left out) or map.

    Raises:
        RecipeError: no such metric.
    """
    base, _, depth = name.lower().partition("@")
    right = (depth or "10").isdigit() and int(depth or 10) > 0
    if base not in _MEASURES or not right or (base == "map" and depth):
        expected = "ndcg@k, mrr@k, recall@k with k from 1, map"
        raise RecipeError(f"unknown metric {name!r}", where="eval.metric", expected=expected)
    function = _MEASURES[base]
    if base == "map":
        return function
    k = int(depth or 10)
    return lambda order, grades: function(order, grades, k)


def stale(values: Sequence[float], min_gain: float = 0.0) -> int:
    """How many of the last values were no gain: above the last one that was, by ``min_gain``."""
    reference, count = -math.inf, 0
    for value in values:
        gained = value > reference and value >= reference + min_gain
        reference, count = (value, 0) if gained else (reference, count + 1)
    return count


class RerankCallback(TrainerCallback):  # type: ignore[misc]
    """Validates at the start, every ``eval.every`` steps and at the end; keeps the best weights.

    ``eval.on_start: false`` leaves out the first of these.

    What is compared is the metric with every query that has an unreadable answer counted as 0:
    such a query keeps its first-stage order, and a model must not be chosen for failing. Equal
    values go to the later step; the start is logged but never chosen. After ``eval.patience``
    validations without a gain training ends; they are counted in the trainer's log history, which
    every process and every checkpoint has. Values of other settings of ``eval`` (another metric,
    strategy, readout or length) are not compared. Set ``trainer`` before training begins.

    Raises:
        RecipeError: no such metric, or patience or an alarm that stops without validation queries.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        # Label log-probabilities are read in packed passes, as label slots are.
        kind = formats.kind(stage.fmt)
        if kind == "slots" or (kind == "text" and stage.spec.eval.readout == "score"):
            choose(stage.loaded.model)  # checked before a trainer wraps it in autocast
        self.trainer: Trainer | None = None
        self.name = stage.spec.eval.metric
        self.measure = measure(self.name)
        self.tasks = tuple(
            t for t in stage.collection.validation if any(g > 0 for g in (t.grades or {}).values())
        )
        self.setting = eval_fingerprint(stage.spec.eval)
        stops = "eval.patience" if stage.spec.eval.patience else ""
        if stage.name == "grpo" and stage.spec.grpo.alarm.action == "stop":
            stops = stops or "grpo.alarm.action"
        if stops and not self.tasks:
            raise RecipeError(
                "no validation queries",
                where=stops,
                expected="data.validation_split or data.validation",
            )
        self.best: dict[str, Any] | None = None
        self.start: dict[str, float] | None = None
        self.last: dict[str, float] = {}
        self._validated = -1

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the start, or take up what a former run of this stage found."""
        if state.global_step == 0:
            self.start = self._validate(state) if self.stage.spec.eval.on_start else None
            return
        self.best = self._former_best()
        for record in self._comparable(state):
            if record["step"] == 0:
                names = (k for k in record if k.startswith("eval_") and k != SETTING)
                self.start = {k: record[k] for k in names}

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate every ``eval.every`` steps, and stop when patience is at its end."""
        spec = self.stage.spec.eval
        if not spec.every or state.global_step % spec.every:
            return
        self._choose(state)
        if spec.patience and self._stale(state) >= spec.patience:
            assert self.best is not None
            gain = f" of {spec.min_gain:g} or more" if spec.min_gain else ""
            why = (
                f"no gain{gain} in {self.name} for {spec.patience} validations (eval.patience), "
                f"the best is {self.best['eval_selection']:.4f} of step {self.best['step']}"
            )
            notes.stop(self.stage.out_dir, state, control, why)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate the last weights."""
        if state.global_step != self._validated:
            self._choose(state)

    def summary(self) -> dict[str, Any]:
        """Values at the start (None without ``eval.on_start``), of the best and the last weights.

        With ``alarms``, and with ``stopped`` where the run ended before its last step.
        """
        assert self.trainer is not None
        said = notes.summary(self.stage.out_dir, self.trainer.state.global_step)
        return {"start": self.start, "best": self.best, "last": self.last or None, **said}

    def _stale(self, state: TrainerState) -> int:
        """Validations since the last gain; the start does not count, as it is never chosen."""
        found = [r["eval_selection"] for r in self._comparable(state) if r["step"]]
        return stale(found, self.stage.spec.eval.min_gain)

    def _comparable(self, state: TrainerState) -> list[dict[str, Any]]:
        """The validations so far that ranked and measured as this run does."""
        return [r for r in state.log_history if r.get(SETTING) == self.setting]

    def _former_best(self) -> dict[str, Any] | None:
        best = read_json(self.stage.out_dir / BEST_FILE)
        if best and best.pop(SETTING, None) != self.setting:
            logger.info(
                "the best weights so far (step %s) were chosen with other settings of eval and are "
                "dropped",
                best.get("step"),
            )
            return None
        return best or None

    def _choose(self, state: TrainerState) -> None:
        values = self._validate(state)
        if not values:
            return
        if self.best is not None and values["eval_selection"] < self.best["eval_selection"]:
            return
        self.best = {"step": state.global_step, **values}
        common.save(self.trainer, self.stage, self.stage.best, validation=self.best)
        if state.is_world_process_zero:
            with common.saving(self.stage.out_dir):
                write_json(self.stage.out_dir / BEST_FILE, {**self.best, SETTING: self.setting})

    def _validate(self, state: TrainerState) -> dict[str, float]:
        """Rerank the validation queries and log the values; empty when there are none."""
        self._validated = state.global_step
        if not self.tasks:
            return {}
        assert self.trainer is not None
        started = time.monotonic()
        results = self._rerank()
        values = summarise(self.tasks, results, self.measure, self.name)
        values["eval_seconds"] = round(time.monotonic() - started, 1)
        # The base class's log: TRL's would flush its own running means of training under it. It
        # takes the step for logged, whose training record is still to come.
        due = self.trainer.control.should_log
        Trainer.log(self.trainer, dict(values))
        self.trainer.control.should_log = due
        # Behind the log: trackers take numbers only.
        self.trainer.state.log_history[-1][SETTING] = self.setting
        self.last = values
        logger.info(
            "step %s: validation %s %.4f (first stage %.4f, perfect %.4f), unreadable %.1f%%",
            state.global_step,
            self.name,
            values[f"eval_{self.name}"],
            values["eval_first_stage"],
            values["eval_perfect"],
            100 * values["eval_parse_failed"],
        )
        return values

    def _rerank(self) -> list[TaskResult]:
        """Rank all validation queries, divided among processes unless weights are sharded."""
        from accelerate.utils import gather_object

        assert self.trainer is not None
        accelerator = self.trainer.accelerator
        share = 1 if common.sharded(accelerator) else accelerator.num_processes
        mine = self.tasks[accelerator.process_index % share :: share]
        autocast = "bfloat16" if self.trainer.args.bf16 else self.stage.loaded.autocast
        spec = self.stage.spec
        with ready(self.trainer) as model, self._bar() as progress:
            reranker = Reranker(
                loaded=replace(self.stage.loaded, model=model, autocast=autocast),
                fmt=self.stage.fmt,
                strategy=strategies.make(spec.eval.strategy, seed=spec.run.seed),
                max_new_tokens=spec.eval.max_new_tokens,
                readout=spec.eval.readout,
                reasoning=spec.eval.reasoning,
            )
            found = reranker.rank_tasks(mine, progress=progress) if mine else []
        if share > 1:
            found = gather_object(found)
        by_qid = {r.ranking.qid: r for r in found}
        return [by_qid[t.query.qid] for t in self.tasks]

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Callable[[int, int], None]]:
        """A progress bar that is gone when validation is over."""
        from tqdm.auto import tqdm

        assert self.trainer is not None
        hidden = self.trainer.args.disable_tqdm or not self.trainer.accelerator.is_main_process
        with tqdm(desc="validation", leave=False, disable=hidden) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield progress


def summarise(
    tasks: Sequence[RankingTask], results: Sequence[TaskResult], measure: Measure, name: str
) -> dict[str, float]:
    """Mean metric of reranked tasks beside first stage and perfect order, and parse rates.

    Grades of documents that were not retrieved count in the ideal, as in the benchmark.
    """
    values = [
        measure(r.ranking.docids, t.grades or {}) for t, r in zip(tasks, results, strict=True)
    ]
    # A slot counts as failed when free decoding would say something else; its scores still rank.
    readable = [all(e.outcome.status != "failed" for e in r.exchanges) for r in results]
    statuses: Counter[str] = Counter()
    for result in results:
        statuses.update(result.statuses)
    total = max(1, sum(statuses.values()))
    n = len(tasks)
    return {
        f"eval_{name}": math.fsum(values) / n,
        "eval_selection": math.fsum(v for v, ok in zip(values, readable, strict=True) if ok) / n,
        "eval_first_stage": math.fsum(measure(t.docids, t.grades or {}) for t in tasks) / n,
        "eval_perfect": math.fsum(measure(perfect(t), t.grades or {}) for t in tasks) / n,
        "eval_parse_failed": statuses["failed"] / total,
        "eval_parse_repaired": statuses["repaired"] / total,
        "eval_queries": float(n),
    }


def perfect(task: RankingTask) -> list[str]:
    """The best order of a task's candidates."""
    return sorted(task.docids, key=lambda d: -(task.grades or {}).get(d, 0))


@contextlib.contextmanager
def ready(trainer: Any) -> Iterator[Any]:
    """The trainer's model in a state that can score and generate outside training."""
    accelerator = trainer.accelerator
    if common.sharded(accelerator):
        from trl.models.utils import unwrap_model_for_generation

        with unwrap_model_for_generation(trainer.model_wrapped, accelerator) as model:
            yield model
        return
    yield accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=True)


class LogCallback(TrainerCallback):  # type: ignore[misc]
    """Appends everything a trainer logs to ``training_log.jsonl``, one record a log step."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.started = time.monotonic()

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one record with the step and the seconds since training was set up."""
        if not state.is_world_process_zero or not logs:
            return
        record = {
            "step": state.global_step,
            "seconds": round(time.monotonic() - self.started, 2),
            **{k: _plain(v) for k, v in logs.items()},
        }
        notes.append(self.out_dir, record)


def _plain(value: Any) -> Any:
    """A JSON value; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)
