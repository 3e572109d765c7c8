"""TRL's GRPOTrainer with every prompt read once a group, and groups kept whole.

Only what costs time or exactness is replaced: generation, the pass that gives per-token
log-probabilities, and the order in which rows are dealt into batches. Rewards, advantages and
losses are TRL's (1.16). Shao et al., 2024 (GRPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from trl.trainer.utils import split_tensor_dict

from rank_rl import seeds
from rank_rl.errors import RecipeError
from rank_rl.training import flat_groups
from rank_rl.training.flat_groups import FlatGroups
from rank_rl.training.group_generation import Ending
from rank_rl.training.group_sampler import GroupSampler
from rank_rl.training.shared_pass import SharedPass

BUFFER = "group_buffer_{rank}.pt"


class GroupTrainer(GroupSampler):
    """GRPO on groups that share their prompt.

    Args:
        ending: when a generated answer is complete.
        share: whether to use the shared pass and shared generation where they are exact.
        flat: what becomes of groups whose answers all earn the same.
        arguments: those of GRPOTrainer.

    Raises:
        RecipeError: flat groups are not kept, and a group is divided among processes.
    """

    def __init__(
        self,
        *,
        ending: Ending,
        share: bool = True,
        flat: FlatGroups | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(ending=ending, share=share, **arguments)
        self.flat = flat or FlatGroups()
        self.rewards_found: torch.Tensor | None = None
        local = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if self.flat.policy != "keep" and local % self.num_generations:
            raise RecipeError(
                f"a process generates {local} answers at once, groups have {self.num_generations}",
                where="grpo.flat_groups",
                expected="whole groups on every process",
                remedy="make per_device_train_batch_size x gradient_accumulation_steps a multiple "
                "of num_generations",
            )
        exact = not (self.args.bf16 or self.args.fp16) and self.model.dtype == torch.float32
        self.shared_pass = SharedPass(self._stock, exact=exact) if share else None
        self._buffered_inputs: list[dict[str, Any]] | None = None

    # Training pass

    def _stock(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """TRL's pass."""
        logps, entropies, _ = super()._get_per_token_logps_and_entropies(
            model, ids, mask, kept, compute_entropy=entropy
        )
        return logps, entropies

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As TRL's, in packed passes of at most ``batch_size`` rows where that is exact."""
        found = None
        more = {k: v for k, v in options.items() if k != "compute_entropy" and v}
        if self.shared_pass is not None and not more:
            size = batch_size or len(input_ids)
            parts = zip(input_ids.split(size), attention_mask.split(size), strict=True)
            entropy = bool(options.get("compute_entropy"))
            with self.accelerator.autocast():
                found = [
                    self.shared_pass(model, i, m, logits_to_keep, entropy=entropy) for i, m in parts
                ]
        if found is None or any(part is None for part in found):
            result: Any = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **options
            )
            return result
        logps, entropies = zip(*(part for part in found if part is not None), strict=True)
        return torch.cat(logps), torch.cat(entropies) if entropy else None, None

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass."""
        try:
            loss: torch.Tensor = super().training_step(*args, **kwargs)
            return loss
        finally:
            if self.shared_pass is not None:
                self.shared_pass.close()

    # Rewards

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        """As TRL's; kept, for what looks at whole groups."""
        self.rewards_found = super()._calculate_rewards(*args)
        return self.rewards_found

    def flat_groups(self) -> torch.Tensor:
        """(groups,) of this process, as last answered: whether all answers earn the same."""
        assert self.rewards_found is not None
        every = flat_groups.flat(
            self.rewards_found,
            self.reward_weights.to(self.rewards_found.device),
            self.num_generations,
            apart=self.multi_objective_aggregation == "normalize_then_sum",
        )
        own = len(every) // self.accelerator.num_processes
        return every[self.accelerator.process_index * own :][:own].clone()

    def answer_others(self, groups: int, attempt: int) -> dict[str, Any]:
        """Answer and score other training prompts, drawn from the seed; see ``FlatGroups``."""
        rng = seeds.rng(self.args.seed, "resample", self.state.global_step, self._step, attempt)
        wanted = groups * self.accelerator.num_processes
        drawn = rng.choices(range(len(self.train_dataset)), k=wanted)
        mine = drawn[self.accelerator.process_index * groups :][:groups]
        rows = [dict(self.train_dataset[i]) for i in mine for _ in range(self.num_generations)]
        self.attempt = attempt
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(rows)
            return batch
        finally:
            self.attempt = 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, without flat groups where the recipe says so."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return self.flat.settle(self, batch)

    # Batches

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The rows of this step: whole groups together, in an order drawn from the seed."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            order = self._dealt(len(batch["completion_ids"]))
            batch = {k: v[order] if _rows(v) else v for k, v in batch.items()}
            self._buffered_inputs = split_tensor_dict(batch, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _dealt(self, count: int) -> torch.Tensor:
        """An order of rows that keeps the rows of a group together."""
        size = self.num_generations
        whole = [list(range(start, min(count, start + size))) for start in range(0, count, size)]
        rng = seeds.rng(self.args.seed, "deal", self.state.global_step, self._step)
        rng.shuffle(whole)
        return torch.tensor([i for group in whole for i in group])

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As TRL's, with the completions that are still to be trained on."""
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._buffered_inputs is not None and folder.is_dir():
            state = {"step": self._step, "inputs": self._buffered_inputs}
            torch.save(state, folder / BUFFER.format(rank=self.accelerator.process_index))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """As TRL's; generation goes on where the checkpoint was written."""
        super()._load_optimizer_and_scheduler(checkpoint)
        path = Path(checkpoint or "") / BUFFER.format(rank=self.accelerator.process_index)
        if checkpoint and path.is_file():
            state = torch.load(path, map_location=self.args.device, weights_only=True)
            self._step, self._buffered_inputs = state["step"], state["inputs"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add what the shared pass saved."""
        if self.shared_pass is not None and "loss" in logs:
            logs |= self.shared_pass.report()
        super().log(logs, *args, **kwargs)


def _rows(value: Any) -> bool:
    """Whether a value of a batch has one entry a row."""
    return isinstance(value, torch.Tensor) and value.ndim > 0


def saved(trainer: GroupTrainer) -> Mapping[str, Any]:
    """What was shared in a run, for its summary."""
    used = trainer.shared_pass.attention if trainer.shared_pass is not None else None
    return {"pass": used, "generation": bool(trainer.decodes)}
