"""What lies beside a result file: queries with documents, runs, and what was asked and answered.

Contract: nothing of it is needed. A file that is missing or cannot be read is noted in words and
counts as empty; each is read once. Files are looked for inside the result's folder alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl.bench.layout import TASKS
from rank_rl.data import trec
from rank_rl.data.tasks import read_tasks
from rank_rl.errors import DataError
from rank_rl.records import RankingTask
from rank_rl.report import answered
from rank_rl.report.answered import Answered

log = logging.getLogger(__name__)
Orders = dict[str, tuple[str, ...]]


class Beside:
    """The files of one result; ``notes`` says what is missing, once it has been asked for."""

    def __init__(self, *, folder: Path, result: Mapping[str, Any]) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._systems = {s["name"]: s for s in result["systems"]}
        self._tasks: dict[str, RankingTask] | None = None
        self._orders: dict[str, Orders] = {}
        self._answers: dict[str, dict[str, Answered]] = {}

    @property
    def tasks(self) -> dict[str, RankingTask]:
        """Test queries with candidates and grades by query id; empty where they are not known."""
        if self._tasks is None:
            path = self.folder / TASKS
            self._tasks = {}
            if not path.is_file():
                self.notes.append(
                    f"There is no {TASKS} beside the result (older benchmarks wrote none): the "
                    "texts and grades of documents are not known here."
                )
            else:
                try:
                    self._tasks = {t.query.qid: t for t in read_tasks(path)}
                except DataError as error:
                    self._say(f"{TASKS} could not be read", error)
        return self._tasks

    def orders(self, name: str) -> Orders:
        """A system's rankings by query id, best first, out of its TREC run."""
        if name not in self._orders:
            self._orders[name] = {}
            if path := self._file(name, "run"):
                try:
                    run = trec.read_run(path)
                    self._orders[name] = {q: tuple(d for d, _ in r) for q, r in run.items()}
                except DataError as error:
                    self._say(f"The run of {name} could not be read", error)
        return self._orders[name]

    def answers(self, name: str) -> dict[str, Answered]:
        """What a system said about each query, out of its exchanges."""
        if name not in self._answers:
            self._answers[name] = {}
            if path := self._file(name, "exchanges"):
                try:
                    self._answers[name] = answered.read(path)
                except DataError as error:
                    self._say(f"The exchanges of {name} could not be read", error)
        return self._answers[name]

    def question(self, qid: str) -> str:
        """A query's text: of the tasks, else of the exchanges; its id where nothing tells it."""
        if task := self.tasks.get(qid):
            return task.query.text
        said = (self.answers(name).get(qid) for name in self._systems)
        return next((a.query for a in said if a is not None and a.query), qid)

    def _file(self, name: str, key: str) -> Path | None:
        """A file that a row names, if it is there and inside the folder."""
        given = self._systems[name][key]
        if not isinstance(given, str) or not given:
            return None
        path = (self.folder / given).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            self.notes.append(f"The {key} of {name} lie outside the result's folder: not read.")
            return None
        if not path.is_file():
            self.notes.append(f"The {key} of {name} are missing ({given}).")
            return None
        return path

    def _say(self, what: str, error: DataError) -> None:
        log.warning("%s: %s", what, error)
        self.notes.append(f"{what}: {error.what}.")
