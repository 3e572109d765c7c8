"""What a ranking came to: results by document and by task, with their costs and explanations.

Made of what a strategy asked (``strategies.drive``) and what was answered (``asking``); asking is
left to ``rank_rl.rerank``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rank_rl.generation import Generator
from rank_rl.generation.asking import Asked, SlotAsker
from rank_rl.records import Completion, Exchange, Ranking, RankingTask
from rank_rl.strategies import drive

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankResult:
    """One document of a ranking; ``rank`` counts from 1, ``reasoning`` may be empty."""

    docid: str
    rank: int
    score: float
    text: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An explanation of one document: the completion behind it and what was wrong with it."""

    docid: str
    text: str
    completion: Completion
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """A ranked task and what it cost.

    Attributes:
        ranking: the total order.
        exchanges: every question asked, with its answer.
        calls, depth: views asked, and rounds that had to wait for one another.
        prompt_tokens, completion_tokens, seconds: cost, explanations included.
        statuses: parse statuses over answers (text) or slots.
        notes: explanations written on request, by docid.
    """

    ranking: Ranking
    exchanges: tuple[Exchange, ...]
    calls: int
    depth: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    statuses: Mapping[str, int]
    notes: Mapping[str, Note] = field(default_factory=dict)

    def reasoning(self, docid: str) -> str:
        """What the model wrote about a document: its note, else the reasoning of its list."""
        if docid in self.notes:
            return self.notes[docid].text
        shown = [e for e in self.exchanges if docid in e.view.docids]
        own = [e.outcome.notes[docid] for e in shown if e.outcome.notes.get(docid)]
        return own[-1] if own else about(shown[-1], docid) if shown else ""


def listed(task: RankingTask, result: TaskResult, top_k: int | None = None) -> list[RankResult]:
    """The first documents of a ranking one by one; all of them when ``top_k`` is None."""
    texts = {c.docid: c.text for c in task.candidates}
    scores = result.ranking.scores or result.ranking.run_scores()
    return [
        RankResult(
            docid=docid,
            rank=i + 1,
            score=scores[i],
            text=texts[docid],
            reasoning=result.reasoning(docid),
        )
        for i, docid in enumerate(result.ranking.docids[:top_k])
    ]


def about(exchange: Exchange, docid: str) -> str:
    """The lines of a list's reasoning that name a document's label, else all of it."""
    label = f"[{exchange.view.label(docid)}]"
    lines = [s for s in exchange.outcome.reasoning.splitlines() if label in s]
    return "\n".join(lines) or exchange.outcome.reasoning


def task_result(result: drive.Result, asked: Sequence[Asked]) -> TaskResult:
    """One result of the driver with the answers behind it, in the order of its outcomes."""
    statuses = Counter({"ok": 0, "repaired": 0, "failed": 0})
    for a in asked:
        statuses.update(a.statuses)
    completions = [a.exchange.completion for a in asked]
    return TaskResult(
        ranking=result.ranking,
        exchanges=tuple(a.exchange for a in asked),
        calls=result.calls,
        depth=result.depth,
        prompt_tokens=sum(c.prompt_tokens for c in completions),
        completion_tokens=sum(c.completion_tokens for c in completions),
        seconds=sum(c.seconds for c in completions),
        statuses=dict(statuses),
    )


def _with_notes(result: TaskResult, notes: dict[str, Note]) -> TaskResult:
    written = [n.completion for n in notes.values()]
    return replace(
        result,
        notes=notes,
        prompt_tokens=result.prompt_tokens + sum(c.prompt_tokens for c in written),
        completion_tokens=result.completion_tokens + sum(c.completion_tokens for c in written),
        seconds=result.seconds + sum(c.seconds for c in written),
    )


def explained(
    asker: SlotAsker,
    generator: Generator,
    results: list[TaskResult],
    asked: list[list[Asked]],
    k: int,
    progress: Progress | None,
) -> list[TaskResult]:
    """Write notes for the top ``k`` documents of every result, in one batched generation."""
    jobs = [
        (i, docid, a)
        for i, result in enumerate(results)
        for docid in result.ranking.docids[:k]
        for a in [a for a in asked[i] if docid in a.exchange.view.docids][-1:]
    ]
    prompts = [asker.explain_prompt(a, docid) for _, docid, a in jobs]
    done = sum(result.calls for result in results)
    total = done + len(prompts)

    def report(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, total)

    completions = generator.generate(prompts, progress=report)
    notes: list[dict[str, Note]] = [{} for _ in results]
    for (i, docid, _), prompt, completion in zip(jobs, prompts, completions, strict=True):
        label = prompt.prefill.removeprefix(asker.fmt.lead)
        _, text, issues = asker.fmt.parse_slot(label + completion.text)
        notes[i][docid] = Note(docid=docid, text=text, completion=completion, issues=issues)
    return [_with_notes(result, own) for result, own in zip(results, notes, strict=True)]
