"""Tables of a data set on the Hugging Face Hub, or of a folder that holds the same files.

A table is one split of one configuration, as ``datasets.load_dataset(path, config, split=…)`` reads
it. Ids become text; white space within them becomes ``_``, which is how they stand in TREC runs
(BRIGHT's have some). Which tables a collection is made of is left to its own file.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rank_rl.data.files import identifier, text_field
from rank_rl.data.sources import Run
from rank_rl.errors import DataError, RankRLError, StorageError
from rank_rl.records import Candidate, Query

logger = logging.getLogger(__name__)
Rows = Iterator[tuple[str, dict[str, Any]]]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubTables:
    """One data set: reads its tables, and remembers what was read.

    Args:
        path: ``owner/name`` on the Hub, or a folder with the files of one, its README.md included,
            which names the configurations.
        revision: branch, tag or commit on the Hub; None is its main branch. A folder has none.

    Raises:
        DataError: the path can be neither.
    """

    def __init__(self, path: str, revision: str | None = None) -> None:
        self.folder = Path(path).expanduser()
        self.local = self.folder.is_dir()
        if not self.local and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
            raise DataError(
                f"no such folder: {path}",
                where="data.path",
                expected="a folder with the files of a data set, or owner/name on the Hub",
            )
        self.path, self.revision = path, None if self.local else revision
        self.commit: str | None = None
        self.files: dict[str, Path] = {}
        self._tables: list[str] = []
        self._builders: dict[str | None, Any] = {}

    @property
    def name(self) -> str:
        """Its name without the owner, or the folder's."""
        return self.folder.resolve().name if self.local else self.path.partition("/")[2]

    def splits(self, config: str | None) -> tuple[str, ...]:
        """Names of the splits of a configuration.

        Raises:
            DataError: the data set cannot be had, or has no such configuration.
        """
        builder = self._builder(config)
        if builder.config.data_files:
            return tuple(map(str, builder.config.data_files))
        return tuple(builder.info.splits or ())  # what an earlier download left behind

    def rows(
        self, config: str | None, split: str, columns: Sequence[str], optional: Sequence[str] = ()
    ) -> Rows:
        """Yield where a row stands, and the row with ``columns`` and those ``optional`` it has.

        Raises:
            DataError: as ``splits``, or there is no such split or column.
        """
        if split not in (known := self.splits(config)):
            raise DataError(
                f"no split {split!r}", where=self._where(config), expected=f"one of {_some(known)}"
            )
        builder = self._builder(config)
        try:
            builder.download_and_prepare()
            table = builder.as_dataset(split=split)
        except Exception as error:  # of pyarrow, fsspec, httpx or datasets: all of them mean this
            raise self._lost(config, error) from error
        if lacks := [name for name in columns if name not in table.column_names]:
            raise DataError(
                f"no column {lacks[0]!r}",
                where=self._where(config, split),
                expected=f"{', '.join(columns)}; there are {_some(table.column_names)}",
            )
        self._remember(config, split, builder)
        table = table.select_columns([n for n in (*columns, *optional) if n in table.column_names])
        for number, row in enumerate(table):
            yield f"{self._where(config, split)}, row {number}", row

    def facts(self) -> dict[str, Any]:
        """JSON-safe provenance: the data set, its commit where it has one, and the tables read."""
        name = self.name if self.local else self.path
        facts = {"path": name, "revision": self.revision, "commit": self.commit}
        return {**{k: v for k, v in facts.items() if v}, "tables": sorted(self._tables)}

    def _builder(self, config: str | None) -> Any:
        if config in self._builders:
            return self._builders[config]
        import datasets

        path = str(self.folder) if self.local else self.path
        try:
            builder = datasets.load_dataset_builder(path, config, revision=self.revision)
        except Exception as error:  # of pyarrow, fsspec, httpx or datasets: all of them mean this
            raise self._lost(config, error) from error
        if not self.local and _COMMIT.fullmatch(builder.hash or ""):
            self.commit = builder.hash
            # Without a network, datasets takes whichever revision it has.
            if self.revision and _COMMIT.fullmatch(self.revision) and self.revision != self.commit:
                raise DataError(
                    f"revision {self.commit} is what an earlier download left here",
                    where=self._where(config),
                    expected=self.revision,
                    remedy="load it once with a network, or leave params.revision out",
                )
        self._builders[config] = builder
        return builder

    def _remember(self, config: str | None, split: str, builder: Any) -> None:
        self._tables.append(f"{config}/{split}" if config else split)
        if self.local and builder.config.data_files:
            for name in builder.config.data_files[split]:
                # Not resolved: in a snapshot of the Hub's cache each file is a link elsewhere.
                shown = os.path.relpath(name, os.path.abspath(self.folder))
                self.files[Path(shown).as_posix()] = Path(name)

    def _lost(self, config: str | None, error: Exception) -> RankRLError:
        """What to say when ``datasets`` does not give a table, in one line."""
        if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        where = self._where(config)
        if isinstance(error, OSError) and error.errno in _FULL:
            return StorageError(
                f"the cache of datasets cannot be written: {error.strerror}",
                where=where,
                remedy="HF_HOME names its folder",
            )
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if self.local:
            return DataError(
                f"cannot be read: {said}",
                where=where,
                remedy="the folder needs all files of the data set, README.md with its configs too",
            )
        return DataError(
            f"cannot be had from the Hub: {said}",
            where=where,
            remedy=f"download it where there is a network: hf download {self.path} --repo-type "
            "dataset --local-dir FOLDER, and set data.path: FOLDER",
        )

    def _where(self, config: str | None, split: str = "") -> str:
        return ", ".join(filter(None, (self.path, "/".join(filter(None, (config, split))))))


