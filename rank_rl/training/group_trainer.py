"""TRL's GRPOTrainer with every prompt read once a group, and groups kept whole.

Only what costs time or exactness is replaced: generation, the pass that gives per-token
log-probabilities, and the order in which rows are dealt into batches. Rewards, advantages and
losses are TRL's (1.16). Shao et al., 2024 (GRPO).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from rank_rl import seeds
from rank_rl.generation import group_decode
from rank_rl.models.loading import cast_once
from rank_rl.training import group_generation
from rank_rl.training.common import sharded
from rank_rl.training.group_generation import Ending
from rank_rl.training.shared_pass import SharedPass

logger = logging.getLogger(__name__)
BUFFER = "group_buffer_{rank}.pt"


class GroupTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO on groups that share their prompt.

    Args:
        ending: when a generated answer is complete.
        share: whether to use the shared pass and shared generation where they are exact.
        arguments: those of GRPOTrainer.
    """

    def __init__(self, *, ending: Ending, share: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ending = ending
        exact = not (self.args.bf16 or self.args.fp16) and self.model.dtype == torch.float32
        self.shared_pass = SharedPass(self._stock, exact=exact) if share else None
        self.decodes: bool | None = None if share and self._own_generation() else False
        self.own_tokens: list[list[int]] | None = None

    # Training pass

    def _stock(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """TRL's pass."""
        logps, entropies, _ = super()._get_per_token_logps_and_entropies(
            model, ids, mask, kept, compute_entropy=True
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
            with self.accelerator.autocast():
                found = [self.shared_pass(model, i, m, logits_to_keep) for i, m in parts]
        if found is None or any(part is None for part in found):
            result: Any = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **options
            )
            return result
        logps, entropies = zip(*(part for part in found if part is not None), strict=True)
        wanted = options.get("compute_entropy") and entropies[0] is not None
        return torch.cat(logps), torch.cat(entropies) if wanted else None, None

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass."""
        try:
            loss: torch.Tensor = super().training_step(*args, **kwargs)
            return loss
        finally:
            if self.shared_pass is not None:
                self.shared_pass.close()

    # Generation

    def _own_generation(self) -> bool:
        """Whether the settings leave generation to us."""
        other = self.use_vllm or self.use_transformers_continuous_batching
        # Sharded weights are gathered for every forward pass, in step on all processes.
        gathered = not sharded(self.accelerator) or (
            self.is_deepspeed_enabled and self.args.ds3_gather_for_generation
        )
        return bool(
            not other and gathered and group_generation.supported(self.generation_kwargs)
        )

    @contextlib.contextmanager
    def _generating(self) -> Iterator[Any]:
        """The model as generation needs it."""
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            disable_gradient_checkpointing(model, self.args.gradient_checkpointing_kwargs),
            cast_once(model),
            self.accelerator.autocast(),
        ):
            yield model

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], images: Any, *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], Any]:
        """Completion ids of each row; log-probabilities only where vLLM gives them."""
        self.own_tokens = None
        if images is None and self.decodes is not False:
            with self._generating() as model:
                answers = self._draw(model, prompt_ids)
            if answers is not None:
                finished = [self.ending.finish(ids) for ids in answers]
                self.own_tokens = [own for _, own in finished]
                return [ids for ids, _ in finished], None
        found: tuple[list[list[int]], Any] = super()._generate_single_turn(
            prompt_ids, images, *args, **kwargs
        )
        return found

    def _draw(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]] | None:
        """Answers to the prompts of this process, or None where shared decoding is not exact."""
        if self.decodes is None:
            with group_decode.evaluating(model):
                self.decodes = group_decode.agrees(model)
            if not self.decodes:
                logger.warning("prompts are read again for every answer: shared decoding does "
                               "not give the log-probabilities of this model")  # fmt: skip
        most = self.generation_kwargs["max_new_tokens"]
        if not self.decodes or not group_generation.fits(model, prompts, most):
            return None
        return group_generation.generate(
            model,
            prompts,
            [(self.state.global_step, place) for place in self.places(len(prompts))],
            seed=self.args.seed,
            settings=self.generation_kwargs,
            ending=self.ending,
        )

    def places(self, count: int) -> list[int]:
        """Place in its group of each of this process's rows."""
        size = self.num_generations if self.model.training else self.num_generations_eval
        start = self.accelerator.process_index * count
        return [(start + i) % size for i in range(count)]

    def _generate(self, prompts: list[Any]) -> Any:
        """As TRL's; tokens that are not the model's own are masked out of the loss."""
        found = list(super()._generate(prompts))
        if self.own_tokens is not None and not all(map(all, self.own_tokens)):
            found[2] = self.own_tokens
        return tuple(found)

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
