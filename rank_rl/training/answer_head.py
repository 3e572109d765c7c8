"""The vocabulary projection of TRL's losses, for answer tokens only, where there is no GPU.

TRL (1.16) asks a model for per-token log-probabilities (``fused_lm_head=True``). Without Triton it
projects every position, prompts included, through chunks whose backward pass leaves autocast: for
a prompt of 100 and an answer of 20 tokens and 49k words that took 3 (fp32) and 35 times (bf16) as
long as projecting the answer alone, which is done here. The values are the same.
"""

from __future__ import annotations

import functools
import logging
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CHUNK = 1024  # answer tokens whose logits are held at once; more are computed again for backward


def install(trainer: Any, *, temperature: float = 1.0) -> bool:
    """Replace the fused forward that TRL put on a trainer's model; before training starts.

    Left as it is on a GPU, for sharded weights, and where more is asked for than log-probabilities
    (mixture-of-experts losses, scaled or capped logits, an entropy bonus).

    Args:
        trainer: an SFTTrainer or GRPOTrainer that has not started.
        temperature: what logits are divided by.

    Returns:
        Whether it was replaced.
    """
    from rank_rl.training.common import sharded

    model = trainer.model.get_base_model() if _has_adapter(trainer.model) else trainer.model
    if (
        trainer.args.device.type != "cpu"
        or sharded(trainer.accelerator)
        or _unusual(model.config)
        or getattr(trainer, "_entropy_bonus_enabled", False)
        or getattr(trainer.args, "cast_lm_head_to_fp32", False)
    ):
        return False
    before = model.forward

    @functools.wraps(type(model).forward)  # generation checks its arguments against the signature
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head or labels is None:
            if labels is not None:
                kwargs["labels"] = labels
            return before(*args, **kwargs)
        items = kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        return fused_output(hidden, head.weight, head.bias, labels, temperature, items)

    model.forward = types.MethodType(forward, model)
    return True


def fused_output(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    temperature: float,
    num_items: Any = None,
) -> Any:
    """TRL's ``FusedCausalLMOutput`` for (B, T, H) states and (B, T) labels, -100 left out.

    Per-token fields have shape (B, T - 1) and are 0 where there is no label.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    targets = labels[:, 1:]
    mask = targets != -100
    found = _project(hidden[:, :-1][mask], weight, bias, targets[mask], temperature)
    log_probs, entropy, top = (
        x.new_zeros(mask.shape).masked_scatter(mask, x) if len(x) else x.new_zeros(mask.shape)
        for x in found
    )
    if not mask.any():  # keeps the loss connected to the weights: its gradient is zero
        log_probs = log_probs + 0.0 * hidden.sum()
    count = mask.sum().clamp(min=1) if num_items is None else num_items
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / count,
        log_probs=log_probs,
        entropy=entropy,
        is_top1=top,
        label_mask=mask,
    )


def _project(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability of each target, entropy, and whether the target is likeliest; each (N,)."""
    import torch
    from torch.utils.checkpoint import checkpoint

    parts = list(zip(states.split(CHUNK), targets.split(CHUNK), strict=True))
    if len(parts) == 1:
        return _read(states, weight, bias, targets, temperature)
    read = [
        checkpoint(_read, h, weight, bias, t, temperature, use_reentrant=False) for h, t in parts
    ]
    log_probs, entropy, top = (torch.cat(column) for column in zip(*read, strict=True))
    return log_probs, entropy, top


def _read(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    logits = torch.nn.functional.linear(states, weight, bias).float() / temperature
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        top = log_probs.argmax(-1) == targets
    return log_probs.gather(-1, targets[:, None])[:, 0], entropy, top


def _has_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _unusual(config: Any) -> bool:
    """Whether a model does more between its last states and its logits than one projection."""
    text = config.get_text_config()
    scales = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    return (
        hasattr(text, "output_router_logits")
        or getattr(text, "final_logit_softcapping", None) is not None
        or any(getattr(text, name, None) is not None for name in scales)
    )
