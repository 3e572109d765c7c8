"""The training pass of GRPO with each prompt computed once a group, where that is exact.

``SharedPass`` stands before TRL's own ``_get_per_token_logps_and_entropies``: it checks on a few
tokens, once a run, that a packed pass gives this model's own log-probabilities and entropies, and
gives way to the ordinary pass where it does not, where nothing is shared, or where more is asked
for than tokens (images, mixture-of-experts losses).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from accelerate.utils import broadcast_object_list

from rank_rl.models import shared_prefix
from rank_rl.models.loading import evaluating
from rank_rl.models.packed_attention import Attention, attending, forms, half_tolerance

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# (model, ids, mask, kept, entropies?) to (B, kept) log-probabilities and entropies if asked for.
Stock: TypeAlias = Callable[[Any, Any, Any, int, bool], "tuple[torch.Tensor, torch.Tensor | None]"]

# Two prompts, left-padded to seven tokens, and ragged completions, right-padded to four. The first
# and the fourth row answer different prompts with the same tokens.
_PROMPTS = (3 * [[5, 9, 14, 20, 7, 11, 8]]) + (2 * [[0, 0, 5, 21, 8, 13, 6]])
_ANSWERS = ([30, 31, 33, 8], [40, 7, 0, 0], [8, 0, 0, 0], [30, 31, 33, 8], [42, 45, 46, 0])
_ROUNDING = 1e-6  # of fp32 sums, beside their size
# Errors beside what the prompt changes; a wrong position or a neighbour that is seen gives about 1.
_TOLERANCE = 0.01


class SharedPass:
    """The packed pass of one training run.

    Args:
        stock: the ordinary pass, to be checked against.
        exact: whether the model computes in fp32.
        least: a batch is packed where that leaves at most this share of its tokens to compute.

    Attributes:
        attention: the form in use; None where no form agrees, ``unchecked`` before the first batch.
        computed, repeated: tokens computed so far, and what separate rows would have computed.
    """

    def __init__(self, stock: Stock, *, exact: bool, least: float = 0.95) -> None:
        self.stock, self.exact, self.least = stock, exact, least
        self.attention: Attention | None | str = "unchecked"
        self.computed = self.repeated = 0
        self._open = contextlib.ExitStack()

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        kept: int,
        *,
        entropy: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """(B, kept) log-probabilities and entropies, or None where the ordinary pass is to run."""
        self.check(model, entropy)
        shared = self.plan(model, input_ids, attention_mask, kept)
        return None if shared is None else self.run(model, shared)

    def check(self, model: Any, entropy: bool) -> None:
        """Choose the form of attention, at the first call; every process must come here."""
        if self.attention == "unchecked":
            # All processes must run the same passes, whatever each of them measured.
            self.attention = broadcast_object_list([self.choose(model, entropy)])[0]

    def plan(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, kept: int
    ) -> shared_prefix.Shared | None:
        """The packed layout of a batch; None where it does not apply or saves nothing."""
        attention: Any = self.attention
        if attention is None:
            return None
        shared = shared_prefix.share(input_ids, attention_mask, kept)
        # What separate rows compute is padded to the longest.
        if shared is None or shared.tokens > self.least * input_ids.numel():
            return None
        if not shared_prefix.fits(model, shared, attention):
            return None
        return shared_prefix.to(shared, input_ids.device)

    def run(
        self, model: Any, shared: shared_prefix.Shared
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, kept) log-probabilities and entropies of a layout."""
        self.computed += shared.tokens
        self.repeated += shared.padded
        return self._run(model, shared, self.attention)

    def _run(
        self, model: Any, shared: shared_prefix.Shared, attention: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        if torch.is_grad_enabled():  # checkpointed layers run again in the backward pass
            self._open.enter_context(attending(model, attention))
        return shared_prefix.token_logprobs(model, shared, attention)

    def close(self) -> None:
        """Give the model its own attention back, after the backward pass."""
        self._open.close()

    def choose(self, model: Any, entropy: bool = True) -> Attention | None:
        """The first form of attention that agrees with the ordinary pass, or None."""
        import torch

        device = next(model.parameters()).device
        ids = torch.tensor([p + a for p, a in zip(_PROMPTS, _ANSWERS, strict=True)], device=device)
        mask, kept = (ids != 0).long(), len(_ANSWERS[0])
        shared = shared_prefix.share(ids, mask, kept)
        assert shared is not None
        shared = shared_prefix.to(shared, device)
        with torch.no_grad(), evaluating(model):  # dropout would make any two passes differ
            wanted = self.stock(model, ids, mask, kept, entropy)
            allowed = _TOLERANCE
            if not self.exact:  # in bf16 three columns of padding alone move values by a tenth
                wide, seen = (torch.nn.functional.pad(x, (3, 0)) for x in (ids, mask))
                noise = _error(self.stock(model, wide, seen, kept, entropy), wanted)
                allowed = half_tolerance(noise)
            for attention in forms(device.type):
                try:
                    got = self._run(model, shared, attention)
                except (TypeError, RuntimeError, ValueError, ImportError) as error:
                    logger.info("shared pass, %s: does not run here: %s", attention, error)
                    continue
                off = _error(got, wanted)
                logger.info("shared pass, %s: off by %.2g", attention, off)
                if off <= allowed:
                    return attention
        logger.warning(
            "prompts are computed once for every answer: no packed pass gives the "
            "log-probabilities of this model"
        )
        return None

    def report(self) -> Mapping[str, float]:
        """Share of the tokens of separate rows that was computed; empty when none was shared."""
        return {"shared/computed": self.computed / self.repeated} if self.repeated else {}


def _error(got: Any, wanted: Any) -> float:
    """Largest error of log-probabilities and entropies beside what the prompt changes in them."""
    worst = 0.0
    for ours, theirs in zip(got, wanted, strict=True):
        if theirs is None or ours is None:
            continue
        scale = (theirs[0] - theirs[3]).abs().mean()
        # Rounding alone, which a model that hardly heeds its prompt must not fail for.
        excess = ((ours - theirs).abs() - _ROUNDING * theirs.abs()).clamp(min=0)
        off = float(excess.max() / scale) if excess.any() else 0.0
        worst = max(worst, off) if math.isfinite(off) else math.inf
    return worst
