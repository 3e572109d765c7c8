"""Groups whose answers all earn the same: left out of a GRPO batch, or replaced by others.

Their advantages are 0, so they teach nothing, but they count in the mean over the batch and, where
there is a KL term, pull towards the reference. Functions on the dictionaries that TRL's trainer
passes from generation to its loss; rows of a group stand together. Yu et al., 2025 (DAPO, dynamic
sampling).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from rank_rl import seeds
from rank_rl.errors import RecipeError

Batch: TypeAlias = dict[str, Any]
SPREAD = 1e-6
# Losses that divide by the number of rows; others by a number of tokens that comes with the batch.
_BY_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")


def flat(parts: torch.Tensor, weights: torch.Tensor, size: int, *, apart: bool) -> torch.Tensor:
    """(groups,) whether a group has no spread.

    Args:
        parts: (groups * size, parts) rewards, NaN where a part does not apply.
        weights: (parts,) of the weighted sum.
        size: answers a group.
        apart: whether advantages come from parts normalised one by one, not from their sum.
    """
    paid = torch.nan_to_num(parts * weights)
    values = paid if apart else paid.sum(1, keepdim=True)
    grouped = values.view(-1, size, values.shape[1])
    return (grouped.amax(1) - grouped.amin(1)).amax(1) < SPREAD


def spotted(trainer: Any) -> torch.Tensor:
    """(groups,) of this process, as a ``GroupTrainer`` last answered: whether a group is flat."""
    every = flat(
        trainer.rewards_found,
        trainer.reward_weights.to(trainer.rewards_found.device),
        trainer.num_generations,
        apart=trainer.multi_objective_aggregation == "normalize_then_sum",
    )
    own = len(every) // trainer.accelerator.num_processes
    return every[trainer.accelerator.process_index * own :][:own].clone()


def others(trainer: Any, groups: int, attempt: int) -> list[Any]:
    """Rows of ``groups`` other training prompts for this process, each once an answer.

    Drawn from the seed; where rows have an order of difficulty, from those that it has come to or
    comes to within four steps.
    """
    count, processes = len(trainer.train_dataset), trainer.accelerator.num_processes
    state, args, wanted = trainer.state, trainer.args, groups * processes
    if not trainer.shuffle_dataset:
        answers = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
        step = max(args.generation_batch_size, answers) // trainer.num_generations
        count = min(count, round((state.epoch or 0) * count) + 4 * step)
    rng = seeds.rng(args.seed, "resample", state.global_step, trainer._step, attempt)
    drawn = (
        rng.sample(range(count), wanted) if wanted <= count else rng.choices(range(count), k=wanted)
    )
    mine = drawn[trainer.accelerator.process_index * groups :][:groups]
    return [dict(trainer.train_dataset[i]) for i in mine for _ in range(trainer.num_generations)]


def without(batch: Batch, dropped: torch.Tensor, *, loss: str, total: float, kept: float) -> Batch:
    """A batch whose ``dropped`` rows have no tokens left, and whose mean is over the others.

    Args:
        batch: what generation and scoring returned.
        dropped: (B,) rows to leave out.
        loss: TRL's ``loss_type``, which says what its mean is over.
        total, kept: rows of all processes, and those of them that stay.
    """
    stay = (~dropped).to(batch["completion_mask"])[:, None]
    made: Batch = {**batch, "completion_mask": batch["completion_mask"] * stay}
    if "tool_mask" in batch:
        made["tool_mask"] = batch["tool_mask"] * stay
    if loss in _BY_ROWS and kept:
        made["loss_scale"] = torch.tensor(total / kept, device=stay.device)
    return made


def merged(batch: Batch, other: Batch, places: Mapping[int, int], size: int, pad: int) -> Batch:
    """``batch`` with some groups replaced by groups of ``other``.

    Args:
        batch, other: what generation and scoring returned; they may differ in length.
        places: for a group of ``batch`` the group of ``other`` that takes its place.
        size: answers a group.
        pad: id that pads prompts and completions.
    """
    made: Batch = {}
    for name in {**batch, **other}:
        old, new = batch.get(name), other.get(name)
        if name == "tool_mask":  # there only where an answer was closed for the model
            old = torch.ones_like(batch["completion_ids"]) if old is None else old
            new = torch.ones_like(other["completion_ids"]) if new is None else new
        if not isinstance(old, torch.Tensor) or old.ndim == 0:
            made[name] = old
            continue
        assert isinstance(new, torch.Tensor)
        fill = {"prompt_ids": pad, "completion_ids": pad, "importance_sampling_ratio": 1}.get(
            name, 0
        )
        old, new = _widened(old, new, fill, left=name.startswith("prompt"))
        old = old.clone()
        for place, source in places.items():
            mine, theirs = slice(place * size, place * size + size), source * size
            old[mine] = new[theirs : theirs + size]
        made[name] = old
    return made


def _with_tokens(batch: Batch) -> torch.Tensor:
    """(B,) whether any token of an answer is trained; truncated ones may be masked."""
    return batch["completion_mask"].any(1)


def _widened(
    old: torch.Tensor, new: torch.Tensor, fill: int, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two (rows, length) tensors padded to one length."""
    if old.ndim < 2:
        return old, new
    width = max(old.shape[1], new.shape[1])

    def wide(x: torch.Tensor) -> torch.Tensor:
        room = width - x.shape[1]
        padding = (room, 0) if left else (0, room)
        return torch.nn.functional.pad(x, padding, value=fill)

    return wide(old), wide(new)


