"""Output formats: what a prompt shows, how the answer is written, and how it is read back.

Each format owns ``render``, ``parse`` and ``ideal``, which must agree; training targets, rewards,
inference and evaluation all use that one parser. The words stand in ``wording/*.yaml``.
"""

from __future__ import annotations

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

__all__ = ["TABLE", "Format", "make"]


def make(spec: FormatSpec) -> Format:
    """Build the format that a recipe names.

    Raises:
        RecipeError: unknown name, wording or parameter.
    """
    fmt: Format = resolve("format", spec.name, TABLE)(spec)
    return fmt
