"""The trainer of scorers (stage score): ranking losses over groups of a cross-encoder, an
embedding or a pair scorer.

A training example is one view with its grades; a batch of them is one forward pass. Checkpoints,
resume, schedules, precision and processes are transformers' own; the objective is that of
``slot_trainer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from rank_rl.formats.budget import fit
from rank_rl.losses.group import ScoredGroup
from rank_rl.models.scorers.base import Encoded, Raw
from rank_rl.records import Grades, RankingTask, View
from rank_rl.training import mining
from rank_rl.training.common import training_views
from rank_rl.training.signals import Signals, grades_of, progress
from rank_rl.training.slot_trainer import Objective

if TYPE_CHECKING:
    import torch

    from rank_rl.training.common import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerExample:
    """One encoded view with the grade of every document shown; ``key`` names it for seeds.

    ``relevant`` holds all relevant documents of the query, also those that the view does not show:
    they are no negatives.
    """

    key: str
    view: View
    grades: Grades
    encoded: Encoded
    relevant: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerBatch:
    """Examples of one forward pass."""

    examples: tuple[ScorerExample, ...]


def examples(
    stage: Stage,
) -> tuple[list[ScorerExample] | mining.MinedRows[ScorerExample], dict[str, Any]]:
    """Draw and encode the training views of a recipe, with the report of the draw.

    Raises:
        DataError: a task without grades, or a document that does not fit the model.
    """
    pairs, report = training_views(stage)

    def encoded(number: int, task: RankingTask, view: View) -> ScorerExample:
        return ScorerExample(
            key=f"{task.query.qid}#{number}",
            view=view,
            grades=grades_of(stage, task, view),
            encoded=stage.loaded.model.encode(view),
            relevant=frozenset(d for d, grade in (task.grades or {}).items() if grade > 0),
        )

    def again(number: int, task: RankingTask, view: View) -> ScorerExample:
        return encoded(number, task, fit(view, stage.tokens, fmt=stage.fmt)[0])

    made = [encoded(number, task, view) for number, (task, view) in enumerate(pairs)]
    lengths = [len(row.ids) for e in made for row in e.encoded.rows]
    report |= {"tokens": sum(lengths), "longest": max(lengths)}
    return mining.rows(stage, pairs, made, again), report


def collate(batch: Sequence[ScorerExample]) -> dict[str, ScorerBatch]:
    """A batch of examples."""
    return {"batch": ScorerBatch(examples=tuple(batch))}


class ScorerTrainer(Trainer):  # type: ignore[misc]
    """A transformers trainer whose loss is an objective over the groups of a scorer.

    Args:
        stage: what ``common.begin`` returned.
        objective: the loss.
        arguments: ``args``, ``train_dataset`` (a list of examples) and ``callbacks`` of Trainer.
    """

    def __init__(self, stage: Stage, objective: Objective, **arguments: Any) -> None:
        self.objective, self.signals = objective, Signals.of(stage)
        # Several visible GPUs and one process: DataParallel cannot divide these batches.
        arguments["args"]._n_gpu = min(1, arguments["args"].n_gpu)
        super().__init__(
            model=stage.loaded.model,
            data_collator=collate,
            processing_class=stage.loaded.tokenizer,
            **arguments,
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over queries, not tokens

    def compute_loss(
        self, model: Any, inputs: Mapping[str, ScorerBatch], *_: Any, **__: Any
    ) -> torch.Tensor:
        """Objective of one batch, and of what the scorer trains beside, by its weight."""
        batch: Sequence[ScorerExample] = inputs["batch"].examples
        batch = mining.renewed(self.train_dataset, batch) or batch
        raws: list[Raw] = model([example.encoded for example in batch])
        loss, _report = self.objective(self.groups(raws, batch), batch, self.state.global_step)
        for beside in zip(*(raw.extra for raw in raws), strict=True):
            found = self.groups([raw for _, raw in beside], batch)
            more, _report = self.objective(found, batch, self.state.global_step)
            loss = loss + beside[0][0] * more
        return loss

    def groups(self, raws: Sequence[Raw], batch: Sequence[ScorerExample]) -> list[ScoredGroup]:
        """What losses see of every example."""
        return [self._group(raw, i, raws, batch) for i, raw in enumerate(raws)]

    def _group(
        self, raw: Raw, number: int, raws: Sequence[Raw], batch: Sequence[ScorerExample]
    ) -> ScoredGroup:
        example = batch[number]
        view, made = example.view, raw.scores.new_tensor
        return ScoredGroup(
            **self.signals.columns(view, example.grades, progress(self.state), raw.scores),
            scores=raw.scores,
            grades=made([float(example.grades[d]) for d in view.docids]),
            ranks=made([float(c.rank) for c in view.candidates]),
            pairs=raw.pairs,
            others=_others(number, raws, batch),
        )


def _others(
    number: int, raws: Sequence[Raw], batch: Sequence[ScorerExample]
) -> torch.Tensor | None:
    """Scores of an embedded query with the batch's other documents, its own and relevant ones
    left out; None where there are no embeddings or no others."""
    import torch

    own, query = batch[number], raws[number].query
    if query is None:
        return None
    left_out = own.relevant | set(own.view.docids)
    found = []
    for i, (raw, example) in enumerate(zip(raws, batch, strict=True)):
        if i == number or raw.documents is None:
            continue
        kept = [k for k, docid in enumerate(example.view.docids) if docid not in left_out]
        found.append(raw.documents[kept] @ query / raw.temperature)
        left_out = left_out | set(example.view.docids)
    return torch.cat(found) if found else None
