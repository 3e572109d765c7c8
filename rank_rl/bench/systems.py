"""One row of the benchmark computed: rankings, costs, parse statuses and traces of one system.

Contract: a system's files are written as soon as it is done and reused when everything it depends
on (data, format, strategy, model content, seed) is unchanged, so that a bench that was stopped
computes nothing twice. Metrics and statistics are left to ``run``.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl import formats, strategies
from rank_rl.bench.setting import Models, check_strategy, key, setting
from rank_rl.bench.traces import trace
from rank_rl.data import Collection, trec
from rank_rl.data.files import write_lines
from rank_rl.errors import ModelError
from rank_rl.formats import tags
from rank_rl.generation.cost import foreseen, spent_line
from rank_rl.generation.readout import BY_PROBABILITY, check_readout
from rank_rl.records import Outcome, Ranking, RankingTask, numbered
from rank_rl.seeds import rng
from rank_rl.specs import RecipeSpec, SystemSpec
from rank_rl.specs.bench import ASKED

if TYPE_CHECKING:
    from rank_rl.rerank import TaskResult

log = logging.getLogger(__name__)
SHUFFLES = 20
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRun:
    """What a system did on the test queries.

    Attributes:
        key: hash of everything the numbers depend on.
        rankings: query id → order; ``random`` has several runs, the others one.
        costs: query id → calls, depth, prompt_tokens, completion_tokens, seconds.
        statuses: parse statuses, summed; empty when nothing was parsed.
        explanations: how many were written, malformed, and cut off; notes of slots, or the
            reasoning of every text answer in mode reason; empty when none.
        cuts: what the document budget cut.
        model: name, revision and contract hash of the model, if any.
        setting: format version, mode, strategy, readout and reasoning, if any.
    """

    key: str
    rankings: list[dict[str, Ranking]]
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    explanations: dict[str, int] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the files of one system are."""

    record: Path
    run: Path
    exchanges: Path

    @classmethod
    def of(cls, out_dir: Path, name: str) -> Paths:
        """The files of a system called ``name``."""
        slug = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "system"
        return cls(
            record=out_dir / "systems" / f"{slug}.json",
            run=out_dir / "runs" / f"{slug}.trec",
            exchanges=out_dir / "exchanges" / f"{slug}.jsonl",
        )


def check(
    system: SystemSpec, spec: RecipeSpec, models: Models, tasks: Sequence[RankingTask]
) -> None:
    """Find what is wrong with a system's checkpoint, readout or strategy before anything is asked.

    Raises:
        RankRLError: the checkpoint is missing, or cannot be asked or read out as the recipe says.
    """
    if system.model is None:
        return
    how = setting(system, spec)
    check_strategy(system, how, spec, tasks)
    if how.readout in BY_PROBABILITY:
        view = numbered(tasks[0].query, tasks[0].candidates)
        check_readout(formats.make(how.format), how.readout, models.tokens(system.model), view)


def compute(
    system: SystemSpec,
    spec: RecipeSpec,
    collection: Collection,
    models: Models,
    out_dir: Path,
    progress: Progress | None = None,
) -> SystemRun:
    """Rank the test queries with a system, or read back what an earlier run has written.

    Raises:
        RankRLError: the model, run file or format is wrong, or the disk is full.
    """
    paths = Paths.of(out_dir, system.name)
    wanted = key(system, spec, collection, models)
    known = _read(paths, wanted)
    if known is not None:
        return known
    tasks = collection.test
    if system.kind in ASKED:
        found, traces = _ask(system, spec, tasks, models, wanted, progress)
        write_lines(paths.exchanges, traces)
    else:
        found = SystemRun(key=wanted, rankings=_given(system, spec, tasks))
    tag = f"rank_rl.{paths.run.stem}"
    trec.write_run(paths.run, found.rankings[0].values(), tag)
    _write(paths, found)
    return found


