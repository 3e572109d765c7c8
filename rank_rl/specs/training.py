"""What is learned from: rewards, losses, GRPO, and validation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import NamedSpec, Readout, Reasoning, Spec, StrategySpec


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


class PassRateSpec(Spec):
    """Which training rows are worth a group, by how often the start model solves them.

    A row is answered ``samples`` times; an answer passes when its reward is at least ``threshold``
    of the way from copying the order shown (0) to the best order (1). Rows whose share of passes
    lies strictly between ``low`` and ``high`` are kept; null sets no bound. ``order`` sorts them by
    ``order_by``: by pass rate, or by what needs no answers (nDCG of the order shown, share of
    relevant documents, place of the first relevant one). ``file`` holds rates of an earlier run.
    With ``samples: 0`` and no file nothing is asked and nothing left out.
    """

    samples: int = Field(default=4, ge=0)
    threshold: float = Field(default=0.5, ge=0, le=1)
    low: float | None = Field(default=0.0, ge=0, le=1)
    high: float | None = Field(default=1.0, ge=0, le=1)
    order: Literal["none", "easy_first", "hard_first"] = "none"
    order_by: Literal["pass_rate", "shown_ndcg", "relevant_share", "best_rank"] = "pass_rate"
    file: str | None = None

    @model_validator(mode="after")
    def _has_rates(self) -> PassRateSpec:
        if not self.asks and self.order != "none" and self.order_by == "pass_rate":
            raise ValueError("no pass rates to order by: set samples, file or another order_by")
        if not self.asks and self.order == "none":
            raise ValueError("neither pass rates nor an order: set samples, file or order")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"no pass rate lies between low {self.low} and high {self.high}")
        return self

    @property
    def asks(self) -> bool:
        """Whether there are pass rates."""
        return bool(self.samples or self.file)


class AlarmSpec(Spec):
    """When a GRPO run has gone wrong; see ``rank_rl.training.alarm`` for what is compared.

    Means over the last ``window`` log records are held against those of the first ``window``; in a
    short run a quarter of its records, at least 2, if that is less. ``entropy``: below that share
    of the start's. ``length``: completions so many times as long or as short, without a higher
    reward. ``unreadable``, ``truncated``, ``flat``: shares of failed parses, of completions that
    did not end, of groups without differences, not a tenth lower than at the start. ``hacking``: so
    far is the reward above copying the input while validation is below where it began. ``noise``:
    a reward or a validation metric that changes by no more has not changed. null leaves a kind out.
    """

    action: Literal["warn", "stop", "off"] = "warn"
    window: int = Field(default=10, ge=1)
    entropy: float | None = Field(default=0.1, gt=0, lt=1)
    length: float | None = Field(default=3.0, gt=1)
    unreadable: float | None = Field(default=0.5, gt=0, le=1)
    truncated: float | None = Field(default=0.5, gt=0, le=1)
    flat: float | None = Field(default=0.9, gt=0, le=1)
    hacking: float | None = Field(default=0.05, ge=0)
    noise: float = Field(default=0.02, ge=0)


class GrpoSpec(Spec):
    """What GRPO's policy acts through, and how a run is watched.

    What follows ``pass_rate``, but for ``alarm`` and ``log_completions``, belongs to ``slots``;
    ``credit`` belongs to both policies.

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

    ``credit: rank`` gives each place of a list its own advantage (Rank-GRPO, 2510.20150).
    ``group_shuffle`` shows the documents to each answer of a group in another order; ``pass_rate``
    leaves training rows out and sorts them.
    """

    policy: Literal["text", "slots"] = "text"
    shared_prefix: Literal["auto", "off"] = "auto"
    flat_groups: Literal["keep", "drop", "resample"] = "keep"
    flat_tries: int = Field(default=2, ge=1)
    credit: Literal["answer", "rank"] = "answer"
    group_shuffle: bool = False
    pass_rate: PassRateSpec | None = None
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

    @model_validator(mode="after")
    def _belongs(self) -> GrpoSpec:
        if self.policy == "slots" and (self.group_shuffle or self.pass_rate is not None):
            raise ValueError("group_shuffle and pass_rate belong to policy text")
        if self.policy == "slots" and self.credit == "rank" and self.action == "labels":
            raise ValueError("credit rank needs the places of an order: action plackett_luce")
        if self.credit == "rank" and self.aggregation == "normalize_then_sum":
            raise ValueError("credit rank divides a sum of rewards: aggregation sum_then_normalize")
        return self


class EvalSpec(Spec):
    """Validation by really reranking held-out-from-train queries.

    ``readout`` is what counts as a document's score. Label slots: ``score`` is the label logits,
    ``expected`` the expected label value, ``decoded`` the value of the label that greedy decoding
    writes (a document where it writes no label keeps its first-stage position). Format scores:
    ``decoded`` is the integers as written, ``expected`` their expectation, ``guided`` (mode
    answer) the expectations where all but the scores is given to the model. Formats that choose
    among labels (choice, pair, pointwise): ``score`` is the log-probabilities of the labels in one
    pass. Orders are always ``decoded``. ``auto`` is score for slots and decoded otherwise.

    ``reasoning: skip`` lets a model that was trained to reason answer at once (TFRank, 2025).

    After ``patience`` validations in a row that are not better than the best by ``min_gain``
    training ends.
    """

    strategy: StrategySpec = StrategySpec()
    readout: Readout = "auto"
    reasoning: Reasoning = "write"
    metric: str = "ndcg@10"
    on_start: bool = Field(default=True, description="validate before the first step too")
    every: int = Field(default=0, ge=0, description="steps between validations; 0: at the end")
    patience: int = Field(default=0, ge=0, description="validations without a gain; 0: any number")
    min_gain: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _patience_can_end(self) -> EvalSpec:
        if self.patience and not self.every:
            raise ValueError("patience counts validations while training: set eval.every too")
        return self
