"""Attacked copies of training documents, which a recipe asks for under ``data.attacks``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rank_rl.specs.base import Spec

AttackKind = Literal[
    "command",
    "answer",
    "turn",
    "reasoning",
    "documents",
    "authority",
    "language",
    "stuffing",
    "keywords",
    "flood",
    "zero_width",
    "homoglyphs",
    "tags_block",
    "bidi",
]


class AttackSpec(Spec):
    """Training documents that try to be ranked first, and keep their grade.

    A document that is not relevant gets an injected text of one of ``kinds`` with probability
    ``share``, a relevant one with probability ``relevant`` (null: ``share`` too, so that an attack
    tells nothing about relevance and does not lower a document either). ``place`` is where in the
    document it stands. Which documents, kinds and wordings is drawn by query and document from
    ``seed`` (null: that of the run). Only training queries are changed.
    """

    share: float = Field(default=0.2, ge=0, le=1)
    relevant: float | None = Field(default=None, ge=0, le=1)
    kinds: tuple[AttackKind, ...] = ("command", "answer", "turn", "reasoning", "documents")
    place: Literal["start", "end", "random"] = "random"
    seed: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _has_kinds(self) -> AttackSpec:
        if not self.kinds:
            raise ValueError("kinds is empty: leave attacks out")
        if not self.share and not self.relevant:
            raise ValueError("neither share nor relevant attacks anything: leave attacks out")
        return self
