"""What is learned from: rewards, losses, GRPO, and validation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rank_rl.specs.base import NamedSpec, Readout, Spec, StrategySpec


class RewardSpec(NamedSpec):
    """One reward, with its weight in the sum.

    ``gate`` names another reward: while that one's value is at least ``gate_min`` this one pays,
    otherwise it pays its low bound, at most 0.
    """

    weight: float = 1.0
    gate: str | None = None
    gate_min: float = 0.5


class LossSpec(NamedSpec):
    """One loss of the ``score`` stage with its weight in the sum."""

    weight: float = 1.0


class GrpoSpec(Spec):
    """What GRPO's policy acts through; all but the first two keys belongs to ``slots``.

    ``text``: answers are generated token by token, by TRL's trainer; with ``shared_prefix`` auto
    each prompt is read once for all answers of its group, in generation and in the training pass,
    wherever a check at the start finds that exact; off repeats it as TRL does. ``slots``: packed groups; orders are sampled
    from the label scores (``plackett_luce``) or a label a document from the label probabilities
    (``labels``), at ``temperature``, and a group of ``group_size`` costs one forward and backward
    pass. ``top_k`` places of an order count in its probability. ``clip`` bounds the change of an
    action's probability that is rewarded, which matters from the second of ``iterations`` updates
    with the same actions on. ``supervised`` adds that share of the recipe's ``losses``.
    """

    policy: Literal["text", "slots"] = "text"
    shared_prefix: Literal["auto", "off"] = "auto"
    action: Literal["plackett_luce", "labels"] = "plackett_luce"
    group_size: int = Field(default=64, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=10, ge=1)
    clip: float = Field(default=0.2, gt=0)
    iterations: int = Field(default=1, ge=1)
    scale_advantages: bool = True
    supervised: float = Field(default=0.0, ge=0)


class EvalSpec(Spec):
    """Validation by really reranking held-out-from-train queries.

    ``readout`` is what counts as a document's score. Label slots: ``score`` is the label logits,
    ``expected`` the expected label value, ``decoded`` the value of the label that greedy decoding
    writes (a document where it writes no label keeps its first-stage position). Format scores:
    ``decoded`` is the integers as written, ``expected`` their expectation, ``guided`` (mode
    answer) the expectations where all but the scores is given to the model. Orders are always
    ``decoded``. ``auto`` is score for slots and decoded otherwise.
    """

    strategy: StrategySpec = StrategySpec()
    readout: Readout = "auto"
    metric: str = "ndcg@10"
    every: int = Field(default=0, ge=0, description="steps between validations; 0: at the end")
    max_new_tokens: int = Field(default=256, ge=1)
