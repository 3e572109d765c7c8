"""Lines in and out of data files; every problem becomes one error with file and line number.

Reading: UTF-8 (with or without a byte-order mark), blank lines skipped, an empty file refused; what
is compressed by gzip is read as what it holds, whatever its name.
Writing: to a temporary file beside the target, then renamed, so that a full disk loses nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from rank_rl.errors import DataError, StorageError

GZIP = b"\x1f\x8b"


def kind(path: Path) -> str:
    """The suffix of a file's name, without that of its compression: ``.tsv`` of ``a.tsv.gz``."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _opened(path: Path) -> TextIO:
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    if compressed:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(where, line)`` for every line that is not blank; ``where`` is ``file:number``.

    Raises:
        DataError: the file is missing, unreadable, empty or not UTF-8.
    """
    if path.is_dir():
        raise DataError("is a folder", where=str(path), expected="a file")
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    found = False
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    found = True
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), expected="UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"damaged: {error}", where=str(path), expected="a whole gzip file"
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not found:
        raise DataError("the file is empty", where=str(path), expected="at least one line")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(where, object)`` for every line of a JSONL file.

    Raises:
        DataError: as ``lines``, or a line that is not a JSON object.
    """
    for where, line in lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"invalid JSON: {error}", where=where) from error
        if not isinstance(record, dict):
            raise DataError("not a JSON object", where=where, expected="{…} on one line")
        yield where, record


def identifier(record: Mapping[str, Any], keys: Collection[str], where: str) -> str:
    """Return the first of ``keys`` that the record has, as a non-empty string (integers allowed).

    Raises:
        DataError: none of the keys is there, or the value is no identifier.
    """
    for key in keys:
        value = record.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise DataError("no identifier", where=where, expected=f"key {' or '.join(keys)}")


def text_field(
    record: Mapping[str, Any], keys: Collection[str], where: str, *, default: str | None = None
) -> str:
    """Return the first of ``keys`` that the record has, as valid Unicode text.

    Raises:
        DataError: no such key and no default, or a value that is not a string.
    """
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            return _valid(value)
        if value is not None:
            raise DataError(f"{key} is {value!r}", where=where, expected="a string")
    if default is None:
        raise DataError("no text", where=where, expected=f"key {' or '.join(keys)}")
    return default


def write_lines(path: Path, rows: Iterable[str]) -> None:
    """Write ``rows``, one a line, through a temporary file that replaces ``path`` at the end.

    Raises:
        StorageError: the folder cannot be made or the disk is full; ``path`` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Halves of surrogate pairs become "?": one odd character must not lose a finished run.
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(f"{row}\n" for row in rows)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def some(items: Iterable[str], shown: int = 5) -> str:
    """Return the first few of ``items`` and how many more there are, for an error message."""
    names = list(items)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + more


def _valid(text: str) -> str:
    # JSON may hold half of a surrogate pair; tokenizers and UTF-8 writers refuse such text.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
