"""One trainer for everything that learns through packed label slots (stages score and grpo).

A training example is one view with its grades; a batch of them is one packed sequence. What is
minimised is an ``Objective``: a function of the groups' label logits. Checkpoints, resume,
schedules, precision and processes are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from transformers import Trainer

from rank_rl.errors import DataError, RecipeError
from rank_rl.formats.budget import fit
from rank_rl.losses.group import ScoredGroup
from rank_rl.models.packed import SlotLabels
from rank_rl.models.packed_attention import attending, choose, reach, slot_logits
from rank_rl.models.packing import Encoded, PackedBatch, pack
from rank_rl.records import Grades, RankingTask, View
from rank_rl.training import mining, slot_texts
from rank_rl.training.batches import Repeated, shuffled
from rank_rl.training.common import training_views
from rank_rl.training.signals import Signals, grades_of, progress

if TYPE_CHECKING:
    import torch

    from rank_rl.formats.slots import SlotFormat
from rank_rl.training.common import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotExample:
    """One encoded view with the grade of every document shown; ``key`` names it for seeds.

    ``written`` are the ideal texts behind the slots, where a loss wants them.
    """

    key: str
    view: View
    grades: Grades
    encoded: Encoded
    written: slot_texts.Written = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotBatch:
    """Examples and their packed sequence, groups in the same order; ``texts`` behind the slots."""

    examples: tuple[SlotExample, ...]
    packed: PackedBatch
    texts: slot_texts.Texts | None = None


# (groups, examples, step) -> loss and what to log beside it.
Objective: TypeAlias = Callable[
    [Sequence[ScoredGroup], Sequence[Any], int], tuple["torch.Tensor", Mapping[str, float]]
]


def examples(
    stage: Stage,
) -> tuple[list[SlotExample] | mining.MinedRows[SlotExample], dict[str, Any]]:
    """Draw and encode the training views of a recipe, with the report of the draw.

    Raises:
        DataError: a task without grades, or a document that does not fit the model.
    """
    pairs, report = training_views(stage)
    learns_texts = slot_texts.wanted(stage.name, stage.spec)

    def encoded(number: int, task: RankingTask, view: View) -> SlotExample:
        return SlotExample(
            key=f"{task.query.qid}#{number}",
            view=view,
            grades=grades_of(stage, task, view),
            encoded=stage.tokens.encode_slots(cast("SlotFormat", stage.fmt).slots(view)),
            written=slot_texts.ideal(stage, task, view) if learns_texts else (),
        )

    def again(number: int, task: RankingTask, view: View) -> SlotExample:
        example = encoded(number, task, fit(view, stage.tokens, fmt=stage.fmt)[0])
        _longest([example], stage)
        return example

    made = [encoded(number, task, view) for number, (task, view) in enumerate(pairs)]
    longest = _longest(made, stage)
    whole = (slot_texts.longer(e.encoded, e.written) for e in made)
    tokens = sum(len(prefix) + sum(map(len, segments)) for prefix, segments in whole)
    report |= {"tokens": tokens, "longest": longest}
    return mining.rows(stage, pairs, made, again), report


def _longest(made: Sequence[SlotExample], stage: Stage) -> int:
    """Tokens of the longest prompt of a document.

    Raises:
        DataError: more than the model can read.
    """
    whole = [slot_texts.longer(e.encoded, e.written) for e in made]
    longest = max(len(prefix) + max(map(len, segments)) for prefix, segments in whole)
    if longest > (limit := reach(stage.loaded.model, choose(stage.loaded.model))):
        raise DataError(
            f"the prompt of a document has {longest} tokens",
            where=f"model {stage.loaded.name!r}",
            expected=f"at most {limit}",
            remedy="lower format.doc_tokens or format.prompt_tokens",
        )
    return longest


def collate(batch: Sequence[SlotExample]) -> dict[str, SlotBatch]:
    """Pack a batch of examples."""
    if any(e.written for e in batch):
        packed, texts = slot_texts.pack_texts([(e.encoded, e.written) for e in batch])
        return {"batch": SlotBatch(examples=tuple(batch), packed=packed, texts=texts)}
    packed = pack([e.encoded for e in batch])
    return {"batch": SlotBatch(examples=tuple(batch), packed=packed)}


class SlotTrainer(Trainer):  # type: ignore[misc]
    """A transformers trainer whose loss is an objective over packed label slots.

    Args:
        stage: what ``common.begin`` returned.
        objective: the loss.
        iterations: how many steps in a row see the same batch.
        arguments: ``args``, ``train_dataset`` (what ``examples`` returned) and ``callbacks`` of
            Trainer.

    Raises:
        ModelError: labels of several tokens, or a model that packed passes do not fit.
        RecipeError: fewer examples than a batch that is to be repeated.
    """

    def __init__(
        self, stage: Stage, objective: Objective, *, iterations: int = 1, **arguments: Any
    ) -> None:
        model = stage.loaded.model
        self.objective, self.iterations = objective, iterations
        self.attention = choose(model)
        self.labels = SlotLabels.of(cast("SlotFormat", stage.fmt), stage.tokens)
        self.signals = Signals.of(stage)
        self.reported: list[Mapping[str, float]] = []
        # Several visible GPUs and one process: DataParallel would cut the sequence into pieces.
        arguments["args"]._n_gpu = min(1, arguments["args"].n_gpu)
        tokenizer = stage.loaded.tokenizer
        super().__init__(
            model=model, data_collator=collate, processing_class=tokenizer, **arguments
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over queries, not tokens

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward pass under packed attention."""
        with attending(self.model, self.attention):
            loss: torch.Tensor = super().training_step(*args, **kwargs)
        return loss

    def compute_loss(
        self, model: Any, inputs: Mapping[str, SlotBatch], *_: Any, **__: Any
    ) -> torch.Tensor:
        """Objective of one batch; what it reports is averaged until the next log."""
        batch = inputs["batch"]
        if now := mining.renewed(self.train_dataset, batch.examples):
            batch = collate(now)["batch"]
        read = slot_logits(model, batch.packed.to(self.args.device), self.attention)
        logits, texts = slot_texts.split(read, batch.texts)
        groups = self.groups(logits, batch.examples, texts)
        loss, report = self.objective(groups, batch.examples, self.state.global_step)
        self.reported.append(report)
        return loss

    def groups(
        self,
        logits: torch.Tensor,
        batch: Sequence[SlotExample],
        texts: torch.Tensor | None = None,
    ) -> list[ScoredGroup]:
        """Split (N, V) logits, and (N,) losses of texts, by example."""
        labels = logits[:, list(self.labels.ids)]
        mass = labels.logsumexp(-1) - logits.logsumexp(-1)
        sizes = [len(e.view.docids) for e in batch]
        parts = zip(batch, labels.split(sizes), mass.split(sizes), strict=True)
        groups = [self._group(example, own, log_mass) for example, own, log_mass in parts]
        if texts is None:
            return groups
        return [replace(g, texts=own) for g, own in zip(groups, texts.split(sizes), strict=True)]

    def _group(self, example: SlotExample, logits: torch.Tensor, mass: torch.Tensor) -> ScoredGroup:
        view = example.view
        grades = logits.new_tensor([example.grades[d] for d in view.docids])
        return ScoredGroup(
            **self.signals.columns(view, example.grades, progress(self.state), logits),
            logits=logits,
            mass=mass,
            scores=self.labels.scores(logits),
            grades=grades,
            ranks=logits.new_tensor([c.rank for c in view.candidates]),
            targets=grades.long().clamp(max=len(self.labels.ids) - 1),
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Random order; with several iterations every batch comes that often in a row."""
        if self.iterations == 1:
            return super()._get_train_sampler(train_dataset)
        args, count = self.args, len(self.train_dataset)
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        if count < size:
            raise RecipeError(
                f"{count} training views are less than a batch of {size}",
                where="grpo.iterations",
                remedy="lower training.per_device_train_batch_size, or set grpo.iterations: 1",
            )
        return Repeated(
            count,
            order=lambda: shuffled(count, args.seed, self.state.epoch),
            size=size,
            times=self.iterations,
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means of what the objective reported to a training log record."""
        if "loss" in logs:
            from accelerate.utils import gather_object

            values: dict[str, list[float]] = {}
            for report in gather_object(self.reported):
                for name, value in report.items():
                    values.setdefault(name, []).append(value)
            logs |= {name: sum(found) / len(found) for name, found in values.items()}
            self.reported = []
        super().log(logs, *args, **kwargs)
