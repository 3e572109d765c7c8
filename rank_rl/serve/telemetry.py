"""What a server counts for Prometheus; nothing of what was sent is in it.

Contract: one registry for each server, so that several may live in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rank_rl.generation.results import TaskResult
from rank_rl.registry import need

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DOCUMENTS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)


class Telemetry:
    """The counters of one server.

    Args:
        inside: tells how many requests are inside.
        waiting: tells how many tasks the model has not finished.

    Raises:
        RecipeError: prometheus-client is not installed.
    """

    def __init__(self, inside: Callable[[], int], waiting: Callable[[], int]) -> None:
        library = need("prometheus_client", "serve")
        self._write = library.generate_latest
        self.content_type: str = library.CONTENT_TYPE_LATEST
        self._registry = library.CollectorRegistry()
        library.ProcessCollector(registry=self._registry)
        made = {"registry": self._registry}

        def counter(name: str, text: str, *labels: str) -> Any:
            return library.Counter(f"rank_rl_{name}", text, labels, **made)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Any:
            return library.Histogram(f"rank_rl_{name}", text, buckets=buckets, **made)

        def gauge(name: str, text: str, tell: Callable[[], int]) -> None:
            library.Gauge(f"rank_rl_{name}", text, **made).set_function(tell)

        self.requests = counter("requests", "Rerank requests answered.", "status")
        self.fallbacks = counter("fallbacks", "Answers in first-stage order.", "reason")
        self.tokens = counter("tokens", "Tokens read and written by the model.", "kind")
        self.answers = counter("answers", "Answers of the model by parse status.", "status")
        self.views = counter("views", "Questions that rankings took.")
        self.seconds = histogram("request_seconds", "Time of a request.", SECONDS)
        self.documents = histogram("request_documents", "Documents of a request.", DOCUMENTS)
        self.batches = histogram("batch_requests", "Requests that may share a batch.", SIZES)
        gauge("requests_inside", "Requests that are read or ranked now.", inside)
        gauge("tasks_waiting", "Rankings that the model has not finished.", waiting)

    def request(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.labels(str(status)).inc()
        self.seconds.observe(seconds)

    def ranked(self, result: TaskResult) -> None:
        """Count what a ranking of the model took."""
        self.views.inc(result.calls)
        self.tokens.labels("prompt").inc(result.prompt_tokens)
        self.tokens.labels("completion").inc(result.completion_tokens)
        for status, count in result.statuses.items():
            self.answers.labels(status).inc(count)

    def text(self) -> bytes:
        """All counters in the format that Prometheus reads."""
        written: bytes = self._write(self._registry)
        return written
