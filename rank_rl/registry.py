"""Names in recipes become objects here: literal tables, ``package.module:Name``, near misses.

A registry is a plain dict from name to ``"package.module:Attribute"``, so that looking one entry
up imports only that entry. There are no decorators and no import side effects.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from rank_rl.errors import RecipeError


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """``nearest: …`` with up to three known names that are like ``name``; empty without any."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"nearest: {', '.join(near)}" if near else ""


def resolve(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """Return the object that a recipe calls ``name``.

    Args:
        kind: what the name stands for ("format", "reward", …), for the message.
        name: a key of ``table``, or ``package.module:Name`` for someone else's class.
        table: name → ``"package.module:Attribute"``.

    Raises:
        RecipeError: unknown name (those known, and those like it, are listed) or a target that
            does not import.
    """
    target = table.get(name, name if ":" in name else "")
    if not target:
        raise RecipeError(
            f"unknown {kind} {name!r}",
            expected=f"one of {', '.join(sorted(table))} or package.module:Name",
            remedy=nearest(name, table),
        )
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{kind} {name!r} cannot be imported: {error}") from error


def build(kind: str, name: str, params: Mapping[str, Any], table: Mapping[str, str]) -> Any:
    """Return the object that a recipe calls ``name``, made with its ``params``.

    Args:
        kind, name, table: as for ``resolve``.
        params: keyword arguments of its class.

    Raises:
        RecipeError: as ``resolve``; an unknown parameter (the known ones are listed), a missing
            one, or a value that the class refuses.
    """
    made_by = resolve(kind, name, table)
    where = f"{kind} {name!r}"
    signature = inspect.signature(made_by)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in signature.parameters.values() if p.kind in by_name]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in params:
        if key not in known and not takes_any:
            near = difflib.get_close_matches(key, known, n=1)
            raise RecipeError(
                f"unknown parameter {key!r}",
                where=where,
                expected=", ".join(known) or "no parameters",
                remedy=f"nearest: {near[0]}" if near else "",
            )
    try:
        signature.bind(**params)  # says "missing a required argument: 'x'"
        return made_by(**params)
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error), where=where) from error


def need(package: str, extra: str | None = None) -> Any:
    """Import an optional package, saying how to install it when it is missing.

    Args:
        package: its name, which is also its module's.
        extra: the extra of rank-rl that brings it; None when it is installed by itself.

    Raises:
        RecipeError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RecipeError(
            f"package {package!r} is not installed",
            remedy=f"pip install 'rank-rl[{extra}]'" if extra else f"pip install {package}",
        ) from error
