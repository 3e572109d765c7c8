"""A progress bar over the views that a system is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with an estimate, shown from the first report on."""
    from tqdm import tqdm

    shown: Any = None

    def report(done: int, total: int) -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(desc=name, unit="view", mininterval=1.0)
        shown.total = total
        shown.update(done - shown.n)

    try:
        yield report
    finally:
        if shown is not None:
            shown.close()
