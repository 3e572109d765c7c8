"""What a run was: resolved recipe, hash, versions, git state, seed and command line, on disk.

``facts`` is the part that does not depend on the recipe; stages receive it with the recipe and
copy it into their own results. Done marks (``done.json``) are written here too.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import rank_rl
from rank_rl.errors import StorageError
from rank_rl.recipe import Recipe

PACKAGES = (
    *("rank-rl", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers"),
    *("safetensors", "numpy", "ranx", "bm25s", "deepspeed", "vllm"),
)


def facts() -> dict[str, Any]:
    """Versions of Python and the packages that decide results, git state and command line."""
    return {"versions": versions(), "git": git_state(), "command": shlex.join(sys.argv)}


def versions() -> dict[str, str]:
    """Installed version of Python and of every package in ``PACKAGES`` that is installed."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from and whether it has changes, or None."""
    folder = Path(rank_rl.__file__).parent
    # A package installed under some other project's checkout is not part of that checkout.
    if not _git(folder, "ls-files", "__init__.py"):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "--", "."))
    return {"commit": commit, "changed": changed} if commit else None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_provenance(out_dir: Path, recipe: Recipe, extra: Mapping[str, Any]) -> None:
    """Write ``recipe.resolved.yaml`` and ``provenance.json`` into ``out_dir``, made if needed.

    Raises:
        StorageError: the folder cannot be made.
        OSError: a file cannot be written.
    """
    make_folder(out_dir)
    text = yaml.safe_dump(recipe.resolved, sort_keys=False, allow_unicode=True)
    (out_dir / "recipe.resolved.yaml").write_text(text, encoding="utf-8")
    record = {
        "recipe": recipe.path,
        "hash": recipe.hash,
        "seed": recipe.spec.run.seed,
        **facts(),
        **extra,
    }
    write_json(out_dir / "provenance.json", record)


def make_folder(path: Path) -> None:
    """Make a folder with its parents.

    Raises:
        StorageError: it cannot be made, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"folder cannot be made: {error.strerror or error}",
            where=str(path),
            remedy="choose another one with --set run.output_dir=…",
        ) from error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step, so that a killed run leaves the old one or the new one."""
    part = path.with_name(path.name + ".part")
    text = json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; empty when there is none or it does not parse."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return record if isinstance(record, dict) else {}
