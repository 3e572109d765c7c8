"""Who is in: how many requests are under way, whether more are taken, and when the last has left.

Contract: all but ``drain`` and ``inside`` belongs to the event loop's thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rank_rl.serve.limits import Refused

MOST_RETRY_S = 60


class Gate:
    """Counts requests in and out.

    Args:
        waiting: most requests inside.

    ``draining`` refuses all further ones.
    """

    def __init__(self, waiting: int) -> None:
        self.waiting, self.draining = waiting, False
        self.inside = 0
        self._recent = 1.0  # seconds that requests took lately

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside.

        Raises:
            Refused: 503 when the server is about to end, 429 when too many are inside.
        """
        if self.draining:
            raise Refused(
                503, "shutting_down", "the server is shutting down", {"Connection": "close"}
            )
        if self.inside >= self.waiting:
            raise Refused(
                429,
                "too_many_requests",
                f"{self.inside} requests are waiting already",
                {"Retry-After": str(self.patience())},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def took(self, seconds: float) -> None:
        """Learn how long a request was inside."""
        self._recent += 0.1 * (seconds - self._recent)

    def patience(self) -> int:
        """Seconds after which to try again: what requests took lately, 1 to 60."""
        return max(1, min(MOST_RETRY_S, math.ceil(self._recent)))

    def drain(self) -> None:
        """Refuse all further requests."""
        self.draining = True
