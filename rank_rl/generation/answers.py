"""Answers of a server on disk: one JSON line each, so that nothing is asked twice.

Contract: a line is written as soon as its answer has come and survives the end of the process,
however it ends; a line that was cut off is not read. Only answers are kept, never failures. What
decides an answer is its key, which the caller makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rank_rl.errors import DataError, StorageError
from rank_rl.records import Completion

FIELDS = ("text", "finish", "prompt_tokens", "completion_tokens", "seconds", "slots", "reasoning",
          "logprob")  # fmt: skip


class Answers:
    """Completions by key.

    Args:
        path: the file; it is made with the first answer.

    Raises:
        DataError: it is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.served: set[str] = set()  # names under which the model has answered
        self._known: dict[str, Completion] = {}
        self._file: IO[bytes] | None = None
        for record in self._records():
            self._known[record["key"]] = Completion(**{f: record[f] for f in FIELDS if f in record})
            self.served.add(str(record.get("model", "")))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Completion | None:
        """The answer of a key; None when there is none."""
        return self._known.get(key)

    def add(self, key: str, completion: Completion, *, model: str = "") -> None:
        """Keep an answer; ``model`` is the name that the server answered under.

        Raises:
            StorageError: it cannot be written.
        """
        record = {"key": key, "model": model, **asdict(completion)}
        text = json.dumps(record, ensure_ascii=False)
        try:
            file = self._file or self._opened()
            file.write(text.encode("utf-8", "replace") + b"\n")
            file.flush()
        except OSError as error:
            raise StorageError(
                f"cannot be written: {error.strerror}", where=str(self.path)
            ) from error
        self._known[key] = completion
        self.served.add(model)

    def close(self) -> None:
        """Close the file; another answer opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file = self.path.open("ab+")
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # a kill cut the last line off
                file.write(b"\n")
        return file

    def _records(self) -> Iterator[dict[str, Any]]:
        """The lines that are whole."""
        if not self.path.exists():
            return
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(self.path)) from error
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and {"key", "text"} <= record.keys():
                yield record
