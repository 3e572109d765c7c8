"""What was answered, query by query, on disk while others are asked and after.

Contract: a folder with one file a process; a line for the settings, then one a finished query,
written before the next portion is asked. A line that a kill cut off is not read. What any process
has answered counts for all, whatever their number was. Whether the settings are the same is checked
by the one who opens the folder (``settings.check_same``).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from rank_rl.bench.answered import Answered
from rank_rl.errors import DataError, StorageError
from rank_rl.reranking.settings import check_same

PATIENCE = 120.0  # seconds until another machine's file is seen in a shared folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An answer without its traces, and the line that holds them."""

    answer: Answered
    path: Path
    offset: int


class Kept:
    """The answers of one reranking.

    Args:
        folder: where they are; it is made with the first answer.
        settings: what decides the answers.
        rank: number of this process, whose file is written.

    ``found`` holds, by query id, what was read or added last.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, rank: int = 0) -> None:
        self.folder, self.settings = folder, settings
        self.path = folder / f"part-{rank}.jsonl"
        self.found: dict[str, Place] = {}
        self._file: IO[bytes] | None = None

    def open(self, *, overwrite: bool = False) -> None:
        """Look at what is there; ``overwrite`` removes it.

        Raises:
            RecipeError: it was answered with other settings.
            DataError: another process is at work here.
            StorageError: the folder cannot be written.
        """
        for path in self._parts():
            with path.open("rb") as file:
                _lock(file, self.folder)
        if overwrite:
            self.remove()
        self.refresh()

    def remove(self) -> None:
        """Delete all that is kept.

        Raises:
            StorageError: it cannot be deleted.
        """
        self.close()
        try:
            if self.folder.is_dir():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise _storage("cannot be deleted", self.folder, error) from error
        self.found.clear()

    def refresh(self, wanted: Collection[str] = ()) -> None:
        """Read the files of all processes.

        Args:
            wanted: ids of queries that are answered; files of other machines may be seen late.

        Raises:
            RecipeError: something was answered with other settings.
            DataError: a query of ``wanted`` is not there, after two minutes.
        """
        latest = time.monotonic() + PATIENCE
        while True:
            self.found = {}
            for path in self._parts():
                self._read(path)
            missing = [qid for qid in wanted if qid not in self.found]
            if not missing:
                return
            if time.monotonic() > latest:
                raise DataError(
                    f"{len(missing)} answers of other processes are not there",
                    where=str(self.folder),
                    expected="a folder that all machines share",
                    remedy="the same command goes on",
                )
            time.sleep(1.0)

    def add(self, answers: Sequence[Answered]) -> None:
        """Keep a portion: on disk first, so that a kill loses at most the next one.

        Raises:
            DataError: another process is at work here.
            StorageError: it cannot be written.
        """
        try:
            file = self._file or self._opened()
            offset = file.seek(0, os.SEEK_END)
            lines = [json.dumps(asdict(answer)).encode() + b"\n" for answer in answers]
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise _storage("cannot be written", self.path, error) from error
        for answer, line in zip(answers, lines, strict=True):
            self._take(replace(answer, traces=()), self.path, offset)
            offset += len(line)

    def traces(self, qid: str) -> tuple[str, ...]:
        """The exchanges of a query, as ``bench.traces`` writes them."""
        place = self.found[qid]
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return tuple(json.loads(file.readline())["traces"])

    def whole(self, qid: str) -> Answered:
        """An answer with its exchanges."""
        return replace(self.found[qid].answer, traces=self.traces(qid))

    def close(self) -> None:
        """Close the file of this process, which lets others write it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.jsonl"))

    def _opened(self) -> IO[bytes]:
        """The file of this process without what a kill left of a line, and with its settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab+")
        _lock(file, self.folder)
        end = max((end for _, _, end in _lines(file)), default=0)
        file.truncate(end)
        if not end:
            file.write(json.dumps({"settings": self.settings}).encode() + b"\n")
        self._file = file
        return file

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                for number, (record, offset, _) in enumerate(_lines(file)):
                    if number == 0:
                        check_same(record.get("settings", {}), self.settings, str(self.folder))
                        continue
                    names = ("docids", "scores")
                    known = {**record, **{name: tuple(record[name]) for name in names}}
                    self._take(Answered(**{**known, "traces": ()}), path, offset)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error

    def _take(self, answer: Answered, path: Path, offset: int) -> None:
        before = self.found.get(answer.qid)
        if before is None or given_up(before.answer):
            self.found[answer.qid] = Place(answer=answer, path=path, offset=offset)


def given_up(answer: Answered) -> bool:
    """Whether a request for a query got no answer, so that it is worth asking again."""
    return "no_answer" in answer.issues


def _lines(file: IO[bytes]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Whole lines from the start, each with where it begins and ends; the first bad one ends it."""
    file.seek(0)
    offset = 0
    for line in iter(file.readline, b""):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        yield record, offset, offset + len(line)
        offset += len(line)


def _lock(file: IO[bytes], folder: Path) -> None:
    """Hold a file's lock until it is closed, so that no two processes write it.

    Raises:
        DataError: another process is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            "another process is reranking into this folder",
            where=str(folder),
            remedy="wait for it, or give another --output",
        ) from error
    except OSError:  # a disk without locks
        return


def _storage(what: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"{what}: {error.strerror}", where=str(path))
