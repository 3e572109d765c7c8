"""One trainer for everything that learns through packed label slots (stages score and grpo).

A training example is one view with its grades; a batch of them is one packed sequence. What is
minimised is an ``Objective``: a function of the groups' label logits. Checkpoints, resume,
schedules and processes are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from rank_rl.losses.group import SlotGroup
from rank_rl.models.loading import autocast_context
from rank_rl.models.packed import label_ids, label_weights
from rank_rl.models.packed_attention import choose, slot_logits
from rank_rl.models.packing import PackedBatch, pack
from rank_rl.records import Grades, View

if TYPE_CHECKING:
    import torch

    from rank_rl.training.common import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotExample:
    """One encoded view: ``key`` names it for seeds and caches."""

    key: str
    view: View
    grades: Grades
    prefix: list[int]
    segments: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotBatch:
    """Examples and their packed sequence, groups in the same order."""

    examples: tuple[SlotExample, ...]
    packed: PackedBatch


# (groups, examples, step) -> loss and what to log beside it.
Objective = Callable[
    [Sequence[SlotGroup], Sequence[SlotExample], int], tuple["torch.Tensor", Mapping[str, float]]
]


def examples(stage: Stage) -> tuple[list[SlotExample], dict[str, Any]]:
    """Draw and encode the training views of a recipe, with the report of the draw."""
    from rank_rl.training.common import training_views

    pairs, report = training_views(stage)
    made = []
    for number, (task, view) in enumerate(pairs):
        prefix, segments = stage.tokens.encode_slots(stage.fmt.slots(view))  # type: ignore[attr-defined]
        made.append(
            SlotExample(
                key=f"{task.query.qid}#{number}",
                view=view,
                grades=view.grades(task.grades or {}),
                prefix=prefix,
                segments=segments,
            )
        )
    return made, report


def collate(batch: Sequence[SlotExample]) -> dict[str, SlotBatch]:
    """Pack a batch of examples."""
    packed = pack([e.prefix for e in batch], [e.segments for e in batch])
    return {"batch": SlotBatch(examples=tuple(batch), packed=packed)}


class SlotTrainer(Trainer):  # type: ignore[misc]
    """A transformers trainer whose loss is an objective over packed label slots."""

    def __init__(self, stage: Stage, objective: Objective, **arguments: Any) -> None:
        self.stage, self.objective = stage, objective
        self.attention = choose(stage.loaded.model)
        first = arguments["train_dataset"][0]
        prompt = stage.fmt.slots(first.view)  # type: ignore[attr-defined]
        self.label_ids = label_ids(stage.tokens, prompt)
        self.values = list(prompt.values)
        self.weights = label_weights(prompt.values)
        self.sums: dict[str, float] = {}
        self.count = 0
        super().__init__(
            model=stage.loaded.model,
            data_collator=collate,
            processing_class=stage.loaded.tokenizer,
            **arguments,
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over queries, not tokens

    def compute_loss(
        self, model: Any, inputs: dict[str, SlotBatch], *_: Any, **__: Any
    ) -> torch.Tensor:
        """Objective of one batch; what it reports is averaged until the next log."""
        batch = inputs["batch"]
        packed = batch.packed.to(self.args.device)
        with autocast_context(self.stage.loaded):
            logits = slot_logits(model, packed, self.attention)
        groups = self.groups(logits, packed, batch.examples)
        loss, report = self.objective(groups, batch.examples, self.state.global_step)
        if self.model.training:
            self.count += 1
            for name, value in report.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Random order; with several GRPO iterations every batch comes that often in a row."""
        repeats = self.stage.spec.grpo.iterations if self.stage.name == "grpo" else 1
        if repeats == 1:
            return super()._get_train_sampler(train_dataset)
        from trl.trainer.utils import RepeatSampler

        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return RepeatSampler(
            data_source=self.train_dataset,
            mini_repeat_count=1,
            batch_size=size * self.args.world_size,
            repeat_count=repeats,
            shuffle=True,
            seed=self.args.seed,
        )

    def groups(
        self, logits: torch.Tensor, packed: PackedBatch, batch: Sequence[SlotExample]
    ) -> list[SlotGroup]:
        """Split (N, V) logits by owner."""
        import torch

        device = logits.device
        logprobs = logits.log_softmax(-1)
        weights = torch.tensor(self.weights, device=device)
        result = []
        for number, example in enumerate(batch):
            rows = (packed.owner == number).nonzero()[:, 0]
            labels = logits[rows][:, self.label_ids]
            mass = logprobs[rows][:, self.label_ids].logsumexp(-1).clamp(max=-1e-6)
            grades = [example.grades[d] for d in example.view.docids]
            targets = [min(g, len(self.values) - 1) for g in grades]
            result.append(
                SlotGroup(
                    logits=labels,
                    others=(-mass.expm1()).log(),
                    scores=labels @ weights,
                    grades=torch.tensor(grades, dtype=torch.float32, device=device),
                    targets=torch.tensor(targets, device=device),
                )
            )
        return result

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the objective's means to a training log record."""
        if self.count and "loss" in logs:
            logs |= {name: value / self.count for name, value in self.sums.items()}
            self.sums, self.count = {}, 0
        super().log(logs, *args, **kwargs)
