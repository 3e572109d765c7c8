"""The error boundary: what a user caused is one line and exit status 2, a bug keeps its traceback.

Full disks and missing permissions become ``StorageError`` here, whatever library met them.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from rank_rl.errors import RankRLError, StorageError

EXIT_USER, EXIT_INTERRUPT = 2, 130

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
_STORAGE_TEXT = ("No space left on device", "PytorchStreamWriter failed writing")
_OTHER_RANK_WAIT_S = 3.0


class Boundary(TyperGroup):
    """The command group that turns ``RankRLError`` and interrupts into an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the boundary."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say_error("interrupted")
            raise typer.Exit(EXIT_INTERRUPT) from None
        except Exception as error:
            known = user_error(error)
            if known is None and isinstance(error, EOFError):
                # typer takes it for a closed terminal and says no more than "Aborted".
                raise RuntimeError(f"a file ended too early: {error}") from error
            if known is None:
                raise
            say_error(f"error: {known.line()}")
            raise typer.Exit(EXIT_USER) from None


def user_error(error: BaseException) -> RankRLError | None:
    """The error as one the user can act on, or None for a bug."""
    for link in _chain(error):
        if isinstance(link, RankRLError):
            return link
        if isinstance(link, OSError) and link.errno in _STORAGE:
            where = str(link.filename or "output")
            return StorageError(link.strerror or str(link), where=where, remedy=_remedy(link))
        # safetensors and torch report a full disk as errors of their own kind.
        if any(text in str(link) for text in _STORAGE_TEXT):
            text = (str(link).splitlines() or [""])[0]
            return StorageError(f"output cannot be written: {text}", remedy="free some disk space")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and the ones it was explicitly raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _remedy(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some disk space" if full else "check the permissions"


def main_process() -> bool:
    """Whether this process speaks for the run (rank 0, or the only one)."""
    return os.environ.get("RANK", "0") == "0"


def say_error(line: str) -> None:
    """Print one line on stderr; the other ranks of a run give rank 0 the time to say it first."""
    if not main_process():
        # The launcher ends all ranks when one fails, so the same line is not repeated.
        time.sleep(_OTHER_RANK_WAIT_S)
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
