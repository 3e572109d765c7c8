"""Clean and attacked lists ranked by the same model, and what the attack has gained.

Contract: places are counted from 1; an attack that lifts its document by n places has risen n,
one that lowers it a negative number. The rest of a list is judged without the attacked document.
Findings are handed over as they are made, so that an interrupt loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rank_rl import metrics
from rank_rl.attacks.cases import Plan, cases, targets
from rank_rl.attacks.defences import Defence
from rank_rl.bench.stats import bootstrap
from rank_rl.records import RankingTask

if TYPE_CHECKING:
    from rank_rl.generation.results import TaskResult
    from rank_rl.ranker import Ranker

TOP = 10
RankerOf = Callable[[Defence], "Ranker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one attack on one document came to.

    Attributes:
        defence, kind, qid, docid: what was attacked, how, and what stood against it.
        documents: how many the list has.
        before, after: place of the document without and with the attack.
        rest_before, rest_after: nDCG@10 of the list without the document; None without grades.
        shown: whether the model was shown another text of the document than without the attack; a
            budget may cut the whole attack away.
        failed: answers that could not be read with the attack, of ``answers``.
        failed_before: those that could not be read without.
    """

    defence: str
    kind: str
    qid: str
    docid: str
    documents: int
    before: int
    after: int
    shown: bool
    rest_before: float | None
    rest_after: float | None
    failed: int
    failed_before: int
    answers: int

    @property
    def risen(self) -> int:
        """Places that the document has risen."""
        return self.before - self.after

    def record(self) -> dict[str, Any]:
        """A JSON-safe record."""
        return {**asdict(self), "risen": self.risen}


def measure(
    tasks: Sequence[RankingTask],
    plan: Plan,
    defences: Sequence[Defence],
    ranker_of: RankerOf,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Finding]:
    """Rank every list clean and with each kind of attack, behind each defence.

    Args:
        tasks: lists to attack.
        plan: what is attacked and how.
        defences: what is tried; each is compared with its own clean ranking.
        ranker_of: what ranks behind a defence.
        progress: called with a line before each set of lists is ranked.

    Yields:
        One finding a defence, kind and query.

    Raises:
        DataError: no query has a document to attack.
        RecipeError: the ranker cannot be asked as a defence wants.
    """
    tell = progress or (lambda line: None)
    chosen = targets(tasks, plan)
    attacked = [task for task in tasks if task.query.qid in chosen]
    for defence in defences:
        tell(f"{defence.name}: clean")
        ranker = ranker_of(defence)
        clean = ranker.rank_tasks([defence.apply(task) for task in attacked])
        for kind in plan.kinds:
            tell(f"{defence.name}: {kind}")
            made = cases(attacked, chosen, kind, plan)
            results = ranker.rank_tasks([defence.apply(case.task) for case in made])
            for task, case, before, after in zip(attacked, made, clean, results, strict=True):
                yield _finding(defence.name, kind, task, case.docid, (before, after))


def _finding(
    defence: str,
    kind: str,
    task: RankingTask,
    docid: str,
    results: tuple[TaskResult, TaskResult],
) -> Finding:
    before, after = results
    places = [list(r.ranking.docids).index(docid) + 1 for r in results]
    rest = [_rest(task, r.ranking.docids, docid) for r in results]
    return Finding(
        defence=defence,
        kind=kind,
        qid=task.query.qid,
        docid=docid,
        documents=len(task.candidates),
        before=places[0],
        after=places[1],
        shown=_read(before, docid) != _read(after, docid),
        rest_before=rest[0],
        rest_after=rest[1],
        failed=after.statuses.get("failed", 0),
        failed_before=before.statuses.get("failed", 0),
        answers=sum(after.statuses.values()),
    )


def _read(result: TaskResult, docid: str) -> set[tuple[str, str]]:
    """What the model was shown of a document: title and text after cutting."""
    shown = (c for e in result.exchanges for c in e.view.candidates if c.docid == docid)
    return {(c.title, c.text) for c in shown}


def _rest(task: RankingTask, docids: Sequence[str], docid: str) -> float | None:
    """nDCG@10 of a list without one document; None where nothing else is relevant."""
    grades = {d: g for d, g in (task.grades or {}).items() if d != docid}
    if not any(g > 0 for g in grades.values()):
        return None
    return metrics.ndcg([d for d in docids if d != docid], grades, TOP)


def table(
    findings: Sequence[Finding], *, trained: Sequence[str] = (), seed: int = 0
) -> list[dict[str, Any]]:
    """One row a defence and kind, in the order of the findings, and one for all kinds.

    Args:
        findings: what was measured.
        trained: kinds that the model was trained against.
        seed: of the intervals (95 %, by queries).

    Returns:
        ``shown``: share of the attacks of which the model was shown anything, where it is 0 nothing
        was measured; ``risen`` with ``low`` and ``high``; ``first`` and ``top 10``: share of the
        documents that stand there with the attack, ``first clean`` and ``top 10 clean`` without;
        ``rest``: change of nDCG@10 of the other documents; ``unread``: share of the answers that
        cannot be read.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.defence, finding.kind), []).append(finding)
    rows = []
    for defence in dict.fromkeys(name for name, _ in groups):
        own = {kind: found for (name, kind), found in groups.items() if name == defence}
        for kind, found in own.items():
            known = "yes" if kind in trained else "no"
            rows.append(_row(defence, kind, found, seed) | ({"trained": known} if trained else {}))
        if len(own) > 1:
            rows.append(_row(defence, "all", [f for part in own.values() for f in part], seed))
    return rows


def _row(defence: str, kind: str, found: Sequence[Finding], seed: int) -> dict[str, Any]:
    by_query: dict[str, list[int]] = {}
    for finding in found:
        by_query.setdefault(finding.qid, []).append(finding.risen)
    risen = bootstrap([fmean(values) for values in by_query.values()], samples=2000, seed=seed)
    pairs = [(f.rest_before, f.rest_after) for f in found]
    changes = [b - a for a, b in pairs if a is not None and b is not None]
    clean = [a for a, _ in pairs if a is not None]
    return {
        "defence": defence,
        "attack": kind,
        "queries": len(by_query),
        "shown": fmean(f.shown for f in found),
        "risen": risen.mean,
        "low": risen.low,
        "high": risen.high,
        "first": fmean(f.after == 1 for f in found),
        "first clean": fmean(f.before == 1 for f in found),
        f"top {TOP}": fmean(f.after <= TOP for f in found),
        f"top {TOP} clean": fmean(f.before <= TOP for f in found),
        "rest": fmean(changes) if changes else None,
        "rest clean": fmean(clean) if clean else None,
        "unread": sum(f.failed for f in found) / max(1, sum(f.answers for f in found)),
    }
