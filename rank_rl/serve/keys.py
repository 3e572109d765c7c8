"""API keys: from the environment or a file, compared in constant time, never shown.

Only digests are kept, so that neither a key nor its length is in a log, a dump or the time that a
comparison takes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rank_rl.errors import RecipeError
from rank_rl.serve.limits import Refused


class Keys:
    """The keys that open a server; without any it is open to all.

    Args:
        keys: as clients send them.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, headers: Mapping[str, str]) -> None:
        """Look for a key in ``Authorization: Bearer`` or ``x-api-key``.

        Raises:
            Refused: 401 without a key that is known.
        """
        if not self._digests:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = [headers.get("x-api-key", "")]
        if scheme.lower() == "bearer":
            sent.append(token.strip())
        given = [_digest(key.encode("latin-1", "replace")) for key in sent]  # as headers come
        # All pairs are compared, so that the time says nothing about which key is close.
        found = [hmac.compare_digest(a, b) for a in given for b in self._digests]
        if not any(found):
            raise Refused(
                401,
                "unauthorized",
                "missing or unknown API key: send 'Authorization: Bearer …' or 'x-api-key: …'",
                {"WWW-Authenticate": "Bearer"},
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(variable: str | None, file: Path | None) -> Keys:
    """The keys of an environment variable (separated by spaces or commas) and of a file (one a
    line; lines that begin with # are comments).

    Raises:
        RecipeError: a source that was named has no key, or the file cannot be read.
    """
    found: list[str] = []
    if variable is not None:
        own = os.environ.get(variable, "").replace(",", " ").split()
        if not own:
            raise RecipeError(f"{variable} is not set or empty", where="--api-key-env")
        found += own
    if file is not None:
        try:
            rows = [row.strip() for row in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot be read: {error}", where=f"--api-key-file {file}") from error
        own = [row for row in rows if row and not row.startswith("#")]
        if not own:
            raise RecipeError("no key in it", where=f"--api-key-file {file}")
        found += own
    return Keys(found)