class FlatGroups:
    """What a run does with flat groups.

    Args:
        policy: ``keep`` them, ``drop`` them from the loss, or ``resample``: answer other prompts in
            their place, at most ``tries`` times a batch, and drop those that stay flat.
        tries: how often.
    """

    def __init__(self, policy: str = "keep", tries: int = 2) -> None:
        self.policy, self.tries = policy, tries

    def check(self, args: Any) -> None:
        """Refuse settings of TRL that do not go with dropping or replacing groups.

        Raises:
            RecipeError: a group divided among processes, a mean over micro-batches, or advantages
                that depend on the other groups of a batch.
        """
        if self.policy == "keep":
            return
        local, size = (
            args.per_device_train_batch_size * args.steps_per_generation,
            args.num_generations,
        )
        if local % size:
            raise RecipeError(
                f"a process generates {local} answers at once, groups have {size}",
                where="grpo.flat_groups",
                expected="whole groups on every process",
                remedy="make per_device_train_batch_size x gradient_accumulation_steps a multiple "
                "of num_generations",
            )
        if args.loss_type == "bnpo":
            raise RecipeError(
                "loss_type bnpo takes its mean over each micro-batch",
                where="grpo.flat_groups",
                expected="keep, or another training.loss_type",
            )
        apart = args.multi_objective_aggregation == "normalize_then_sum"
        if self.policy == "resample" and (apart or args.scale_rewards == "batch"):
            raise RecipeError(
                "advantages that are scaled over a batch cannot be mixed with others",
                where="grpo.flat_groups",
                expected="keep or drop, or training.scale_rewards group or none and "
                "multi_objective_aggregation sum_then_normalize",
            )

    def settle(self, trainer: Any, batch: Batch) -> Batch:
        """Apply the policy to a batch that was just generated and scored.

        Args:
            trainer: a ``GroupTrainer``, whose groups are whole on every process.
            batch: its rows on this process.
        """
        if not trainer.model.training:
            return batch
        size = trainer.num_generations
        if self.policy == "keep":
            trainer.trained += _with_tokens(batch).tolist()
            return batch
        flats = spotted(trainer)
        trainer.trained += (~flats.repeat_interleave(size) & _with_tokens(batch)).tolist()
        for attempt in range(1, self.tries + 1 if self.policy == "resample" else 1):
            wanted = int(trainer.accelerator.gather(flats.sum()[None]).max())
            if not wanted:
                break
            other = trainer.answer_others(wanted, attempt)
            varied = (~spotted(trainer)).nonzero()[:, 0].tolist()
            places = dict(zip(flats.nonzero()[:, 0].tolist(), varied, strict=False))
            taken = torch.zeros_like(_with_tokens(other))
            for group in places.values():
                taken[group * size :][:size] = True
            trainer.trained += (taken & _with_tokens(other)).tolist()
            batch = merged(batch, other, places, size, trainer.processing_class.pad_token_id)
            flats[list(places)] = False
        return self._dropped(trainer, batch, flats)

    def _dropped(self, trainer: Any, batch: Batch, flats: torch.Tensor) -> Batch:
        counts = torch.stack([(~flats).sum(), torch.tensor(len(flats), device=flats.device)])
        kept, total = trainer.accelerator.gather(counts[None]).sum(0).tolist()
        trainer._metrics["train"]["flat/dropped"].append(1 - kept / total)
        rows = flats.repeat_interleave(trainer.num_generations)
        made = without(batch, rows, loss=trainer.loss_type, total=total, kept=kept)
        mask = made["completion_mask"] * made.get("tool_mask", 1)
        made["num_items_in_batch"] = trainer.accelerator.gather(mask.sum()).sum()
        return made
