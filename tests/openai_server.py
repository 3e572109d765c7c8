"""A small server that speaks OpenAI's chat completions, with faults on demand: for tests only.

In a test: ``with Server(ServerSettings(...)) as server: server.url``. As a process:
``python tests/openai_server.py --delay 0.05`` writes its port as the first line. Answers are a
function of the request; faults are drawn from the seed, the request's body and how often that body
came, so that the order of arrival changes nothing. GET /counts tells what happened.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

FAULTS = (
    "rate_limit",
    "rate_limit_wait",
    "error_500",
    "error_503",
    "hang",
    "reset",
    "truncated",
    "empty_choices",
    "missing_choices",
    "html",
    "error_body",
    "trickle",
)
STATUSES = {
    "rate_limit": (429, {"Retry-After": "0"}),
    "rate_limit_wait": (429, {"Retry-After": "0.05"}),
    "error_500": (500, {}),
    "error_503": (503, {}),
}
Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A response given word for word."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    def written(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return http(self.status, body, self.headers)


def rank(messages: Messages, sample: int = 0) -> str:
    """A ranking of all [n] of the last user message, in an order hashed from the prompt."""
    prompt = json.dumps(messages, sort_keys=True)
    users = [m["content"] for m in messages if m["role"] == "user"]
    labels = list(dict.fromkeys(re.findall(r"\[\d+\]", users[-1] if users else "")))
    seed = hashlib.sha256(f"{sample} {prompt}".encode()).hexdigest()
    random.Random(seed).shuffle(labels)
    ranking = " > ".join(labels) or "nothing to rank"
    if "<answer>" in prompt:
        first = labels[0] if labels else "nothing"
        return f"<think>{first} says it best.</think><answer>{ranking}</answer>"
    return ranking


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server answers and misbehaves.

    ``script`` holds what the first requests meet, one entry each: a fault's name, a ``Fixed``
    response (not counted), or "" for an answer; after it faults come with probability
    ``fault_rate``. ``most_samples`` is the largest ``n`` it honours. ``answer`` makes the text of
    a sample.
    """

    answer: Callable[[Messages, int], str] = rank
    answer_tokens: int = 0
    reasoning: str = ""
    reasoning_field: str = "reasoning_content"
    most_samples: int = 8
    logprobs: bool = True
    usage: bool = True
    delay: float = 0.0
    key: str | None = None
    model: str = "tiny"
    script: tuple[str | Fixed, ...] = ()
    fault_rate: float = 0.0
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    hang: float = 3600.0
    trickle_step: float = 0.05


