"""Which collection, how it is split, ordered and sampled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import Spec, StrategySpec


class FirstStageSpec(Spec):
    """BM25 (bm25s, Lucene scoring) over the corpus, when no run is given.

    ``pool`` true ranks the collection's given candidates of a query, false retrieves ``depth``
    documents from the whole corpus.
    """

    name: Literal["bm25", "given"] = "bm25"
    pool: bool = False
    depth: int = Field(default=20, ge=1)
    k1: float = Field(default=0.9, gt=0)
    b: float = Field(default=0.4, ge=0, le=1)


class SamplerSpec(Spec):
    """How views are drawn from a training task.

    ``pool``: the relevant candidates (one place is kept for another document) and random others,
    ``size`` in all. ``groups``: ``size`` random candidates. ``window``: ``size`` candidates that
    follow one another in first-stage order. Each query gets ``per_query`` draws, in random order
    with ``shuffle`` and in first-stage order without. A pool holds the ``keep_first`` best
    candidates of the first stage in any case: hard negatives, and what a prompt with ``context``
    shows when whole pools are ranked. A draw without a relevant document, or with nothing else,
    teaches nothing: it is repeated up to ``retries`` times, then left out and counted.
    ``negatives_per_positive`` thins out the rows of stage sft with format slots, one row a
    document: that many documents that are not relevant for each relevant one of a view (at least
    one a view); null keeps all.

    ``rollout``: the views that a strategy asks when answers come from the grades (IRanker, 2025,
    2506.21638): ``strategy`` (null: that of ``eval``) ranks a task's candidates ``per_query``
    times, in a new order each time with ``shuffle``, a share ``noise`` of the answers being drawn
    at random; ``views_per_rollout`` of the views are kept (null: all), repeated ones once.
    """

    name: Literal["pool", "groups", "window", "rollout"] = "pool"
    size: int = Field(default=20, ge=2)
    per_query: int = Field(default=1, ge=1)
    keep_first: int = Field(default=0, ge=0)
    shuffle: bool = True
    retries: int = Field(default=10, ge=0)
    negatives_per_positive: int | None = Field(default=None, ge=0)
    strategy: StrategySpec | None = None
    noise: float = Field(default=0.0, ge=0, le=1)
    views_per_rollout: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _rolls_out(self) -> SamplerSpec:
        given = {
            "strategy": self.strategy is not None,
            "noise": self.noise > 0,
            "views_per_rollout": self.views_per_rollout is not None,
        }
        named = [key for key, is_given in given.items() if is_given]
        if named and self.name != "rollout":
            raise ValueError(f"{named[0]} belongs to sampler rollout, not {self.name}")
        return self


class DataSpec(Spec):
    """A collection and how it is split and sampled.

    ``source``: ``bundled`` (``path`` names the collection, e.g. musique200), ``beir`` (folder),
    ``trec`` (``params``: run, qrels, corpus, queries) or ``jsonl`` (``path`` or
    ``params``: train, test files of RankingTasks). ``validation`` is the share of the training
    queries held out from training for model selection; or ``validation_split`` names a split.
    ``reasoning``: what stands before SFT answers in mode reason: ``annotations`` the steps that
    people annotated, ``explicit`` a judgement of each document shown, made of the same.
    ``lessons``: a file that ``rank-rl teach`` wrote; stage sft then trains on a teacher's answers
    instead of answers made of grades.
    """

    source: str
    path: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    train_split: str = "train"
    test_split: str = "test"
    validation_split: str | None = None
    validation: float = Field(default=0.15, ge=0, lt=1)
    max_train: int | None = Field(default=None, ge=1)
    max_validation: int | None = Field(default=None, ge=1)
    max_test: int | None = Field(default=None, ge=1)
    first_stage: FirstStageSpec = FirstStageSpec()
    sampler: SamplerSpec = SamplerSpec()
    reasoning: Literal["annotations", "explicit", "none"] = "annotations"
    lessons: str | None = None
