"""Every format of the table, and those that parameters make into another one, for the tests."""

from __future__ import annotations

from rank_rl import formats
from rank_rl.formats.base import Format
from rank_rl.specs import FormatSpec

# Name in the tests: name in the table, and parameters (with the wording where it is another one).
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in sorted(formats.TABLE)},
    "choice worst": ("choice", {"pick": "worst"}),
    "choice, labels after": ("choice", {"labels": "after"}),
    "permutation with ties": ("permutation", {"ties": True}),
    "pointwise, label first": ("pointwise", {"order": "label_first"}),
    "pointwise words": ("pointwise", {"labels": ["bad", "fair", "good"], "wording": "words"}),
    "pointwise words, label first": (
        "pointwise",
        {"labels": ["no", "yes"], "wording": "yes_no", "order": "label_first"},
    ),
    "pointwise digits": (
        "pointwise",
        {"labels": ["0", "1"], "values": [-1.0, 1.0], "wording": "binary"},
    ),
}
MODES = {"explain": ("reason",)}
CASES = [
    (variant, mode)
    for variant, (name, _) in VARIANTS.items()
    for mode in MODES.get(name, ("reason", "answer"))
]
# How many documents an answer can be about, where that is not any number.
ALONE = {"pointwise": 1, "pair": 2}
SIZES = {v: ALONE[name] for v, (name, _) in VARIANTS.items() if name in ALONE}


def make(
    variant: str, mode: str, params: dict[str, object] | None = None, **fields: object
) -> Format:
    """A format of the tests in a mode, with further parameters."""
    name, own = VARIANTS[variant]
    given = {**own, **(params or {})}
    wording = given.pop("wording", "default")
    spec = {"name": name, "mode": mode, "wording": wording, "params": given, **fields}
    return formats.make(FormatSpec.model_validate(spec))