def hub_id(record: Mapping[str, Any], key: str, where: str) -> str:
    """An id as text that a TREC run can hold.

    Raises:
        DataError: there is none.
    """
    return as_id(identifier(record, (key,), where))


def as_id(name: object) -> str:
    """An id as text, with ``_`` for white space."""
    return "_".join(str(name).split())


def as_ids(run: Run) -> Run:
    """A run whose ids are written as ``as_id`` writes them."""
    return {as_id(q): tuple((as_id(d), s) for d, s in by) for q, by in run.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns with a document's or a query's id, text and title."""

    key: str = "_id"
    text: str = "text"
    title: str = "title"


def documents(
    rows: Rows, columns: Columns, wanted: frozenset[str] | None = None
) -> dict[str, Candidate]:
    """Documents of a table, or those ``wanted``; of two with one id the first, with a warning.

    Raises:
        DataError: a row without an id or a text.
    """
    found: dict[str, Candidate] = {}
    repeated = 0
    for where, row in rows:
        docid = hub_id(row, columns.key, where)
        if wanted is not None and docid not in wanted:
            continue
        text = text_field(row, (columns.text,), where, default="")
        title = text_field(row, (columns.title,), where, default="")
        known = found.setdefault(docid, Candidate(docid=docid, text=text, title=title))
        repeated += (known.text, known.title) != (text, title)
    if repeated:
        logger.warning("%d documents share their id with an earlier one: left out", repeated)
    return found


def queries(rows: Rows, columns: Columns, instruction: str | None) -> dict[str, Query]:
    """Queries of a table.

    Raises:
        DataError: a row without an id or a text, or an id that appears twice.
    """
    found: dict[str, Query] = {}
    for where, row in rows:
        qid, text = hub_id(row, columns.key, where), text_field(row, (columns.text,), where)
        if qid in found:
            raise DataError(f"query id {qid!r} appears twice", where=where)
        found[qid] = Query(qid=qid, text=text, instruction=instruction)
    return found


def grade(value: object, where: str) -> str:
    """A grade as ``sources.add_grade`` reads it: whole numbers may be written as 1.0.

    Raises:
        DataError: another kind of value.
    """
    if isinstance(value, str):
        return value
    whole = isinstance(value, int | float) and float(value).is_integer()
    if isinstance(value, bool) or not whole:
        raise DataError(f"grade {value!r}", where=where, expected="an integer")
    return str(int(value))  # type: ignore[call-overload]


def _some(names: Sequence[str], shown: int = 14) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
