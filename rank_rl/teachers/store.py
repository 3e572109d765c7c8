"""What teachers answered and what it took: one SQLite file a process, safe against kill -9.

A completion is stored under a key of everything that decides it (``key_of``), in the same
transaction as the attempt that brought it, so the ledger and the completions never disagree.
Attempts are written down before they are sent: one without an end was interrupted and may have
been paid for. Reading looks into the files of all processes. Which prompts are asked, and money,
are left to ``asking`` and ``ledger``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rank_rl.errors import DataError, StorageError
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Completion, Prompt

VERSION = 1
OPEN, OK = "open", "ok"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS completions (
  key TEXT PRIMARY KEY, teacher TEXT, question TEXT, model TEXT, text TEXT, reasoning TEXT,
  finish TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, logprob REAL, seconds REAL);
CREATE TABLE IF NOT EXISTS attempts (
  id INTEGER PRIMARY KEY, run INTEGER, key TEXT, teacher TEXT, question TEXT, state TEXT,
  prompt_tokens INTEGER DEFAULT 0, completion_tokens INTEGER DEFAULT 0, started REAL, ended REAL);
CREATE TABLE IF NOT EXISTS failures (
  key TEXT PRIMARY KEY, teacher TEXT, question TEXT, unit TEXT, cause TEXT, detail TEXT);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that brought nothing after all its attempts."""

    key: str
    teacher: str
    question: str
    unit: str
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request: who is asked, for which question and unit, and a key for each sample."""

    keys: tuple[str, ...]
    teacher: str
    question: str
    unit: str


def key_of(
    prompt: Prompt,
    sampling: Sampling,
    *,
    model: str,
    version: str,
    sample: int = 0,
    salt: str = "",
) -> str:
    """The key of a completion: hash of model, messages, sampling and format version.

    Args:
        prompt: messages and prefill.
        sampling: how it is drawn.
        model: name of the model asked, with whatever else of the teacher changes its answers.
        version: the format's version, which says how the answer will be read.
        sample: which of several draws.
        salt: what else decides the answer (what an oracle knows).
    """
    content = {
        "key": VERSION,
        "model": model,
        "messages": [dict(m) for m in prompt.messages],
        "prefill": prompt.prefill,
        "sampling": sampling.as_dict(),
        "format": version,
        "sample": sample,
        **({"salt": salt} if salt else {}),
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Store:
    """Completions, attempts and failures of one output folder.

    Args:
        folder: holds ``rank-N.sqlite``, one file a process; None keeps everything in memory.
        rank: number of this process, whose file is written.

    Raises:
        DataError: a file there is not a store, or of a newer version.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path | None, rank: int = 0) -> None:
        self.folder = folder
        self.path = Path(":memory:") if folder is None else folder / f"rank-{rank}.sqlite"
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            self._own = _open(self.path)
        except OSError as error:
            raise StorageError(f"cannot be made: {error.strerror}", where=str(folder)) from error
        self._all = [self._own]
        self._known: dict[str, sqlite3.Connection] = {}
        self._failed: set[str] = set()
        self.refresh()
        self.run = int(self._one("SELECT COALESCE(MAX(run), 0) + 1 FROM attempts") or 1)

    def refresh(self) -> None:
        """Look into the files of other processes again."""
        for connection in self._all[1:]:
            connection.close()
        found = self.folder.glob("rank-*.sqlite") if self.folder else ()
        others = sorted(p for p in found if p != self.path)
        self._all = [self._own, *(_open(p) for p in others)]
        self._known.clear()
        self._failed.clear()
        for connection in self._all:
            for (key,) in connection.execute("SELECT key FROM completions"):
                self._known.setdefault(key, connection)
            self._failed.update(k for (k,) in connection.execute("SELECT key FROM failures"))

    def close(self) -> None:
        """Close all files."""
        for connection in self._all:
            connection.close()
        if self._lock is not None:
            self._lock.close()

    def ignore_failures(self) -> None:
        """Count failed requests as never sent, in this object only."""
        self._failed.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def get(self, key: str) -> Completion | None:
        """The stored completion of a key; None when there is none."""
        connection = self._known.get(key)
        if connection is None:
            return None
        row = connection.execute(
            "SELECT text, reasoning, finish, prompt_tokens, completion_tokens, logprob, seconds "
            "FROM completions WHERE key = ?",
            (key,),
        ).fetchone()
        return Completion(
            text=row[0],
            reasoning=row[1],
            finish=row[2],
            prompt_tokens=row[3],
            completion_tokens=row[4],
            logprob=row[5],
            seconds=row[6],
        )

    def failed(self, key: str) -> bool:
        """Whether the key was given up."""
        return key in self._failed

    def failures(self) -> list[Failure]:
        """All requests given up, in the order of their keys."""
        columns = "key, teacher, question, unit, cause, detail"
        rows = self._rows(f"SELECT {columns} FROM failures")
        names = columns.split(", ")
        return sorted(
            (Failure(**dict(zip(names, r, strict=True))) for r in rows), key=lambda f: f.key
        )

    def forget_failures(self) -> int:
        """Let every failed request be asked again; returns how many there were."""
        count = len(self._failed)
        for connection in self._all:
            with self._writing(connection):
                connection.execute("DELETE FROM failures")
        self._failed.clear()
        return count

    def begin(self, asked: Asked) -> int:
        """Write down that a request is about to be sent; returns its number."""
        with self._writing(self._own):
            cursor = self._own.execute(
                "INSERT INTO attempts (run, key, teacher, question, state, started) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (self.run, asked.keys[0], asked.teacher, asked.question, OPEN, time.time()),
            )
        return int(cursor.lastrowid or 0)

    def end(
        self,
        ticket: int,
        asked: Asked,
        reply: Reply | None,
        cause: str,
        used: tuple[int, int] = (0, 0),
    ) -> None:
        """Write down what became of a request, with its completions where it brought some.

        Args:
            ticket: what ``begin`` returned.
            asked: the request.
            reply: what it brought; None when nothing usable came.
            cause: why nothing came.
            used: tokens, in and out, that a reply without use was charged for.
        """
        used = (reply.prompt_tokens, reply.completion_tokens) if reply else used
        with self._writing(self._own):
            self._own.execute(
                "UPDATE attempts SET state = ?, ended = ?, prompt_tokens = ?, completion_tokens = ?"
                " WHERE id = ?",
                (OK if reply else cause, time.time(), *used, ticket),
            )
            if reply:
                rows = [
                    _row(key, asked, reply.model, completion)
                    for key, completion in zip(asked.keys, reply.completions, strict=False)
                ]
                marks = ", ".join("?" * len(rows[0]))
                self._own.executemany(f"INSERT OR IGNORE INTO completions VALUES ({marks})", rows)
        for row in rows if reply else ():
            self._known.setdefault(row[0], self._own)

    def give_up(self, asked: Asked, error: CallError) -> None:
        """Record a request that failed for good."""
        detail = _valid(error.detail)
        with self._writing(self._own):
            self._own.executemany(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (key, asked.teacher, asked.question, asked.unit, error.cause, detail)
                    for key in asked.keys
                ],
            )
        self._failed.update(asked.keys)

    def totals(self, *, own: bool = False) -> dict[str, dict[str, Any]]:
        """By teacher: requests by state, and the tokens of the successful ones.

        Args:
            own: only those of this process.
        """
        query = (
            "SELECT teacher, state, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens) "
            "FROM attempts GROUP BY teacher, state"
        )
        found: dict[str, dict[str, Any]] = {}
        rows = list(self._own.execute(query)) if own else self._rows(query)
        for teacher, state, count, tokens_in, tokens_out in rows:
            entry = found.setdefault(teacher, {"states": {}, "tokens_in": 0, "tokens_out": 0})
            entry["states"][state] = entry["states"].get(state, 0) + count
            entry["tokens_in"] += tokens_in or 0
            entry["tokens_out"] += tokens_out or 0
        return dict(sorted(found.items()))

    def mean_tokens(self, question: str) -> float | None:
        """Mean completion tokens of a question's stored answers; None where there are none."""
        rows = self._rows(
            "SELECT COUNT(*), SUM(completion_tokens) FROM completions WHERE question = ?",
            (question,),
        )
        count, total = sum(r[0] for r in rows), sum(r[1] or 0 for r in rows)
        return total / count if count else None

    @contextlib.contextmanager
    def _writing(self, connection: sqlite3.Connection) -> Iterator[None]:
        """One transaction; a full disk is an error that a user can act on."""
        try:
            with connection:
                yield
        except sqlite3.OperationalError as error:
            raise StorageError(f"cannot be written: {error}", where=str(self.path)) from error

    def _one(self, query: str) -> Any:
        values = [c.execute(query).fetchone()[0] for c in self._all]
        return max(values)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row for c in self._all for row in c.execute(query, values)]