def _ask(
    system: SystemSpec,
    spec: RecipeSpec,
    tasks: Sequence[RankingTask],
    models: Models,
    wanted: str,
    progress: Progress | None,
) -> tuple[SystemRun, list[str]]:
    from rank_rl.generation.local import LocalGenerator
    from rank_rl.rerank import Reranker

    if system.model is None:
        raise ModelError("no model", where=f"bench.systems {system.name!r}")
    how = setting(system, spec)
    fmt = formats.make(how.format)
    loaded = models.load(system.model, fmt)
    reranker = Reranker(
        loaded=loaded,
        fmt=fmt,
        strategy=strategies.make(how.strategy, seed=spec.run.seed),
        readout=how.readout,
        reasoning=how.reasoning,
        generator=LocalGenerator(
            loaded,
            max_new_tokens=how.max_new_tokens,
            batch_size=spec.bench.batch_size if spec.bench else 32,
        ),
    )
    log.info("%s: %s", system.name, foreseen(reranker, tasks).line())
    results = reranker.rank_tasks(tasks, explain=system.explain, progress=progress)
    log.info("%s: %s", system.name, spent_line(results))
    statuses: Counter[str] = Counter()
    for result in results:
        statuses.update(result.statuses)
    run = SystemRun(
        key=wanted,
        rankings=[{r.ranking.qid: r.ranking for r in results}],
        costs={r.ranking.qid: _cost(r) for r in results},
        statuses=dict(statuses),
        explanations=_explanations(system, how.reasoning, fmt.mode, results),
        cuts=asdict(reranker.cuts),
        model={"name": loaded.name, "revision": loaded.revision, "contract": how.contract},
        setting={
            "format": fmt.version,
            "mode": fmt.mode,
            "strategy": how.strategy.name,
            "readout": how.readout,
            "reasoning": how.reasoning if fmt.mode == "reason" else "",
        },
    )
    return run, [line for result in results for line in trace(result)]


def _cost(result: TaskResult) -> dict[str, float]:
    return {
        "calls": result.calls,
        "depth": result.depth,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "seconds": round(result.seconds, 4),
    }


def _explanations(
    system: SystemSpec, reasoning: str, mode: str, results: Sequence[TaskResult]
) -> dict[str, int]:
    """Notes of slots; reasoning of text answers, malformed when its tags are or it is empty."""
    notes = [note for result in results for note in result.notes.values()]
    written = [(bool(note.issues), note.completion) for note in notes]
    if system.kind == "text" and mode == "reason" and reasoning == "write":
        answers = [exchange for result in results for exchange in result.exchanges]
        written = [(_bad_reasoning(answer.outcome), answer.completion) for answer in answers]
    if not written:
        return {}
    return {
        "written": len(written),
        "malformed": sum(bad for bad, _ in written),
        "cut_off": sum(completion.finish == "length" for _, completion in written),
    }


def _bad_reasoning(outcome: Outcome) -> bool:
    return not outcome.reasoning.strip() or not tags.ISSUES.isdisjoint(outcome.issues)


def _given(
    system: SystemSpec, spec: RecipeSpec, tasks: Sequence[RankingTask]
) -> list[dict[str, Ranking]]:
    """Rankings of the systems that ask no model."""
    if system.kind == "run":
        found = trec.read_run(Path(system.path or ""))
        return [{q: Ranking(qid=q, docids=tuple(d for d, _ in rows)) for q, rows in found.items()}]
    if system.kind == "random":
        seed = spec.run.seed
        return [{t.query.qid: _shuffled(t, seed, i) for t in tasks} for i in range(SHUFFLES)]
    if system.kind == "perfect":
        return [{t.query.qid: Ranking.from_scores(t, _grades(t)) for t in tasks}]
    return [{t.query.qid: Ranking(qid=t.query.qid, docids=t.docids) for t in tasks}]


def _shuffled(task: RankingTask, seed: int, number: int) -> Ranking:
    docids = list(task.docids)
    rng(seed, "random system", number, task.query.qid).shuffle(docids)
    return Ranking(qid=task.query.qid, docids=tuple(docids))


def _grades(task: RankingTask) -> dict[str, float]:
    grades = task.grades or {}
    return {d: float(max(0, grades.get(d, 0))) for d in task.docids}


def _write(paths: Paths, found: SystemRun) -> None:
    record = {
        **{k: v for k, v in asdict(found).items() if k != "rankings"},
        "rankings": [{q: [r.docids, r.scores] for q, r in run.items()} for run in found.rankings],
    }
    write_lines(paths.record, [json.dumps(record, ensure_ascii=False)])


def _read(paths: Paths, wanted: str) -> SystemRun | None:
    """What an earlier run wrote for the same key; None when there is nothing to reuse."""
    try:
        record: Mapping[str, Any] = json.loads(paths.record.read_text(encoding="utf-8"))
        if record["key"] != wanted or not paths.run.is_file():
            return None
        rankings = [
            {q: Ranking(qid=q, docids=tuple(d), scores=tuple(s)) for q, (d, s) in run.items()}
            for run in record["rankings"]
        ]
        return SystemRun(**{**record, "rankings": rankings})
    except (OSError, ValueError, KeyError, TypeError):
        return None
