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

from rank_rl.errors import DataError
from rank_rl.losses.group import ScoredGroup
from rank_rl.models.scorers.base import Encoded, Raw
from rank_rl.records import Grades, View
from rank_rl.training.common import training_views
from rank_rl.training.slot_trainer import Objective

if TYPE_CHECKING:
    import torch

    from rank_rl.training.common import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerExample:
    """One encoded view with the grade of every document shown; ``key`` names it for seeds.

    ``judged`` holds the relevant documents of the query that the view does not show: they are no
    negatives either.
    """

    key: str
    view: View
    grades: Grades
    encoded: Encoded
    judged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerBatch:
    """Examples of one forward pass."""

    examples: tuple[ScorerExample, ...]


def examples(stage: Stage) -> tuple[list[ScorerExample], dict[str, Any]]:
    """Draw and encode the training views of a recipe, with the report of the draw.

    Raises:
        DataError: a task without grades, or a document that does not fit the model.
    """
    pairs, report = training_views(stage)
    made = []
    for number, (task, view) in enumerate(pairs):
        if task.grades is None:
            raise DataError(
                "the task has no grades",
                where=f"query {task.query.qid!r}",
                expected="grades to train on",
            )
        made.append(
            ScorerExample(
                key=f"{task.query.qid}#{number}",
                view=view,
                grades=view.grades(task.grades),
                encoded=stage.loaded.model.encode(view),
                judged=frozenset(d for d, grade in task.grades.items() if grade > 0),
            )
        )
    rows = [len(row.ids) for e in made for row in e.encoded.rows]
    return made, {**report, "tokens": sum(rows), "longest": max(rows)}


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
        self.objective = objective
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
        batch = inputs["batch"].examples
        raws: list[Raw] = model([example.encoded for example in batch])
        loss, _report = self.objective(groups(raws, batch), batch, self.state.global_step)
        for beside in zip(*(raw.extra for raw in raws), strict=True):
            found = groups([raw for _, raw in beside], batch)
            more, _report = self.objective(found, batch, self.state.global_step)
            loss = loss + beside[0][0] * more
        return loss


def groups(raws: Sequence[Raw], batch: Sequence[ScorerExample]) -> list[ScoredGroup]:
    """What losses see of every example."""
    return [_group(raw, i, raws, batch) for i, raw in enumerate(raws)]


def _group(
    raw: Raw, number: int, raws: Sequence[Raw], batch: Sequence[ScorerExample]
) -> ScoredGroup:
    example = batch[number]
    view, made = example.view, raw.scores.new_tensor
    return ScoredGroup(
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
    left_out = own.judged | set(own.view.docids)
    found = []
    for i, (raw, example) in enumerate(zip(raws, batch, strict=True)):
        if i == number or raw.documents is None:
            continue
        kept = [k for k, docid in enumerate(example.view.docids) if docid not in left_out]
        found.append(raw.documents[kept] @ query / raw.temperature)
        left_out = left_out | set(example.view.docids)
    return torch.cat(found) if found else None
