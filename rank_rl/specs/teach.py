"""What a teacher is asked, and what is made of its answers: section ``teach``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import FormatSpec, NamedSpec, Spec, StrategySpec
from rank_rl.specs.secrets import secret


class PriceSpec(Spec):
    """What a million tokens cost, in ``teach.currency``."""

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)


class TeacherSpec(NamedSpec):
    """What answers: ``endpoint``, ``engine``, ``local``, ``replay`` or ``oracle``.

    ``model`` is the name under which a server or an engine knows it; it belongs to the key of
    every stored completion.
    """

    model: str = ""
    price: PriceSpec = PriceSpec()

    @model_validator(mode="after")
    def _no_secrets(self) -> TeacherSpec:
        if found := secret(self.params):
            raise ValueError(
                f"{found} does not belong into a recipe: keys come from the environment, "
                "api_key_env names the variable"
            )
        return self


class QuestionSpec(Spec):
    """One thing that a teacher is asked about every unit (a query with candidates).

    ``strategy`` says which views of the documents are shown: ``single`` or ``sliding`` for a list,
    ``groups``, ``by_score`` with size 1 for each document alone, ``pairs``. ``documents``: ``all``
    of the unit, the ``shortlist`` of the first ``size`` in first-stage order, or what question
    ``of`` did not name among its first ``size`` (``left_out``). ``samples`` answers are drawn, of
    which ``choose`` keeps some: the ``first``, the one nearest to the ``consensus`` of all, the
    ``best`` by the grades, or the ``pareto`` front of quality and length. ``lesson`` false keeps
    the answers for labels and filters only.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    teacher: str = "main"
    format: FormatSpec
    strategy: StrategySpec = StrategySpec()
    documents: Literal["all", "shortlist", "left_out"] = "all"
    of: str | None = None
    size: int | None = Field(default=None, ge=1)
    samples: int = Field(default=1, ge=1)
    choose: Literal["first", "consensus", "best", "pareto"] = "first"
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=2048, ge=1)
    logprobs: int = Field(default=0, ge=0, le=20)
    lesson: bool = True

    @model_validator(mode="after")
    def _complete(self) -> QuestionSpec:
        if self.documents == "left_out" and not self.of:
            raise ValueError(f"question {self.name!r} asks for left_out documents: name `of` which")
        if self.documents != "all" and not self.size:
            raise ValueError(f"question {self.name!r} with documents {self.documents} needs a size")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"question {self.name!r}: {self.samples} samples at temperature 0 are the same"
            )
        return self


class LabelSpec(NamedSpec):
    """How the answers about one unit become one label a document.

    ``levels`` is the largest integer grade written: the labels are scaled to 0 … ``levels``; null
    keeps scores as they are and turns an order into distinct grades.
    """

    name: str = "auto"
    levels: int | None = Field(default=None, ge=1)


class FilterSpec(NamedSpec):
    """A reason to drop an answer; ``question`` limits it to one question's answers."""

    question: str | None = None


class ImportSpec(NamedSpec):
    """Teacher data that somebody else made: ``rankgpt``, ``think_chat`` or ``reasons``.

    ``lesson`` false takes labelled tasks from it and no lessons.
    """

    path: str
    licence: str = ""
    lesson: bool = True


class SynthesisSpec(Spec):
    """Queries written by the teacher for passages of an unlabelled corpus.

    ``passages`` are drawn from ``corpus`` (JSONL, as in a BEIR folder); for each the teacher writes
    one query of every kind in ``kinds``. Candidates are the ``depth`` best of BM25. Queries nearer
    than ``near`` (Jaccard similarity of word 3-grams) to one kept before, or to a query of the
    files in ``exclude``, are removed. ``round_trip`` drops queries whose own passage BM25 does not
    find among the candidates.
    """

    corpus: str
    passages: int = Field(default=100, ge=1)
    kinds: list[str] = ["question", "keywords", "claim"]
    teacher: str = "main"
    wording: str = "default"
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=256, ge=1)
    depth: int = Field(default=20, ge=2)
    near: float = Field(default=0.7, gt=0, le=1)
    exclude: list[str] = []
    round_trip: bool = True


class TeachSpec(Spec):
    """Section ``teach``: teachers, questions, and what is kept.

    ``units``: ``task`` asks about a query's whole candidate list, ``draws`` about the views that
    ``data.sampler`` draws. ``split`` is the part of the collection that is asked about.
    """

    teachers: dict[str, TeacherSpec] = {}
    questions: list[QuestionSpec] = []
    units: Literal["task", "draws"] = "task"
    split: Literal["train", "validation", "test"] = "train"
    labels: LabelSpec = LabelSpec()
    filters: list[FilterSpec] = []
    imports: list[ImportSpec] = []
    synthesis: SynthesisSpec | None = None
    currency: str = "USD"
    max_cost: float | None = Field(default=None, ge=0)
    max_requests: int | None = Field(default=None, ge=0)
    licence: str = ""
    parquet: bool = False
    hub: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _names(self) -> TeachSpec:
        if found := secret(self.hub):
            raise ValueError(
                f"{found} does not belong into a recipe: the token comes from the environment"
            )
        known: list[str] = []
        for question in self.questions:
            if question.name in known:
                raise ValueError(f"two questions are called {question.name!r}")
            if question.of is not None and question.of not in known:
                raise ValueError(
                    f"question {question.name!r} is about question {question.of!r}, "
                    "which is not asked before it"
                )
            known.append(question.name)
        named = [(f"question {q.name!r}", q.teacher) for q in self.questions]
        named += [("synthesis", self.synthesis.teacher)] if self.synthesis else []
        for what, teacher in named:
            if teacher not in self.teachers:
                raise ValueError(f"{what} asks teacher {teacher!r}, which `teachers` does not name")
        for spec in self.filters:
            if spec.question is not None and spec.question not in known:
                raise ValueError(
                    f"filter {spec.name!r} names question {spec.question!r}: not asked"
                )
        return self
