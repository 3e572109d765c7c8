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
from rank_rl.training.batches import Repeated, dealt, held, hold, shuffled
from rank_rl.training.common import sharded
from rank_rl.training.flat_groups import FlatGroups, others
from rank_rl.training.group_generation import Ending
from rank_rl.training.group_rows import GroupShuffle
from rank_rl.training.group_sampler import GroupSampler
from rank_rl.training.rank_credit import RankCredit
from rank_rl.training.shared_pass import SharedPass


class GroupTrainer(GroupSampler):
    """GRPO on groups that share their prompt.

    Args:
        ending: when a generated answer is complete.
        share: whether to use the shared pass and shared generation where they are exact.
        flat: what becomes of groups whose answers all earn the same.
        arguments: those of GRPOTrainer.

    Raises:
        RecipeError: settings that do not go with what becomes of flat groups.
    """

    variants: GroupShuffle | None = None  # shows each answer of a group another order
    credit: RankCredit | None = None  # gives tokens advantages of their own

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
        # Of the answers scored in this step: advantage, and whether the loss sees it.
        self.advantages_found: list[float] = []
        self.trained: list[bool] = []
        self.flat.check(self.args)
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
        more = {k: v for k, v in options.items() if k != "compute_entropy" and v}
        if self.shared_pass is None or more:
            result: Any = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **options
            )
            return result
        size = batch_size or len(input_ids)
        entropy = bool(options.get("compute_entropy"))
        with self.accelerator.autocast():
            self.shared_pass.check(model, entropy)
            found = [
                self._part(model, ids, mask, logits_to_keep, entropy)
                for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        logps, entropies = zip(*found, strict=True)
        return torch.cat(logps), torch.cat(entropies) if entropy else None, None

    def _part(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pass, packed where that is possible on every process."""
        assert self.shared_pass is not None
        shared = self.shared_pass.plan(model, ids, mask, kept)
        if sharded(self.accelerator):  # whose passes wait for one another
            every = self.accelerator.gather(torch.tensor([shared is not None], device=ids.device))
            shared = shared if bool(every.all()) else None
        if shared is None:
            return self._stock(model, ids, mask, kept, entropy)
        return self.shared_pass.run(model, shared)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """As TRL's; over the groups that are kept, where flat ones are dropped."""
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss

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

    def answer_others(self, groups: int, attempt: int) -> dict[str, Any]:
        """Answer and score other training prompts; see ``FlatGroups``."""
        rows = others(self, groups, attempt)
        self.attempt = attempt
        try:
            return self._scored(rows)
        finally:
            self.attempt = 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, without flat groups where the recipe says so."""
        return self.flat.settle(self, self._scored(inputs))

    def _scored(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, on what each answer is shown, with an advantage an answer or a token."""
        if self.variants is not None:
            inputs = self.variants(inputs, self.places(len(inputs)))
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self.advantages_found += batch["advantages"].tolist()
            if self.credit is not None:
                batch["advantages"] = self.credit(self, inputs, batch)
        return batch

    # Batches

    def _get_train_sampler(self, dataset: Any = None) -> Repeated:
        """As TRL's, but drawn anew for every epoch: a resumed run goes on with its order."""
        rows = self.train_dataset if dataset is None else dataset
        size = self.args.generation_batch_size // self.num_generations
        if len(rows) < size:
            raise RecipeError(
                f"{len(rows)} training views are less than the {size} of a batch",
                where="training.per_device_train_batch_size",
                remedy="lower it or gradient_accumulation_steps, or raise data.sampler.per_query",
            )
        count, seed = len(rows), self.args.seed

        def order() -> list[int]:
            return shuffled(count, seed, self.state.epoch)

        return Repeated(
            count,
            order=order if self.shuffle_dataset else lambda: list(range(count)),
            size=size,
            times=self.num_iterations * self.args.steps_per_generation,
            each=self.num_generations,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The rows of this step: whole groups together, in an order drawn from the seed."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            rng = seeds.rng(self.args.seed, "deal", self.state.global_step, self._step)
            order = torch.tensor(dealt(len(batch["completion_ids"]), self.num_generations, rng))
            batch = {k: v[order] if _rows(v) else v for k, v in batch.items()}
            self._buffered_inputs = split_tensor_dict(batch, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # Checkpoints

    def _save_rng_state(self, output_dir: str) -> None:
        """As transformers', with the completions that are still to be trained on.

        Every process comes here, before the file that makes a checkpoint complete is written.
        """
        super()._save_rng_state(output_dir)
        if self._buffered_inputs is not None:
            hold(self._buffer(output_dir), self._step, self._buffered_inputs, self.accelerator)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """As TRL's; generation goes on where the checkpoint was written."""
        super()._load_optimizer_and_scheduler(checkpoint)
        found = held(self._buffer(checkpoint), self.accelerator) if checkpoint else None
        if found is not None:
            self._step, self._buffered_inputs = found

    def _buffer(self, folder: Any) -> Path:
        return Path(folder) / f"group_buffer_{self.accelerator.process_index}.pt"

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
    share = trainer.shared_pass
    used = share.attention if share is not None and share.computed else None
    return {"pass": used, "generation": bool(trainer.decodes)}
