"""What a system answered, query by query, kept on disk while it is still being asked.

Contract: a system that was stopped asks only about the queries that are not in its file; the file
counts only for the same ``key``, and a line that was cut off by a kill is not read. When the
system is done its file goes, and ``systems`` keeps the record of the whole.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.bench.traces import trace
from rank_rl.data.files import write_lines
from rank_rl.errors import StorageError
from rank_rl.formats import tags
from rank_rl.formats.budget import CutReport
from rank_rl.records import Outcome, Ranking, RankingTask

if TYPE_CHECKING:
    from rank_rl.rerank import TaskResult

Progress = Callable[[int, int], None]
COSTS = ("calls", "depth", "prompt_tokens", "completion_tokens", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One query: its order, what it cost, what could be read, and the lines of its trace.

    ``explanations`` counts notes of slots, or the reasoning of text answers that should have some:
    written, malformed and cut off.
    """

    qid: str
    docids: tuple[str, ...]
    scores: tuple[float, ...]
    cost: dict[str, float]
    statuses: dict[str, int]
    issues: dict[str, int] = field(default_factory=dict)
    explanations: dict[str, int] = field(default_factory=dict)
    traces: tuple[str, ...] = ()

    @property
    def ranking(self) -> Ranking:
        """The order with its scores."""
        return Ranking(qid=self.qid, docids=self.docids, scores=self.scores)


def answered(result: TaskResult, *, reasons: bool) -> Answered:
    """What one result of a reranker says; ``reasons``: its text answers should hold reasoning."""
    issues = Counter(i for e in result.exchanges for i in e.outcome.issues)
    cost = {name: float(getattr(result, name)) for name in COSTS}
    return Answered(
        qid=result.ranking.qid,
        docids=result.ranking.docids,
        scores=result.ranking.scores,
        cost={**cost, "seconds": round(result.seconds, 4)},
        statuses=dict(result.statuses),
        issues=dict(sorted(issues.items())),
        explanations=_explanations(result, reasons),
        traces=tuple(trace(result)),
    )


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counters added up."""
    found: Counter[str] = Counter()
    for count in counts:
        found.update(count)
    return dict(found)


def _explanations(result: TaskResult, reasons: bool) -> dict[str, int]:
    """Notes of slots; reasoning of text answers, malformed when its tags are or it is empty."""
    written = [(bool(note.issues), note.completion) for note in result.notes.values()]
    if reasons:
        written = [(_bad_reasoning(e.outcome), e.completion) for e in result.exchanges]
    if not written:
        return {}
    return {
        "written": len(written),
        "malformed": sum(bad for bad, _ in written),
        "cut_off": sum(completion.finish == "length" for _, completion in written),
    }


def _bad_reasoning(outcome: Outcome) -> bool:
    return not outcome.reasoning.strip() or not tags.ISSUES.isdisjoint(outcome.issues)


class Part:
    """The file of a system that is being asked: a line for its key, then one for each batch.

    Args:
        path: where it is.
        key: what the answers depend on; a file with another key counts as empty.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.answers: dict[str, Answered] = {}
        self.cuts = CutReport()
        self.energy: list[float | None] = []
        for record in self._lines():
            self._take(record)

    def add(self, answers: Sequence[Answered], cuts: CutReport, energy: float | None) -> None:
        """Keep a batch: on disk first, so that a kill loses at most the next one.

        Raises:
            StorageError: it cannot be written.
        """
        record = {
            "answers": [asdict(a) for a in answers],
            "cuts": asdict(cuts),
            "energy": energy,
        }
        lines = [json.dumps(record)]
        if not self.answers:
            lines.insert(0, json.dumps({"key": self.key}))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a" if self.answers else "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"cannot be written: {error.strerror}", where=str(self.path)
            ) from error
        self._take(record)

    def remove(self) -> None:
        """Delete the file: the system is done."""
        self.path.unlink(missing_ok=True)

    def _take(self, record: dict[str, Any]) -> None:
        for found in record["answers"]:
            self.answers[found["qid"]] = Answered(
                **{
                    **found,
                    **{name: tuple(found[name]) for name in ("docids", "scores", "traces")},
                }
            )
        self.cuts = self.cuts.merge(CutReport(**record["cuts"]))
        self.energy.append(record["energy"])

    def _lines(self) -> list[dict[str, Any]]:
        """The batches of this key; a line that a kill cut off is taken off the file."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        if not found or found[0] != {"key": self.key}:
            return []
        if len(found) < len(lines):
            write_lines(self.path, lines[: len(found)])
        return found[1:]


def in_parts(
    tasks: Sequence[RankingTask], size: int, report: Progress | None
) -> Iterator[tuple[Sequence[RankingTask], Progress]]:
    """Batches of ``size`` tasks with a progress report that counts over all of them.

    The number of views expected of later batches is what the batches before have taken.
    """
    seen = 0
    for start in range(0, len(tasks), size):
        batch = tasks[start : start + size]
        left = len(tasks) - start - len(batch)
        base = seen
        latest = 0

        def forward(
            views: int, expected: int, base: int = base, left: int = left, n: int = len(batch)
        ) -> None:
            nonlocal latest
            latest = views
            if report is not None:
                report(base + views, base + expected + round(left * expected / n))

        yield batch, forward
        seen += latest
