"""What a benchmark compares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import (
    FormatSpec,
    FusionSpec,
    Readout,
    Reasoning,
    Spec,
    StrategySpec,
)

ASKED = ("slots", "text", "scorer")  # kinds that ask a model


class SystemSpec(Spec):
    """One row of the benchmark.

    ``kind``: random, first_stage, perfect, slots (label slots, packed), text (generated answers),
    scorer (a model that writes nothing) or run (a TREC run file in ``path``). ``readout``: as in
    ``eval``; ``auto`` keeps the one saved
    with the checkpoint. ``max_new_tokens``: null is the number saved with the checkpoint, or 256.
    ``reasoning``: as in ``eval``; null is the checkpoint's or the recipe's. ``fusion`` adds a row:
    the same rankings joined with the first stage, for which nothing is asked again.
    """

    name: str
    kind: Literal["random", "first_stage", "perfect", "slots", "text", "scorer", "run"]
    model: str | None = None
    path: str | None = None
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
        if self.readout != "auto" and self.kind not in ASKED:
            raise ValueError(f"system {self.name!r} of kind {self.kind} has no readout")
        if self.kind in ("random", "first_stage", "perfect", "run"):
            for key in ("reasoning", "fusion"):
                if getattr(self, key) is not None:
                    raise ValueError(f"system {self.name!r} of kind {self.kind} has no {key}")
        if self.explain and self.reasoning == "skip":
            raise ValueError(f"system {self.name!r}: explain writes reasoning, skip skips it")
        return self


class BenchSpec(Spec):
    """What ``rank-rl bench`` compares and how.

    ``baselines`` are the systems that every other one is tested against, paired, with Holm's
    correction over all comparisons with the same baseline; ``steps`` are pairs (from, to) whose
    difference is reported with its interval (each stage's effect).
    """

    systems: list[SystemSpec]
    metrics: list[str] = ["ndcg@10", "mrr@10", "recall@5", "map"]
    baselines: list[str] = []
    steps: list[tuple[str, str]] = []
    samples: int = Field(default=10000, ge=100)
    batch_size: int = Field(default=32, ge=1)


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
