"""Generation of TRL's GRPOTrainer with every prompt read once a group; see ``group_trainer``.

With vLLM, continuous batching, sampling settings that ``group_generation`` does not know, or
weights that are gathered at every forward pass, generation is TRL's own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation

from rank_rl.generation import group_decode
from rank_rl.models.loading import cast_once, evaluating
from rank_rl.training import group_generation
from rank_rl.training.common import sharded
from rank_rl.training.group_generation import Ending

logger = logging.getLogger(__name__)


class GroupSampler(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose answers are drawn by shared decoding, where that is exact.

    Args:
        ending: when a generated answer is complete.
        share: whether to use shared decoding at all.
        arguments: those of GRPOTrainer.

    Attributes:
        decodes: whether shared decoding is in use; None before the first batch.
        attempt: tells the draws of a step apart, where a batch is answered several times.
    """

    def __init__(self, *, ending: Ending, share: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ending = ending
        self.decodes: bool | None = None if share and self._own_generation() else False
        self.own_tokens: list[list[int]] | None = None
        self.attempt = 0

    def _own_generation(self) -> bool:
        """Whether the settings leave generation to us."""
        other = self.use_vllm or self.use_transformers_continuous_batching
        # Sharded weights are gathered for every forward pass, in step on all processes.
        gathered = not sharded(self.accelerator) or (
            self.is_deepspeed_enabled and self.args.ds3_gather_for_generation
        )
        return bool(not other and gathered and group_generation.supported(self.generation_kwargs))

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
                return self._finished(answers), None
        answers, logprobs = super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        finished = self._finished(answers)
        if logprobs is not None:  # an end token put behind an answer is masked, so any value does
            pairs = zip(logprobs, finished, strict=True)
            logprobs = [[*known, 0.0][: len(ids)] for known, ids in pairs]
        return finished, logprobs

    def _finished(self, answers: Sequence[list[int]]) -> list[list[int]]:
        """Answers up to where they close; which tokens are the model's own is kept."""
        finished = [self.ending.finish(ids) for ids in answers]
        self.own_tokens = [own for _, own in finished]
        return [ids for ids, _ in finished]

    def _draw(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]] | None:
        """Answers to the prompts of this process, or None where shared decoding is not exact."""
        if self.decodes is None:
            with evaluating(model):
                self.decodes = broadcast_object_list([group_decode.agrees(model)])[0]
            if not self.decodes:
                logger.warning("prompts are read again for every answer: shared decoding does "
                               "not give the log-probabilities of this model")  # fmt: skip
        most = self.generation_kwargs["max_new_tokens"]
        if not self.decodes or not group_generation.fits(model, prompts, most):
            return None
        return group_generation.generate(
            model,
            prompts,
            [(*self._moment(), place) for place in self.places(len(prompts))],
            seed=self.args.seed,
            settings=self.generation_kwargs,
            ending=self.ending,
        )

    def _moment(self) -> tuple[int, ...]:
        """What tells the draws for a prompt apart that is answered again."""
        again = (self.attempt, self._step) if self.attempt else (0,)
        return (self.state.global_step, *again)

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
