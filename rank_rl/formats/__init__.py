"""Output formats: what a prompt shows, how the answer is written, and how it is read back.

Each format owns ``render``, ``parse`` and ``ideal``, which must agree; training targets, rewards,
inference and evaluation all use that one parser. The words stand in ``wording/*.yaml``.
"""

from __future__ import annotations

from typing import Literal

from rank_rl.errors import RecipeError
from rank_rl.formats.base import Format
from rank_rl.registry import resolve
from rank_rl.specs import FormatSpec

TABLE: dict[str, str] = {
    "choice": "rank_rl.formats.choice:ChoiceFormat",
    "explain": "rank_rl.formats.explain:ExplainFormat",
    "pair": "rank_rl.formats.pair:PairFormat",
    "permutation": "rank_rl.formats.permutation:PermutationFormat",
    "pointwise": "rank_rl.formats.pointwise:PointwiseFormat",
    "scores": "rank_rl.formats.scores:ScoresFormat",
    "slots": "rank_rl.formats.slots:SlotFormat",
}

# Inputs of models that write nothing: which texts they read.
INPUTS: dict[str, str] = {
    "cross_encoder": "rank_rl.formats.inputs:CrossEncoderInput",
    "embedding": "rank_rl.formats.inputs:EmbeddingInput",
    "pair_scores": "rank_rl.formats.inputs:PairScoresInput",
}
Kind = Literal["text", "slots", "scorer"]

__all__ = ["INPUTS", "TABLE", "Format", "Kind", "kind", "make", "make_written"]


def make(spec: FormatSpec) -> Format:
    """Build the format, or the input of a scorer, that a recipe names.

    Raises:
        RecipeError: unknown name, wording or parameter.
    """
    fmt: Format = resolve("format", spec.name, {**TABLE, **INPUTS})(spec)
    return fmt


def make_written(spec: FormatSpec, *, where: str) -> Format:
    """``make`` for those who need text: refuses inputs of scorers.

    Raises:
        RecipeError: as ``make``, or an input; ``where`` is the key to blame.
    """
    fmt = make(spec)
    if kind(fmt) == "scorer":
        raise RecipeError(
            f"format {spec.name!r} writes no text",
            where=where,
            expected=f"one of {', '.join(TABLE)}",
            remedy="scorers are trained by stage score",
        )
    return fmt


def kind(fmt: object) -> Kind:
    """How a format is answered: written text, label slots, or the scores of a scorer."""
    if hasattr(fmt, "texts"):
        return "scorer"
    return "slots" if hasattr(fmt, "slots") else "text"
