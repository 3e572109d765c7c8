"""Folders that several tests of the report read; they are made once and never changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import pytest


@pytest.fixture(scope="session")
def bench_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of two seeds with hostile documents, and the log of one of its checkpoints."""
    folder = tmp_path_factory.mktemp("report")
    content = made.Made(systems=made.SYSTEMS, texts=made.HOSTILE, seeds=(7, 8))
    made.bench(folder / "bench", content)
    made.training(folder / "out" / "slow")
    return folder / "bench"


@pytest.fixture(scope="session")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of another collection, in which one system is missing."""
    folder = tmp_path_factory.mktemp("report") / "other"
    made.bench(folder, made.Made(name="other", queries=7, systems=made.SYSTEMS[:4]))
    return folder


@pytest.fixture(scope="session")
def old_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of the old shape."""
    folder = tmp_path_factory.mktemp("report") / "old"
    made.bench(folder, made.Made(name="before", systems=made.SYSTEMS))
    made.old(folder)
    return folder


@pytest.fixture(scope="session")
def read_result() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / "result.json").read_text())
