"""What a reranking leaves: the run, its exchanges, the fused run, and a summary.

Contract: everything is made of the tasks and what is kept, so that it can be written again without
asking; each file is replaced as a whole. The run is TREC, or, where its name ends in ``.jsonl``,
one query a line, which holds ids of any form. The page is ``page``'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rank_rl
from rank_rl.bench.answered import COSTS, Answered, total
from rank_rl.data import trec
from rank_rl.data.files import write_lines
from rank_rl.errors import DataError, RecipeError
from rank_rl.generation.results import RankResult
from rank_rl.records import Ranking, RankingTask
from rank_rl.reranking.kept import Kept, given_up
from rank_rl.specs import FusionSpec
from rank_rl.strategies.fusion import fuse

TAG = "rank_rl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where it is written and how.

    Attributes:
        run: the reranked run.
        top_k: its documents a query; None is all.
        scores: the reranker's own scores instead of ranks counted from the end (TREC).
        fusion: also join with the first stage.
        exchanges: every prompt and answer; None writes none.
        page: a page to read; None writes none.
    """

    run: Path
    top_k: int | None = None
    scores: bool = False
    fusion: FusionSpec | None = None
    exchanges: Path | None = None
    page: Path | None = None

    @property
    def kept(self) -> Path:
        """The folder of what was answered."""
        return self.run.with_name(f"{self.run.name}.kept")

    @property
    def summary(self) -> Path:
        """Counts, costs and settings."""
        return self.run.with_name(f"{self.run.name}.json")

    @property
    def fused(self) -> Path:
        """The run joined with the first stage."""
        return self.run.with_name(f"{self.run.stem}.fused{_suffix(self.run)}")

    @property
    def listed(self) -> bool:
        """Whether the run is one query a line instead of TREC."""
        return _suffix(self.run) == ".jsonl"

    def files(self) -> dict[str, Path]:
        """What will be written, by what it is."""
        found = {"run": self.run, "fused": self.fused if self.fusion else None}
        found |= {"exchanges": self.exchanges, "page": self.page, "summary": self.summary}
        return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one query has cost, as ``cost.spent_line`` reads it."""

    calls: int
    depth: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @classmethod
    def of(cls, answer: Answered) -> Spent:
        """The cost of a kept answer."""
        values = {name: answer.cost[name] for name in COSTS}
        whole = {name: int(value) for name, value in values.items() if name != "seconds"}
        return cls(**whole, seconds=values["seconds"])


def check(output: Output, tasks: Sequence[RankingTask], inputs: Sequence[Path]) -> None:
    """Find what would stop writing before anything is asked.

    Raises:
        RecipeError: two files would be written to one place, or an input would be overwritten.
        DataError: an id that a TREC run cannot hold.
    """
    read = {path.resolve() for path in inputs}
    places: dict[Path, str] = {}
    for name, path in output.files().items():
        place = path.resolve()
        if place in read:
            raise RecipeError(f"{path} is an input", where=name, remedy="give another --output")
        if place in places:
            raise RecipeError(f"{path} is the {places[place]} as well", where=name)
        if path.is_dir():
            raise RecipeError(f"{path} is a folder", where=name, expected="a file")
        places[place] = name
    if output.listed:
        if output.scores:
            raise RecipeError("a .jsonl holds scores in any case", where="--scores")
        return
    ids = (i for task in tasks for i in (task.query.qid, *task.docids))
    odd = next((i for i in ids if i.split() != [i]), None)
    if odd is not None:
        raise DataError(
            f"id {odd!r} has white space, which a TREC run cannot hold",
            where=str(output.run),
            remedy="write one query a line: --output FILE.jsonl",
        )


def write(output: Output, tasks: Sequence[RankingTask], kept: Kept) -> str:
    """Write run, fused run and exchanges; what is to be said about the run, if anything.

    Raises:
        DataError: scores are wanted and no ranking has any; the run is then written without.
        StorageError: a file cannot be written.
    """
    answers = [kept.found[task.query.qid].answer for task in tasks]
    rankings = [answer.ranking for answer in answers]
    if output.exchanges is not None:
        write_lines(output.exchanges, (t for task in tasks for t in kept.traces(task.query.qid)))
    if output.fusion is not None:
        joined = fused(tasks, rankings, output.fusion)
        _write_run(output.fused, output, tasks, joined)
    if output.listed or not output.scores:
        _write_run(output.run, output, tasks, rankings)
        return ""
    shown = [first(ranking, output.top_k) for ranking in rankings]
    return write_rankings(output.run, shown, scores=True)


def write_rankings(output: Path, rankings: Sequence[Ranking], *, scores: bool) -> str:
    """Write a TREC run; what is to be said about it, if anything.

    With ``scores`` it holds the reranker's own, and queries whose ranking has none are left out.

    Raises:
        DataError: no ranking has scores; the run is then written without them.
        StorageError: the file cannot be written.
    """
    scored = [r for r in rankings if r.scores]
    if not scores or not scored:
        trec.write_run(output, rankings, tag=TAG)
        if not scores:
            return ""
        raise DataError(
            "no ranking has scores; ranks counted from the end are written",
            where=str(output),
            remedy="use a strategy and a readout that score, e.g. by_score",
        )
    trec.write_run(output, scored, tag=TAG, scores=True)
    left_out = len(rankings) - len(scored)
    return f", {left_out} left out that have no scores" if left_out else ""


def fused(
    tasks: Sequence[RankingTask], rankings: Sequence[Ranking], fusion: FusionSpec
) -> list[Ranking]:
    """The rankings joined with the first stage's."""
    pairs = zip(tasks, rankings, strict=True)
    return [fuse(task, ranking, fusion.method, fusion.weight) for task, ranking in pairs]


