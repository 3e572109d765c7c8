"""Paths that mean something on other machines too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def portable(value: Any) -> Any:
    """A JSON value without absolute paths: relative to here, or else their last two parts."""
    if isinstance(value, Mapping):
        return {portable(k): portable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [portable(v) for v in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path, here = Path(value), Path.cwd()
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    return "/".join(path.relative_to(path.anchor).parts[-2:])
