"""What is learned from: rewards, losses, GRPO, and validation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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


class AlarmSpec(Spec):
    """When a GRPO run has gone wrong; see ``rank_rl.training.alarm`` for what is compared.

    Means over the last ``window`` log records are held against those of the first ``window``.
    ``entropy``: below that share of the start's. ``length``: completions so many times as long or
    as short. ``unreadable``, ``truncated``, ``flat``: shares of failed parses, of completions that
    did not end, of groups without differences, no better than at the start. ``hacking``: so far is
    the reward above copying the input while validation is below where it began. null leaves a kind
    out.
    """

    action: Literal["warn", "stop", "off"] = "warn"
    window: int = Field(default=10, ge=1)
    entropy: float | None = Field(default=0.1, gt=0, lt=1)
    length: float | None = Field(default=3.0, gt=1)
    unreadable: float | None = Field(default=0.5, gt=0, le=1)
    truncated: float | None = Field(default=0.5, gt=0, le=1)
    flat: float | None = Field(default=0.9, gt=0, le=1)
    hacking: float | None = Field(default=0.05, ge=0)


class GrpoSpec(Spec):
    """What GRPO's policy acts through, and how a run is watched.

    What follows ``flat_tries``, but for ``alarm`` and ``log_completions``, belongs to ``slots``.

    ``text``: answers are generated token by token, by TRL's trainer; with ``shared_prefix`` auto
    each prompt is read once for all answers of its group, in generation and in the training pass,
    wherever a check at the start finds that exact; off repeats it as TRL does. Groups whose answers
    all earn the same are kept, dropped from the loss (the mean is then over the others), or
    replaced by answers to other prompts up to ``flat_tries`` times a batch and dropped if they stay
    flat (resample).

    ``slots``: packed groups; orders are sampled from the label scores (``plackett_luce``) or a
    label a document from the label probabilities (``labels``), at ``temperature``, and a group of
    ``group_size`` costs one forward and backward pass. ``top_k`` places of an order count in its
    probability. ``clip`` bounds the change of an action's probability that is rewarded, which
    matters from the second of ``iterations`` updates with the same actions on. ``supervised`` adds
    that share of the recipe's ``losses``. ``aggregation``: advantages of the weighted sum of the
    rewards, or the weighted mean of each reward's own advantages.

    ``log_completions`` records answers every so many steps, ``alarm`` says when a run goes wrong.
    """

    policy: Literal["text", "slots"] = "text"
    shared_prefix: Literal["auto", "off"] = "auto"
    flat_groups: Literal["keep", "drop", "resample"] = "keep"
    flat_tries: int = Field(default=2, ge=1)
    action: Literal["plackett_luce", "labels"] = "plackett_luce"
    group_size: int = Field(default=64, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=10, ge=1)
    clip: float = Field(default=0.2, gt=0)
    iterations: int = Field(default=1, ge=1)
    scale_advantages: bool = True
    aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    supervised: float = Field(default=0.0, ge=0)
    alarm: AlarmSpec = AlarmSpec()
    log_completions: int = Field(default=0, ge=0, description="steps between records; 0: none")

    @model_validator(mode="after")
    def _aggregation_has_effect(self) -> GrpoSpec:
        if self.aggregation == "normalize_then_sum":
            if self.policy == "text":
                raise ValueError(
                    "aggregation belongs to policy slots: with policy text set "
                    "training.multi_objective_aggregation: normalize_then_sum"
                )
            if not self.scale_advantages:
                raise ValueError(
                    "aggregation normalize_then_sum scales every reward by its spread: leave "
                    "scale_advantages out"
                )
        return self


class EvalSpec(Spec):
    """Validation by really reranking held-out-from-train queries.

    ``readout`` is what counts as a document's score. Label slots: ``score`` is the label logits,
    ``expected`` the expected label value, ``decoded`` the value of the label that greedy decoding
    writes (a document where it writes no label keeps its first-stage position). Format scores:
    ``decoded`` is the integers as written, ``expected`` their expectation, ``guided`` (mode
    answer) the expectations where all but the scores is given to the model. Orders are always
    ``decoded``. ``auto`` is score for slots and decoded otherwise.

    After ``patience`` validations in a row that are not better than the best by ``min_gain``
    training ends.
    """

    strategy: StrategySpec = StrategySpec()
    readout: Readout = "auto"
    metric: str = "ndcg@10"
    every: int = Field(default=0, ge=0, description="steps between validations; 0: at the end")
    patience: int = Field(default=0, ge=0, description="validations without a gain; 0: any number")
    min_gain: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _patience_can_end(self) -> EvalSpec:
        if self.patience and not self.every:
            raise ValueError("patience counts validations while training: set eval.every too")
        return self
