"""Prompt wordings: the words only, in YAML, checked when they are loaded.

A file maps names of wordings to their texts; ``{name}`` is a placeholder and nothing else in a
text is special. Values are put in once and never looked into, so a document that contains
``{query}`` stays as it is. A change of words is a change of ``version``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rank_rl.errors import RecipeError
from rank_rl.registry import nearest

# Key of a wording → (placeholders it must have, placeholders it may have), separated by spaces.
Rules: TypeAlias = Mapping[str, tuple[str, str]]

OPTIONAL = ("no_instruction",)  # keys that any wording may leave out
MOST_BYTES = 1 << 20  # of a file of wordings
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_FOLDER = Path(__file__).with_suffix("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A named set of texts; ``version`` reads ``permutation/default@1``."""

    version: str
    texts: Mapping[str, str]

    def fill(self, key: str, **values: object) -> str:
        """Return the text ``key`` with every placeholder replaced, in one pass."""
        return _PLACEHOLDER.sub(lambda m: str(values[m[1]]), self.texts[key])


def load(fmt: str, wording: str, rules: Rules, *, unused: Collection[str] = ()) -> Wording:
    """Load and check one wording.

    Args:
        fmt: name of the format, which is the name of its file of built-in wordings.
        wording: name in that file, or ``path/to/file.yaml:name`` for one's own.
        rules: the keys and placeholders that the format needs.
        unused: those keys that may be left out, because their feature is off.

    Raises:
        RecipeError: no such file, wording or key, or a placeholder that is missing or unknown.
    """
    path, name = _FOLDER / f"{fmt}.yaml", wording
    if ".yaml" in wording or ".yml" in wording:
        file, _, name = wording.rpartition(":") if ":" in wording else (wording, "", "default")
        path = Path(file)
    wordings = _built_in(path) if path.parent == _FOLDER else _read(path)
    if name not in wordings:
        raise RecipeError(
            f"unknown wording {name!r}",
            where="format.wording",
            expected=f"one of {', '.join(sorted(wordings))} or path.yaml:name",
            remedy=nearest(name, wordings, cutoff=0.3),
        )
    texts = wordings[name]
    if not isinstance(texts, Mapping):
        raise RecipeError("is not a mapping", where=f"{path.name}: {name}", expected="key: text")
    version = texts.get("version")
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise RecipeError("no version", where=f"{path.name}: {name}.version", expected="a number")
    known = {k: v for k, v in texts.items() if k != "version"}
    spare = {*unused, *OPTIONAL}
    needed = {k: rule for k, rule in rules.items() if k in known or k not in spare}
    checked = _check(known, needed, path, name)
    source = fmt if path.parent == _FOLDER else f"{fmt}/{path.stem}"
    return Wording(version=f"{source}/{name}@{version}", texts=checked)


@functools.cache
def _built_in(path: Path) -> Mapping[str, Any]:
    """A file of this package, read once: a format is made for every model, stage and system."""
    return _read(path)


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(
            f"cannot be read: {error}", where=str(path)[:200], expected="a YAML file of wordings"
        ) from error
    if not isinstance(content, Mapping):
        raise RecipeError("holds no wordings", where=str(path), expected="name: {key: text}")
    return {str(name): texts for name, texts in content.items()}


def _check(texts: Mapping[str, Any], rules: Rules, path: Path, name: str) -> dict[str, str]:
    for key in [*rules, *texts]:
        where = f"{path.name}: {name}.{key}"
        if key not in rules:
            raise RecipeError("unknown key", where=where, expected=f"one of {', '.join(rules)}")
        if not isinstance(texts.get(key), str):
            raise RecipeError("is missing or not a text", where=where, expected="a text")
        found = set(_PLACEHOLDER.findall(texts[key]))
        required, optional = (set(part.split()) for part in rules[key])
        for placeholder in sorted(required - found):
            raise RecipeError(
                f"placeholder {{{placeholder}}} is missing",
                where=where,
                expected=f"a text with {_named(required)}",
            )
        for placeholder in sorted(found - required - optional):
            raise RecipeError(
                f"unknown placeholder {{{placeholder}}}",
                where=where,
                expected=_named(required | optional),
            )
    return {key: str(texts[key]) for key in rules}


def _named(placeholders: set[str]) -> str:
    return " ".join(f"{{{p}}}" for p in sorted(placeholders)) or "no placeholder"
