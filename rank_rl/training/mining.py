"""Hard negatives mined again while training, with the scores of the model as it is.

ANCE (Xiong et al., 2021) and ADORE (Zhan et al., 2021), for rerankers: every ``refresh`` steps the
candidates of every training query are scored, and the best scored ones that are not relevant
replace the negatives of its views. Which negatives are eligible is ``data.sampling``'s business.

For any trainer, with three lines: ``rows`` around its list of examples, ``attach`` behind its
constructor, and ``renewed`` where a batch meets the model (loaders fetch batches ahead of time).
What was mined is kept in the trainer's checkpoints (``trainer_state.json``), so a run that goes on
from one has the negatives that it had there. All processes have the same negatives: each scores a
share of the queries, unless weights are sharded, and takes the scores of the others.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from rank_rl.data.sampling import sample_tasks, within
from rank_rl.records import RankingTask, View, numbered
from rank_rl.specs import SamplerSpec
from rank_rl.training import common, notes

if TYPE_CHECKING:
    from rank_rl.training.common import Stage

logger = logging.getLogger(__name__)


class Example(Protocol):
    """What a training row must have: a name of its own, and the view it shows."""

    @property
    def key(self) -> str:
        """A name that no other row has and that stays when the row's negatives change."""
        ...

    @property
    def view(self) -> View:
        """The documents shown."""
        ...


