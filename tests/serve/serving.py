"""A server on loopback in this process, and a model that answers when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from rank_rl import formats
from rank_rl.models.loading import Loaded, load
from rank_rl.rerank import Reranker
from rank_rl.serve.keys import Keys
from rank_rl.serve.limits import Limits
from rank_rl.serve.server import Server, bind
from rank_rl.serve.service import Service
from rank_rl.specs import FormatSpec, ModelSpec

SLOTS = FormatSpec(name="slots", mode="reason", doc_tokens=16)
# One for all: reading certificates takes longer than most requests.
HTTP = httpx2.Client(timeout=300, verify=False)
DOCUMENTS = ["the river", "the lake is deep", "a small town", "who is the father?", "the film"]


def load_tiny(folder: Path) -> Loaded:
    return load(ModelSpec(name=str(folder), autocast="off"), device="cpu")


def ranker_of(loaded: Loaded, spec: FormatSpec = SLOTS, **params: Any) -> Reranker:
    return Reranker(loaded=loaded, fmt=formats.make(spec), max_new_tokens=4, **params)


class Held:
    """Makes a ranker's model wait before every batch until it is let go.

    ``asked`` holds the batches as they came, each as the queries of its views. ``fails`` is called
    with them and may raise.
    """

    def __init__(self, ranker: Reranker, *, go: bool = False) -> None:
        self._ask = ranker.asker.ask
        self.asked: list[list[str]] = []
        self.came, self.go = threading.Semaphore(0), threading.Event()
        self.fails: Any = lambda queries: None
        if go:
            self.go.set()
        ranker.asker.ask = self.ask  # type: ignore[method-assign]

    def ask(self, views: Sequence[Any]) -> Any:
        queries = [view.query.text for view in views]
        self.asked.append(queries)
        self.came.release()
        assert self.go.wait(120), "never let go"
        self.fails(queries)
        return self._ask(views)


@contextmanager
def serving(ranker: Reranker, *, keys: Sequence[str] = (), **limits: Any) -> Iterator[Server]:
    """A server that answers while the block runs; ``limits`` are those of ``Limits``."""
    together = limits.pop("together", None)
    service = Service(ranker, name="tiny", limits=Limits(**limits), together=together)
    server = Server(service, Keys(keys), bind("127.0.0.1", 0))
    server.start()
    try:
        yield server
    finally:
        assert server.stop(grace=0)
