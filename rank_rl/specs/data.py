"""Which collection, how it is split, ordered and sampled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rank_rl.specs.attacks import AttackSpec
from rank_rl.specs.base import Spec, StrategySpec
from rank_rl.specs.leaks import LeakSpec


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
    teaches nothing, nor does one whose order shown has an nDCG@10 below ``least_ndcg`` (Rearank,
    2025): it is repeated up to ``retries`` times, then left out and counted. ``keep_flat`` keeps
    draws without a relevant document, or with nothing else: an answer that scores each document
    learns from them, an order does not. With ``least_size`` each draw has a random number of
    documents from there to ``size`` (GroupRank, 2025, 2511.11653: 5 to 20).
    ``negatives_per_positive`` thins out the rows of stage sft with format slots, one row a
    document: that many documents that are not relevant for each relevant one of a view (at least
    one a view); null keeps all.

    ``rollout``: the views that a strategy asks when answers come from the grades (IRanker, 2025,
    2506.21638): ``strategy`` (null: that of ``eval``) ranks a task's candidates ``per_query``
    times, in a new order each time with ``shuffle``, a share ``noise`` of the answers being drawn
    at random; ``views_per_rollout`` of the views are kept (null: all), repeated ones once. In a
    sort or an elimination the places of a view tell what answers before it were, but for noise
    right ones here, and a model learns to trust them; ``shuffle_views`` shows each view in
    random order.

    ``depth``: only candidates of that first-stage rank or a better one are drawn (a pool keeps its
    relevant documents in any case). ``strata``: (from, to, how many) ranks, from which a pool
    takes its documents, the relevant ones of them counted, or a group its candidates.

    ``negatives`` of a pool: ``random``; ``hard``, the best ranked; ``mixed``, half of each;
    ``mined``, the best by the scores of the model that is trained, taken again every ``refresh``
    steps (ANCE, Xiong et al., 2021; ADORE, Zhan et al., 2021), by the first stage before.
    ``mined_share`` of them are such, the others random. Unjudged documents may be relevant: the
    ``skip_top`` best ranked ones are never negatives, nor, with ``skip_top`` or negatives that are
    not random, those with the text of a relevant document.
    """

    name: Literal["pool", "groups", "window", "rollout"] = "pool"
    size: int = Field(default=20, ge=2)
    least_size: int | None = Field(default=None, ge=2)
    per_query: int = Field(default=1, ge=1)
    keep_first: int = Field(default=0, ge=0)
    shuffle: bool = True
    retries: int = Field(default=10, ge=0)
    keep_flat: bool = False
    least_ndcg: float = Field(default=0.0, ge=0, lt=1)
    negatives_per_positive: int | None = Field(default=None, ge=0)
    strategy: StrategySpec | None = None
    noise: float = Field(default=0.0, ge=0, le=1)
    views_per_rollout: int | None = Field(default=None, ge=1)
    shuffle_views: bool = False
    negatives: Literal["random", "hard", "mixed", "mined"] = "random"
    depth: int | None = Field(default=None, ge=1)
    strata: tuple[tuple[int, int, int], ...] = ()
    skip_top: int = Field(default=0, ge=0)
    refresh: int = Field(default=0, ge=0)
    mined_share: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _rolls_out(self) -> SamplerSpec:
        given = {
            "strategy": self.strategy is not None,
            "noise": self.noise > 0,
            "views_per_rollout": self.views_per_rollout is not None,
            "shuffle_views": self.shuffle_views,
        }
        named = [key for key, is_given in given.items() if is_given]
        if named and self.name != "rollout":
            raise ValueError(f"{named[0]} belongs to sampler rollout, not {self.name}")
        return self

    @model_validator(mode="after")
    def _sizes(self) -> SamplerSpec:
        if self.least_size is None:
            return self
        if self.name == "rollout" or self.strata:
            raise ValueError("least_size does not go with sampler rollout or strata")
        if self.least_size > self.size:
            raise ValueError(f"least_size {self.least_size} is above size {self.size}")
        return self

    @model_validator(mode="after")
    def _belongs(self) -> SamplerSpec:
        if self.name != "pool" and (self.negatives != "random" or self.skip_top):
            raise ValueError("negatives and skip_top belong to sampler pool")
        if self.name in ("window", "rollout") and self.strata:
            raise ValueError("strata belong to samplers pool and groups")
        if (self.negatives == "mined") != bool(self.refresh):
            raise ValueError("negatives: mined and refresh need one another")
        if self.negatives == "mined" and self.least_ndcg:
            raise ValueError(
                "least_ndcg does not go with negatives: mined: a view whose negatives change has "
                "another nDCG each time"
            )
        if self.keep_flat and self.least_ndcg:
            raise ValueError("keep_flat and least_ndcg exclude one another")
        if self.mined_share < 1 and self.negatives != "mined":
            raise ValueError("mined_share belongs to negatives: mined")
        return self

    @model_validator(mode="after")
    def _strata_in_order(self) -> SamplerSpec:
        last = 0
        for first, to, count in self.strata:
            if not last < first <= to or count < 1:
                raise ValueError(
                    f"stratum {[first, to, count]}: expected [from, to, how many] with ranks of "
                    f"{last + 1} or more"
                )
            last = to
        if sum(count for *_, count in self.strata) > self.size:
            raise ValueError(f"strata ask for more documents than size {self.size}")
        return self

    @property
    def hard_share(self) -> float:
        """Share of a view's negatives that are the hardest there are; the others are random."""
        shares = {"random": 0.0, "hard": 1.0, "mixed": 0.5, "mined": self.mined_share}
        return shares[self.negatives]


