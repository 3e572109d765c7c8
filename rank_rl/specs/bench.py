"""What a benchmark compares."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rank_rl.specs.base import (
    FormatSpec,
    FusionSpec,
    Readout,
    Reasoning,
    Spec,
    StrategySpec,
)
from rank_rl.specs.data import DataSpec
from rank_rl.specs.leaks import LeakSpec
from rank_rl.specs.secrets import secret
from rank_rl.specs.teach import PriceSpec

ASKED = ("slots", "text", "scorer", "endpoint", "cross_encoder")  # kinds that ask a model
GIVEN = ("random", "first_stage", "perfect", "run")  # kinds that ask none


class SystemSpec(Spec):
    """One row of the benchmark.

    ``kind``: random, first_stage, perfect, slots (label slots, packed), text (generated answers,
    or the label of a format that chooses one, with readout score), scorer (a model that writes
    nothing), endpoint (text answers of a model behind an OpenAI-compatible server: a teacher),
    cross_encoder (any model that sentence-transformers' CrossEncoder loads) or run (a TREC run file
    in ``path``). ``model`` and ``path`` may hold ``{seed}``, which each of ``bench.seeds``
    replaces: checkpoints of several training runs. ``params``: of an endpoint, its settings
    (``base_url``, ``concurrency``, ``temperature`` …); of a cross-encoder, ``max_length`` and
    ``batch_size``. ``readout``: as in ``eval``; ``auto`` keeps the one saved with the checkpoint.
    ``max_new_tokens``: null is the number saved with the checkpoint, or 256. ``reasoning``: as in
    ``eval``; null is the checkpoint's or the recipe's. ``fusion`` adds a row: the same rankings
    joined with the first stage, for which nothing is asked again.
    """

    name: str
    kind: Literal[
        "random",
        "first_stage",
        "perfect",
        "slots",
        "text",
        "scorer",
        "endpoint",
        "cross_encoder",
        "run",
    ]
    model: str | None = None
    path: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    format: FormatSpec | None = None
    strategy: StrategySpec | None = None
    readout: Readout = "auto"
    reasoning: Reasoning | None = None
    fusion: FusionSpec | None = None
    explain: int = Field(default=0, ge=0, description="write reasoning for the top k documents")
    max_new_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _needs(self) -> SystemSpec:
        if self.kind in ASKED and not self.model:
            raise ValueError(f"system {self.name!r} of kind {self.kind} needs a model")
        if self.kind == "run" and not self.path:
            raise ValueError(f"system {self.name!r} of kind run needs a path")
        self._has_no(("readout",), allowed=self.readout == "auto" or self.kind in ASKED)
        for key in ("reasoning", "fusion"):
            self._has_no((key,), allowed=getattr(self, key) is None or self.kind not in GIVEN)
        allowed = not self.params or self.kind in ("endpoint", "cross_encoder")
        self._has_no(("params",), allowed=allowed)
        if self.kind == "cross_encoder":
            for key in ("format", "strategy", "reasoning"):
                self._has_no((key,), allowed=getattr(self, key) is None)
        if self.explain and self.reasoning == "skip":
            raise ValueError(f"system {self.name!r}: explain writes reasoning, skip skips it")
        if found := secret(self.params):
            raise ValueError(
                f"system {self.name!r}: {found} does not belong into a recipe: keys come from the "
                "environment, api_key_env names the variable"
            )
        return self

    def _has_no(self, keys: tuple[str, ...], *, allowed: bool) -> None:
        if not allowed:
            raise ValueError(f"system {self.name!r} of kind {self.kind} has no {keys[0]}")


class CollectionSpec(DataSpec):
    """One of several collections: the keys of section ``data``, its name and its metrics.

    Only its test split is ranked. ``metrics``: null are the source's own where it names some
    (BRIGHT: ndcg@10; TREC DL: graded nDCG and MAP from grade 2 on …), else those of ``bench``.
    """

    train_split: str = ""
    name: str = Field(min_length=1)
    metrics: list[str] | None = None


class DiagnosisSpec(Spec):
    """What is looked at beyond the metrics; what asks the model again is off unless asked for.

    ``position``: so many queries are ranked again with their candidates in ``shuffles`` random
    orders, which tells how far a ranking depends on the order shown. ``formatting``: so many are
    ranked again with documents written in other ways (lower case, no punctuation, line breaks …).
    ``calibration``: scores against grades, from what was answered anyway. ``slices``: wins and
    losses by type and length of queries. ``fall``: a warning when a system's first metric is so
    much below its input order.
    """

    position: int = Field(default=0, ge=0)
    shuffles: int = Field(default=3, ge=1)
    formatting: int = Field(default=0, ge=0)
    calibration: bool = True
    slices: bool = True
    bins: int = Field(default=10, ge=2)
    fall: float = Field(default=0.05, ge=0, le=1)


class BenchSpec(Spec):
    """What ``rank-rl bench`` compares and how.

    ``baselines`` are the systems that every other one is tested against, paired, with Holm's
    correction over all comparisons with the same baseline; ``steps`` are pairs (from, to) whose
    difference is reported with its interval (each stage's effect). ``teacher`` names the system
    whose quality the others are given a share of. ``seeds``: systems that draw at random, or whose
    ``model`` holds ``{seed}``, are measured with each; none is ``run.seed`` alone.
    ``collections``: none is the recipe's ``data``. ``judged_at``: depths at which the share of
    judged documents is given. ``prices``: a million tokens of a model or a system, by its name;
    ``gpu_hour``: an hour of the machine that local systems run on. ``latency``: so many queries
    are ranked again one by one, for seconds a query as a user waits for them. ``energy``: measured
    by codecarbon. ``leaks``: training data compared with the test queries first. ``report``: write
    ``report.html``.
    """

    systems: list[SystemSpec]
    collections: list[CollectionSpec] = []
    seeds: list[int] = []
    metrics: list[str] = ["ndcg@10", "mrr@10", "recall@5", "map"]
    judged_at: list[int] = [10]
    baselines: list[str] = []
    steps: list[tuple[str, str]] = []
    teacher: str | None = None
    samples: int = Field(default=10000, ge=100)
    batch_size: int = Field(default=32, ge=1)
    prices: dict[str, PriceSpec] = {}
    gpu_hour: float | None = Field(default=None, ge=0)
    currency: str = "USD"
    latency: int = Field(default=0, ge=0)
    energy: bool = False
    diagnosis: DiagnosisSpec = DiagnosisSpec()
    leaks: LeakSpec | None = None
    report: bool = True

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
            raise ValueError("seeds are distinct numbers from 0 on")
        return seeds

    @field_validator("judged_at")
    @classmethod
    def _depths(cls, depths: list[int]) -> list[int]:
        if any(depth < 1 for depth in depths):
            raise ValueError("depths are 1 or more")
        return depths

    @model_validator(mode="after")
    def _collections_differ(self) -> BenchSpec:
        names = [collection.name for collection in self.collections]
        if len(set(names)) < len(names):
            raise ValueError("two collections share a name")
        return self


class RankSpec(Spec):
    """What ``rank-rl rank`` ranks: a split of the collection, with ``model`` and its format.

    ``strategy``: null is the one saved with the checkpoint, else by_score (slots, scorers) or
    ``eval.strategy``; ``reasoning``: null is the checkpoint's or ``eval.reasoning``. The run that
    it writes serves as ``data.teacher_run``.
    """

    split: Literal["train", "validation", "test"] = "train"
    strategy: StrategySpec | None = None
    readout: Readout = "auto"
    reasoning: Reasoning | None = None