Row = TypeVar("Row", bound=Example)
Pair = tuple[RankingTask, View]
# One dict a task, of its candidates: docid -> score, higher is better.
ScoreTasks = Callable[[Sequence[RankingTask]], list[dict[str, float]]]
# (number of the row, task, view with whole texts) -> row
Build = Callable[[int, RankingTask, View], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """What a refresh did.

    Attributes:
        negatives: negatives in all rows.
        changed: how many of them their row did not have before.
        score: mean score of the negatives now.
        before: mean score, by the same model, of those there were before.
    """

    negatives: int = 0
    changed: int = 0
    score: float = 0.0
    before: float = 0.0


class MinedRows(Generic[Row]):
    """Training rows as a dataset whose negatives can be replaced.

    Args:
        pairs: task and view of every row, as ``training_views`` drew them.
        rows: the rows made of them, in the same order.
        spec: what draws take.
        seed: run seed.
        build: makes a row again; its ``key`` must be what it was.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        rows: Sequence[Row],
        spec: SamplerSpec,
        seed: int,
        build: Build[Row],
    ) -> None:
        self.of = [task for task, _ in pairs]
        self.tasks = list({t.query.qid: t for t in self.of}.values())
        self.rows, self.spec, self.seed, self.build = list(rows), spec, seed, build
        self.numbers = {row.key: number for number, row in enumerate(self.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        return self.rows[number]

    def candidates(self) -> list[RankingTask]:
        """The tasks to score: their candidates that draws may take."""
        cut = [(task, tuple(within(task, self.spec))) for task in self.tasks]
        return [dataclasses.replace(task, candidates=kept) for task, kept in cut if kept]

    def refresh(self, scores: Mapping[str, Mapping[str, float]]) -> Mined:
        """Draw every view again, with the hardest negatives by ``scores`` (query id -> docid)."""
        # As many views as at first, in the same order: which draws are left out is up to the
        # relevant documents alone (SamplerSpec refuses least_ndcg here).
        drawn, _ = sample_tasks(self.tasks, self.spec, seed=self.seed, scores=scores)
        before: list[float] = []
        after: list[float] = []
        changed = 0
        for number, (task, view) in enumerate(drawn):
            own = scores.get(task.query.qid, {})
            old, new = (_negatives(task, v) for v in (self.rows[number].view, view))
            before += [own[d] for d in old if d in own]
            after += [own[d] for d in new if d in own]
            changed += len(set(new) - set(old))
            self._replace(number, view)
        return Mined(
            negatives=len(after), changed=changed, score=_mean(after), before=_mean(before)
        )

    def shown(self) -> list[list[str]]:
        """Docids of every row in the order shown; ``show`` is the way back."""
        return [list(row.view.docids) for row in self.rows]

    def show(self, shown: Sequence[Sequence[str]]) -> None:
        """Make the rows show these documents."""
        for number, docids in enumerate(shown):
            task = self.of[number]
            by_docid = {c.docid: c for c in task.candidates}
            self._replace(number, numbered(task.query, [by_docid[d] for d in docids]))

    def current(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of the same keys as they are now."""
        return [self.rows[self.numbers[row.key]] for row in rows]

    def _replace(self, number: int, view: View) -> None:
        assert self.of[number].query.qid == view.query.qid, "views of other rows"
        if view.docids != self.rows[number].view.docids:
            self.rows[number] = self.build(number, self.of[number], view)


def rows(
    stage: Stage, pairs: Sequence[Pair], made: list[Row], build: Build[Row]
) -> list[Row] | MinedRows[Row]:
    """The dataset of a trainer: its list of rows as it is, unless the recipe mines negatives."""
    spec = stage.spec.data.sampler
    if spec.negatives != "mined":
        return made
    return MinedRows(pairs, made, spec, stage.spec.run.seed, build)


def attach(trainer: Any, stage: Stage, score_tasks: ScoreTasks) -> None:
    """Let a transformers trainer refresh its dataset, if that can be refreshed."""
    if isinstance(trainer.train_dataset, MinedRows):
        trainer.add_callback(MiningCallback(trainer, stage, score_tasks))


def renewed(dataset: Any, batch: Sequence[Row]) -> list[Row] | None:
    """The rows of a batch as they are now; None when they have not changed since it was made."""
    if not isinstance(dataset, MinedRows):
        return None
    now = dataset.current(batch)
    return now if any(new is not old for new, old in zip(now, batch, strict=True)) else None


class MiningCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Refreshes a trainer's dataset every ``data.sampler.refresh`` steps, but not after the last.

    Its state is saved in every checkpoint of the trainer; see ``on_train_begin``.
    """

    def __init__(self, trainer: Any, stage: Stage, score_tasks: ScoreTasks) -> None:
        self.trainer, self.stage, self.score_tasks = trainer, stage, score_tasks
        self.rows: MinedRows[Any] = trainer.train_dataset
        self.every = stage.spec.data.sampler.refresh
        self.mined_at = 0

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the negatives of the checkpoint that training goes on from."""
        saved = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {})
        if state.global_step and saved.get("mined_at"):
            self.mined_at = saved["mined_at"]
            self.rows.show(saved["shown"])
            logger.info("negatives are those mined at step %s", self.mined_at)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mine, where it is due."""
        if state.global_step % self.every or state.global_step >= state.max_steps:
            return
        started = time.monotonic()
        mined = self.rows.refresh(self._scores())
        self.mined_at = state.global_step
        logger.info(
            "step %s: %s of %s negatives changed, mean score %.3f (%.3f before)",
            state.global_step, mined.changed, mined.negatives, mined.score, mined.before,
        )  # fmt: skip
        if state.is_world_process_zero:
            record = {f"mined_{k}": v for k, v in dataclasses.asdict(mined).items()}
            record["mined_seconds"] = round(time.monotonic() - started, 1)
            notes.append(self.stage.out_dir, {"step": state.global_step, **record})

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the documents of every row, once some were mined."""
        shown = self.rows.shown() if self.mined_at else []
        return {"args": {}, "attributes": {"mined_at": self.mined_at, "shown": shown}}

    def _scores(self) -> dict[str, dict[str, float]]:
        """Scores of all candidates by query id, the same on every process."""
        from accelerate.utils import gather_object

        accelerator = self.trainer.accelerator
        share = 1 if common.sharded(accelerator) else accelerator.num_processes
        mine = self.rows.candidates()[accelerator.process_index % share :: share]
        found = list(zip((t.query.qid for t in mine), self.score_tasks(mine), strict=True))
        if accelerator.num_processes > 1:
            found = gather_object(found)
        return dict(found)


def _negatives(task: RankingTask, view: View) -> list[str]:
    return [d for d, grade in view.grades(task.grades or {}).items() if not grade]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