class CurriculumSpec(Spec):
    """Weights of training documents that grow equal while training (MacAvaney et al., 2020).

    A document that is as relevant, or not, as the first stage says is easy. ``heuristic`` is how
    easy, from 0 to 1: 1 / first-stage rank, the first stage's score between the least and the
    best of the query, or the share of a kernel density estimate of the query's scores below it.
    Documents weigh that much at first and 1 from the share ``end`` of the steps on.
    """

    heuristic: Literal["reciprocal_rank", "normalised_score", "density"] = "reciprocal_rank"
    end: float = Field(default=0.5, gt=0, le=1)


class DataSpec(Spec):
    """A collection and how it is split and sampled.

    ``source``: ``bundled`` (``path`` names the collection, e.g. musique200), ``beir`` (folder),
    ``trec`` (``params``: run, qrels, corpus, queries), ``jsonl`` (``path`` or
    ``params``: train, test files of RankingTasks), ``rankify`` or ``t2ranking``. ``validation`` is
    the share of the training queries held out from training for model selection; or
    ``validation_split`` names a split.
    ``reasoning``: what stands before SFT answers in mode reason: ``annotations`` the steps that
    people annotated, ``explicit`` a judgement of each document shown, made of the same, ``scored``
    each document's first words and grade. ``reasoning_share``: the share of the SFT answers that
    carry theirs; the others leave it empty, which teaches what ``reasoning: skip`` asks for.
    ``lessons``: a file that ``rank-rl teach`` wrote; stage sft then trains on a teacher's answers
    instead of answers made of grades. ``teacher_run`` is a TREC run with a teacher's scores of
    training documents, for losses that learn from them; ``teacher_relevant`` makes its so many
    best documents relevant (grade 1) for training queries that nobody has graded, and
    ``teacher_grades`` makes its scores the grades of all training queries, from 0 to so many.
    ``leaks`` compares training queries with test queries, and with other test collections, by
    n-grams; null compares ids and whole texts only. ``attacks`` puts injected texts into documents
    of training queries, to train against them.
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
    reasoning: Literal["annotations", "explicit", "scored", "none"] = "annotations"
    reasoning_share: float = Field(default=1.0, ge=0, le=1)
    lessons: str | None = None
    curriculum: CurriculumSpec | None = None
    teacher_run: str | None = None
    teacher_relevant: int | None = Field(default=None, ge=1)
    teacher_grades: int | None = Field(default=None, ge=1)
    leaks: LeakSpec | None = None
    attacks: AttackSpec | None = None

    @model_validator(mode="after")
    def _has_teacher(self) -> DataSpec:
        for key in ("teacher_relevant", "teacher_grades"):
            if getattr(self, key) and not self.teacher_run:
                raise ValueError(f"{key} needs the scores of a teacher: set teacher_run")
        if self.teacher_relevant and self.teacher_grades:
            raise ValueError("teacher_relevant and teacher_grades both make grades: set one")
        return self

    @model_validator(mode="after")
    def _has_reasoning_to_share(self) -> DataSpec:
        if self.reasoning_share < 1 and self.reasoning == "none":
            raise ValueError("reasoning_share has no effect with reasoning: none")
        return self