def http(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body


def hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the client has closed its side, also if the event loop has not heard of it yet."""
    if writer.transport.is_closing() or reader.at_eof():
        return True
    peek = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    try:
        return peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        peek.close()


def pieces(text: str) -> list[str]:
    """Words with the blanks before them: the tokens of this server."""
    return re.findall(r"\s*\S+|\s+$", text)


class Server:
    """The server in a thread of its own, or (``serve``) in the loop at hand."""

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self.script = deque(self.settings.script)
        self.requests = self.with_key = self.in_flight = self.most_in_flight = 0
        self.faults: Counter[str] = Counter()
        self.successes: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.bodies: deque[dict[str, Any]] = deque(maxlen=1000)
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # Running it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            async with await self.serve():
                ready.set()
                await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run(main())

    async def serve(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def counts(self) -> dict[str, Any]:
        """What GET /counts returns. ``successes`` counts replies written whole to a client that
        was still there; ``by_request`` and ``samples`` do so for every distinct body."""
        return {
            "requests": self.requests,
            "with_key": self.with_key,
            "successes": sum(self.successes.values()),
            "faults": dict(self.faults),
            "most_in_flight": self.most_in_flight,
            "by_request": dict(self.successes),
            "samples": dict(self.samples),
        }

    # One connection

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # gone, or the test is over
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET" and path == "/counts":
            writer.write(http(200, json.dumps(self.counts()).encode()))
            await writer.drain()
            return True
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer((method, path, headers, raw), reader, writer)
        finally:
            self.in_flight -= 1

    async def _answer(
        self, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        method, path, headers, raw = request
        given = headers.get("authorization", "")
        if self.settings.key is not None and given != f"Bearer {self.settings.key}":
            return await self._error(writer, 401, "wrong key")
        if method == "GET" and path == "/v1/models":
            models = {"object": "list", "data": [{"id": self.settings.model, "object": "model"}]}
            writer.write(http(200, json.dumps(models).encode()))
            await writer.drain()
            return True
        if method != "POST" or path != "/v1/chat/completions":
            return await self._error(writer, 404, f"no {path}")
        self.requests += 1
        self.with_key += bool(given)
        body = json.loads(raw)
        self.bodies.append(body)
        if self.settings.delay:
            await asyncio.sleep(self.settings.delay)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        fault = self._fault(digest)
        if isinstance(fault, Fixed):
            writer.write(fault.written())
            await writer.drain()
            return True
        reply = json.dumps(self._reply(body, digest)).encode()
        if fault:
            self.faults[fault] += 1
            return await self._misbehave(fault, reply, reader, writer)
        return await self._succeed(digest, self._drawn(body), reply, (reader, writer))

    async def _succeed(self, digest: str, samples: int, reply: bytes, ends: Any) -> bool:
        reader, writer = ends
        await asyncio.sleep(0)
        if hung_up(reader, writer):
            return False
        # Counted first: the client may ask for the counts as soon as it has the reply.
        self.successes[digest] += 1
        self.samples[digest] += samples
        try:
            writer.write(http(200, reply))
            await writer.drain()
        except OSError:
            self.successes[digest] -= 1
            self.samples[digest] -= samples
            return False
        return True

    async def _error(self, writer: asyncio.StreamWriter, status: int, message: str) -> bool:
        error = {"error": {"message": message, "type": "test", "code": None}}
        writer.write(http(status, json.dumps(error).encode()))
        await writer.drain()
        return True

    def _fault(self, digest: str) -> str | Fixed:
        if self.script:
            return self.script.popleft()
        self.attempts[digest] += 1
        draw = random.Random(f"{self.settings.seed} {digest} {self.attempts[digest]}")
        hit = draw.random() < self.settings.fault_rate
        return draw.choice(self.settings.faults) if hit else ""

    async def _misbehave(
        self,
        fault: str,
        reply: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if fault == "hang":
            with contextlib.suppress(asyncio.TimeoutError):  # until the client goes
                await asyncio.wait_for(reader.read(1), self.settings.hang)
            return False
        if fault == "trickle":
            whole = http(200, reply)
            for i in range(len(whole)):
                writer.write(whole[i : i + 1])
                await writer.drain()
                await asyncio.sleep(self.settings.trickle_step)
            return False
        if fault == "reset":
            whole = http(200, reply)
            writer.write(whole[: len(whole) - len(reply) // 2])
            await writer.drain()
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        writer.write(broken(fault, reply))
        await writer.drain()
        return True

    # What it says

    def _drawn(self, body: dict[str, Any]) -> int:
        return max(1, min(int(body.get("n") or 1), self.settings.most_samples))

    def _reply(self, body: dict[str, Any], digest: str) -> dict[str, Any]:
        # A repeated request draws further samples, unless it is greedy.
        first = self.samples[digest] if body.get("temperature", 1) else 0
        choices, written = [], 0
        for i in range(self._drawn(body)):
            choice, tokens = self._choice(body, first + i)
            choices.append({"index": i, **choice})
            written += tokens
        prompt = sum(len(pieces(m["content"])) for m in body["messages"])
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        return {
            "id": "chatcmpl-" + digest[:12],
            "object": "chat.completion",
            "created": 0,
            "model": self.settings.model,
            "choices": choices,
            **({"usage": usage} if self.settings.usage else {}),
        }

    def _choice(self, body: dict[str, Any], sample: int) -> tuple[dict[str, Any], int]:
        text = self.settings.answer(body["messages"], sample)
        tokens = pieces(text)
        missing = self.settings.answer_tokens - len(tokens)
        tokens += [f" w{i % 97}" for i in range(missing)]
        most = body.get("max_tokens") or body.get("max_completion_tokens") or len(tokens)
        kept = tokens[:most]
        message = {"role": "assistant", "content": "".join(kept)}
        if self.settings.reasoning:
            message[self.settings.reasoning_field] = self.settings.reasoning
        finish = "stop" if len(kept) == len(tokens) else "length"
        choice: dict[str, Any] = {"message": message, "finish_reason": finish}
        if body.get("logprobs") and self.settings.logprobs:
            top = int(body.get("top_logprobs") or 0)
            choice["logprobs"] = {
                "content": [
                    {
                        "token": t,
                        "logprob": -0.25,
                        "top_logprobs": [
                            {"token": f"{t}{j or ''}", "logprob": -0.25 - j} for j in range(top)
                        ],
                    }
                    for t in kept
                ]
            }
        return choice, len(kept) + len(pieces(self.settings.reasoning))


def broken(fault: str, reply: bytes) -> bytes:
    """The response of a fault that is a whole HTTP response."""
    if fault in STATUSES:
        status, headers = STATUSES[fault]
        error = {"error": {"message": fault, "type": "test", "code": None}}
        return http(status, json.dumps(error).encode(), headers)
    if fault == "truncated":
        return http(200, reply[: len(reply) // 2])
    if fault == "html":
        return http(200, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})
    if fault == "error_body":
        return http(200, json.dumps({"error": {"message": "overloaded", "code": 502}}).encode())
    data = json.loads(reply)
    if fault == "empty_choices":
        data["choices"] = []
    else:
        assert fault == "missing_choices", fault
        del data["choices"]
    return http(200, json.dumps(data).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--answer-tokens", type=int, default=0)
    parser.add_argument("--most-samples", type=int, default=8)
    parser.add_argument("--reasoning", default="")
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, comma between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trickle-step", type=float, default=0.05)
    parser.add_argument("--key", default=None, help="the only bearer key taken (for tests)")
    options = vars(parser.parse_args())
    port = options.pop("port")
    options["faults"] = tuple(options["faults"].split(","))

    async def run() -> None:
        app = Server(ServerSettings(**options))
        server = await app.serve(port)
        sys.stdout.write(f"{app.port}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
