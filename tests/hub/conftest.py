"""A Hub on loopback, one process that talks to it, and a finished run to publish."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs
from hub_client import Client
from hub_server import Hub


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def hub(served: Hub) -> Iterator[Hub]:
    """The Hub without repositories, faults and memories of requests."""
    served.repos.clear()
    served.faults.clear()
    served.log.clear()
    for part in ("large", "parts"):
        shutil.rmtree(served.folder / part)
        (served.folder / part).mkdir()
    yield served


@pytest.fixture(scope="session")
def client(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    found = Client(served.url, tmp_path_factory.mktemp("home"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def finished(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A run nobody may change."""
    return runs.run(tmp_path_factory.mktemp("project"), tiny_model_dir)


@pytest.fixture
def own(finished: runs.Run, tmp_path: Path) -> runs.Run:
    """A copy of that run, to change."""
    root = tmp_path / "project"
    shutil.copytree(finished.root, root)
    return runs.Run(
        root=root,
        checkpoint=root / finished.checkpoint.relative_to(finished.root),
        bench=root / finished.bench.relative_to(finished.root),
    )
