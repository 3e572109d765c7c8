"""What a server takes on, and the errors in which it says that something was too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_rl.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one request and of all together; every one is a positive number.

    Attributes:
        documents: most documents of a request.
        body_bytes: most bytes of a request's body.
        query_chars: most characters of a query, and of an instruction.
        document_chars: characters of a document's title and text that are looked at; counting the
            tokens of a long one would keep all other requests waiting.
        waiting: most requests that are read or ranked at the same time.
        seconds: time budget of a request, from its last byte; then the first stage answers.
        upload_seconds: most seconds that a request's body may take to arrive.

    Raises:
        RecipeError: a bound is not positive.
    """

    documents: int = 1000
    body_bytes: int = 4 * 2**20
    query_chars: int = 8192
    document_chars: int = 32768
    waiting: int = 256
    seconds: float = 60.0
    upload_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise RecipeError(f"{name} is {value}", where="limits", expected="more than 0")

    def line(self) -> str:
        """The bounds as one line."""
        return (
            f"{self.documents} documents, {self.body_bytes:,} bytes, {self.query_chars} characters "
            f"of a query, {self.document_chars} of a document, {self.waiting} requests at once, "
            f"{self.seconds:g} s each"
        )


@dataclass(eq=False)
class Refused(Exception):
    """A request that gets an error instead of a ranking.

    Attributes:
        status: of HTTP.
        code: one word for programs.
        message: one line for people; it repeats nothing of what was sent but names of fields.
        headers: further ones of the response.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """What the response says: Cohere's clients look for ``message``, Jina's for ``detail``."""
        return {"message": self.message, "detail": self.message, "code": self.code}
