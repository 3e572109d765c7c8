"""An event loop in a thread of its own, so that asynchronous work can be waited for anywhere.

Contract: ``run`` works in scripts, threads and notebooks alike, whose own loop may be running. The
loop stays between calls, so that connections and paces do; the thread ends with the object or the
process, whichever is first.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A loop that is started when something is to be done."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work`` and return what it returns; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            # In short waits: an interrupt that another thread was given is noticed between them.
            while not wait([future], timeout=0.5).done:
                pass
            return future.result()
        except BaseException:  # nothing may go on behind the user's back
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            threading.Thread(target=_work, args=(loop,), daemon=True).start()
            weakref.finalize(self, _stop, loop)
        return self._loop


def _work(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
