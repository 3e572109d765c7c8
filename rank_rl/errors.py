"""The errors a user can cause, each one readable line: what, where, expected, remedy.

The command line prints the line and exits with status 2; nothing else in the project turns an
exception into silence. Text written by a model never raises: it becomes an ``Outcome``.
"""

from __future__ import annotations


class RankRLError(Exception):
    """Base of every error that is printed as one line instead of a traceback."""

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(self.line())

    def line(self) -> str:
        """Return the whole message as one line."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        if self.remedy:
            text += f" ({self.remedy})"
        return " ".join(text.split())


class RecipeError(RankRLError):
    """A recipe or a command-line value is wrong."""


class DataError(RankRLError):
    """A collection, run, qrels or task file is wrong."""


class ModelError(RankRLError):
    """A model folder is missing, incomplete or does not fit the recipe."""


class StorageError(RankRLError):
    """Output could not be written (full disk, no permission)."""


class BackendError(RankRLError):
    """A remote or local generator failed for one item after its bounded retries."""
