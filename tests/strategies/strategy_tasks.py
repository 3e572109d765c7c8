"""What the tests of strategies share: tasks of numbered documents, and an answerer that knows."""

from __future__ import annotations

from rank_rl.records import Candidate, Query, RankingTask
from rank_rl.strategies.drive import Result, run
from rank_rl.strategies.oracle import oracle


def task_of(*grades: int, qid: str = "q") -> RankingTask:
    """d1 … dn in first-stage order with these grades."""
    docs = tuple(Candidate(docid=f"d{i}", text="", rank=i) for i in range(1, len(grades) + 1))
    by_docid = {c.docid: grade for c, grade in zip(docs, grades, strict=True)}
    return RankingTask(query=Query(qid=qid, text="?"), candidates=docs, grades=by_docid)


def docs(*numbers: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in numbers)


def ask(task: RankingTask, strategy, kind="order") -> Result:
    """Rank with an answerer that knows the grades."""
    return run([task], strategy, lambda vs: [oracle(v, task.grades, kind) for v in vs])[0]


def shown(result: Result) -> list[tuple[str, ...]]:
    return [view.docids for view, _ in result.outcomes]
