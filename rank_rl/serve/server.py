"""Runs the HTTP interface of a service in a thread; when it ends, no accepted request is lost.

Contract: the address is taken before a model is loaded (``bind``), connections are accepted once it
is (``Server.start``). ``Server.stop`` refuses what is new, waits for what was accepted, and answers
what is left in first-stage order.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from rank_rl.errors import BackendError, RecipeError
from rank_rl.registry import need
from rank_rl.serve.keys import Keys
from rank_rl.serve.service import Service

KEEP_ALIVE_S = 75
ENDING_S = 5.0  # for answers to be written, and for the last batch


def check_installed() -> None:
    """Raise early where the extra is not installed.

    Raises:
        RecipeError: naming the package.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        need(package, "serve")


def bind(host: str, port: int) -> socket.socket:
    """Take an address; port 0 is any that is free.

    Raises:
        RecipeError: it is taken, not this machine's, or not allowed.
    """
    where = f"{host}:{port}"
    taken = socket.socket()
    try:
        ((family, kind, proto, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        taken.close()
        taken = socket.socket(family, kind, proto)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        taken.close()
        busy = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "the port is taken" if busy else getattr(error, "strerror", None) or str(error)
        remedy = "choose another with --port" if busy else ""
        raise RecipeError(why, where=where, remedy=remedy) from error
    return taken


def _url(address: socket.socket) -> str:
    host, port = address.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """A service that answers HTTP.

    Args:
        service: what answers.
        keys: who may ask.
        address: a socket of ``bind``.
    """

    def __init__(self, service: Service, keys: Keys, address: socket.socket) -> None:
        import uvicorn

        from rank_rl.serve.app import make_app

        self.service, self.address = service, address
        config: Any = uvicorn.Config(
            make_app(service, keys),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(ENDING_S),
        )
        self._server = uvicorn.Server(config)
        # In a thread of its own uvicorn leaves the signals alone.
        self._thread = threading.Thread(target=self._work, name="rank-rl-http", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = _url(address)

    @property
    def alive(self) -> bool:
        """Whether it answers, and the model does."""
        return self._thread.is_alive() and self.service.batcher.alive

    def start(self) -> None:
        """Accept connections; returns once it does.

        Raises:
            BackendError: the address cannot be listened to.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise BackendError("the server did not start", where=self.url)
            time.sleep(0.01)

    def _work(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self.address])

    def stop(self, grace: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Refuse new requests, finish those accepted, then end.

        Args:
            grace: seconds after which those that are left are answered in first-stage order.
            hurry: tells that nobody wants to wait so long.

        Returns:
            Whether the model's thread has ended too; else it is busy with a batch that nobody
            waits for.
        """
        gate = self.service.gate
        gate.drain()
        end = time.monotonic() + grace
        while gate.inside and time.monotonic() < end and not hurry() and self.alive:
            time.sleep(0.02)
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.service.stopped.set)
        end = time.monotonic() + ENDING_S
        while gate.inside and time.monotonic() < end and self._thread.is_alive():
            time.sleep(0.02)
        self._server.should_exit = True
        self._thread.join(2 * ENDING_S)
        self.service.batcher.close(timeout=ENDING_S)
        return not self.service.batcher.alive


class Signals:
    """SIGTERM and SIGINT of this process, counted instead of obeyed; for its main thread."""

    def __init__(self) -> None:
        self.received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)

    def _count(self, number: int, frame: Any) -> None:
        self.received += 1


def until_signal(server: Server, signals: Signals, grace: float) -> bool:
    """Let a server answer until it is told to end, or cannot go on; then end it.

    Args:
        server: started already.
        signals: a second one ends the grace time.
        grace: as for ``Server.stop``.

    Returns:
        As ``Server.stop``.

    Raises:
        BackendError: it ended by itself.
    """
    while not signals.received and server.alive:
        time.sleep(0.1)
    asked = signals.received
    ended = server.stop(grace, hurry=lambda: signals.received > max(asked, 1))
    if not asked:
        raise BackendError("the server ended by itself; its log says why", where=server.url)
    return ended
