"""Progress bars of transformers, shown only where there is something to wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALL = 4 << 30  # bytes of weights that are read or written within a few seconds


@contextlib.contextmanager
def quiet(size: int) -> Iterator[None]:
    """Hide the bars of loading and saving within the block when ``size`` bytes are few."""
    from transformers.utils import logging

    if size > SMALL or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def weight_bytes(model: Any) -> int:
    """Bytes that the parameters of a model take."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def file_bytes(folder: Path) -> int:
    """Bytes of the weight files in a folder."""
    files = [f for kind in ("*.safetensors", "*.bin") for f in folder.glob(kind)]
    return sum(f.stat().st_size for f in files)
