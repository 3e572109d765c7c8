"""The server of ``openai_server`` on a port of its own, gone for good after some answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from openai_server import Server, ServerSettings


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Mortal(Server):
    """Answers ``lives`` questions; at the next it goes, with all connections and its port."""

    def __init__(self, port: int, lives: int, answer: Callable[[Any, int], str]) -> None:
        super().__init__(ServerSettings(answer=self._answer_or_die))
        self.fixed, self.lives, self.own = port, lives, answer

    async def serve(self, port: int = 0) -> asyncio.Server:
        return await super().serve(self.fixed)

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():
            self._thread.join(10)
        else:
            super().__exit__()

    def _answer_or_die(self, messages: Any, sample: int) -> str:
        self.lives -= 1
        if self.lives < 0:
            self._loop.call_soon(self._stop.set)
            raise ConnectionResetError
        return self.own(messages, sample)