def first(ranking: Ranking, top_k: int | None) -> Ranking:
    """The first documents of a ranking; all of them when ``top_k`` is None."""
    return replace(ranking, docids=ranking.docids[:top_k], scores=ranking.scores[:top_k])


def summary(
    output: Output, tasks: Sequence[RankingTask], kept: Kept, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What was done, JSON-safe.

    Args:
        output: what was written.
        tasks: what was ranked.
        kept: what was answered.
        facts: what the caller knows besides (files read, processes, seconds of the whole).
    """
    answers = [kept.found[task.query.qid].answer for task in tasks]
    spent = [Spent.of(answer) for answer in answers]
    return {
        "rank_rl": rank_rl.__version__,
        "queries": len(tasks),
        "documents": sum(len(task.candidates) for task in tasks),
        "calls": sum(s.calls for s in spent),
        "depth": max((s.depth for s in spent), default=0),
        "prompt_tokens": sum(s.prompt_tokens for s in spent),
        "completion_tokens": sum(s.completion_tokens for s in spent),
        "seconds": round(sum(s.seconds for s in spent), 3),
        "statuses": total(answer.statuses for answer in answers),
        "issues": total(answer.issues for answer in answers),
        "explanations": total(answer.explanations for answer in answers),
        "unanswered": [answer.qid for answer in answers if given_up(answer)],
        "settings": dict(kept.settings),
        "files": {name: path.name for name, path in output.files().items()},
        **facts,
    }


def write_summary(output: Output, found: Mapping[str, Any]) -> None:
    """Write the summary beside the run.

    Raises:
        StorageError: it cannot be written.
    """
    write_lines(output.summary, [json.dumps(found, indent=2, ensure_ascii=False)])


def rows(task: RankingTask, ranking: Ranking) -> list[RankResult]:
    """A ranking document by document, without reasoning."""
    texts = {c.docid: c.text for c in task.candidates}
    scores = ranking.scores or ranking.run_scores()
    pairs = zip(ranking.docids, scores, strict=True)
    return [
        RankResult(docid=docid, rank=i, score=score, text=texts[docid])
        for i, (docid, score) in enumerate(pairs, 1)
    ]


def _write_run(
    path: Path, output: Output, tasks: Sequence[RankingTask], rankings: Sequence[Ranking]
) -> None:
    if output.listed:
        write_lines(path, _records(tasks, rankings, output.top_k))
    else:
        trec.write_run(path, [first(ranking, output.top_k) for ranking in rankings], tag=TAG)


def _records(
    tasks: Sequence[RankingTask], rankings: Sequence[Ranking], top_k: int | None
) -> Iterator[str]:
    for task, ranking in zip(tasks, rankings, strict=True):
        before = {c.docid: c.rank for c in task.candidates}
        found = [
            {"docid": r.docid, "rank": r.rank, "score": r.score, "before": before[r.docid]}
            for r in rows(task, ranking)[:top_k]
        ]
        query = {"qid": task.query.qid, "query": task.query.text}
        yield json.dumps({**query, "ranking": found}, ensure_ascii=False)


def _suffix(path: Path) -> str:
    """``.jsonl`` for one query a line, else what a run is called."""
    return ".jsonl" if path.suffix == ".jsonl" else ".trec"
