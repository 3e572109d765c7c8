"""The tiny model, loaded once, and a server that most tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def loaded(tiny_model_dir: Path) -> Any:
    from serving import load_tiny

    return load_tiny(tiny_model_dir)


@pytest.fixture(scope="session")
def url(loaded: Any) -> Iterator[str]:
    """Where a server with the usual limits answers."""
    from serving import ranker_of, serving

    with serving(ranker_of(loaded)) as server:
        yield server.url