def _locked(path: Path) -> IO[str] | None:
    """Hold a file's lock as long as this process lives, so that no other one pays twice.

    Raises:
        DataError: another process is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    if path.name == ":memory:":
        return None
    lock = path.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DataError(
            "another run is at work in this folder",
            where=str(path.parent),
            remedy="wait for it, or choose another run.output_dir",
        ) from error
    return lock


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # With a write-ahead log every commit survives the end of this process, however it ends.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
        connection.commit()
        found = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise StorageError(f"cannot be written: {error}", where=str(path)) from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"is not a store of completions: {error}", where=str(path), remedy="move it away"
        ) from error
    if int(found) > VERSION:
        raise DataError(
            f"store of version {found}", where=str(path), expected=f"version {VERSION} or older"
        )
    return connection


def _row(key: str, asked: Asked, model: str, completion: Completion) -> tuple[Any, ...]:
    return (
        key,
        asked.teacher,
        asked.question,
        _valid(model),
        _valid(completion.text),
        _valid(completion.reasoning),
        completion.finish,
        completion.prompt_tokens,
        completion.completion_tokens,
        completion.logprob,
        completion.seconds,
    )


def _valid(text: str) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs, which JSON may name, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def served_by(store: Store) -> dict[str, list[str]]:
    """Names under which the models of each teacher answered."""
    found: dict[str, set[str]] = {}
    for teacher, model in store._rows("SELECT DISTINCT teacher, model FROM completions"):
        found.setdefault(teacher, set()).add(model or "")
    return {teacher: sorted(names - {""}) for teacher, names in sorted(found.items())}


def seconds(store: Store) -> float:
    """Wall time spent on requests, summed over runs (the longest process of each)."""
    rows = store._rows(
        "SELECT run, MAX(COALESCE(ended, started)) - MIN(started) FROM attempts GROUP BY run"
    )
    longest: dict[int, float] = {}
    for run, spent in rows:
        longest[run] = max(longest.get(run, 0.0), spent or 0.0)
    return sum(longest.values())
