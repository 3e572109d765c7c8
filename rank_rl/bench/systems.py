"""One row of the benchmark computed: rankings, costs, parse statuses and traces of one system.

Contract: a system's files are written as soon as it is done and reused when everything it depends
on (data, format, strategy, model content, seed) is unchanged, so that a bench that was stopped
computes nothing twice; within a system ``answered`` keeps the queries that are done. Metrics and
statistics are left to ``run``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rank_rl import formats
from rank_rl.bench import asked, diagnosis, probes
from rank_rl.bench.answered import Answered, Part, answered, in_parts, total
from rank_rl.bench.layout import DOCUMENTS, file_name
from rank_rl.bench.others import check_other
from rank_rl.bench.setting import OTHERS, Models, check_strategy, key, setting
from rank_rl.data import trec
from rank_rl.data.files import write_lines
from rank_rl.formats.budget import CutReport
from rank_rl.generation.cost import foreseen, spent_line
from rank_rl.generation.readout import BY_PROBABILITY, check_readout
from rank_rl.records import Ranking, RankingTask, numbered
from rank_rl.seeds import rng
from rank_rl.specs import RecipeSpec, SystemSpec
from rank_rl.specs.bench import ASKED

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
        issues: named issues of the parsed answers, summed.
        explanations: how many were written, malformed, and cut off; notes of slots, or the
            reasoning of every text answer in mode reason; empty when none.
        cuts: what the document budget cut.
        model: name, revision and contract hash of the model, if any.
        setting: format version, mode, strategy, readout and reasoning, if any.
        worths: what the labels or scores of its answers are worth, worst first.
        energy: kWh that asking all queries took; None when it was not measured for all.
        probes: what was found by asking some queries again, see ``probes``.
    """

    key: str
    rankings: list[dict[str, Ranking]]
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    issues: dict[str, int] = field(default_factory=dict)
    explanations: dict[str, int] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)
    worths: tuple[float, ...] = ()
    energy: float | None = None
    probes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the files of one system are."""

    record: Path
    run: Path
    exchanges: Path
    document: Path
    seed: int | None = None

    @classmethod
    def of(cls, out_dir: Path, name: str, seed: int | None = None) -> Paths:
        """The files of a system called ``name``; ``seed`` where it is measured with several."""
        slug = file_name(name, "system")
        slug = slug if seed is None else f"{slug}.seed{seed}"
        return cls(
            record=out_dir / "systems" / f"{slug}.json",
            run=out_dir / "runs" / f"{slug}.trec",
            exchanges=out_dir / "exchanges" / f"{slug}.jsonl",
            document=out_dir / DOCUMENTS / f"{slug}.json",
            seed=seed,
        )

    def beside(self, name: str) -> Paths:
        """The files of another row of the same folder and seed."""
        return Paths.of(self.record.parent.parent, name, self.seed)

    @property
    def part(self) -> Path:
        """The queries that are done while others are asked."""
        return self.record.with_suffix(".part.jsonl")

    @property
    def answers(self) -> Path:
        """What a server has answered, so that it is not asked twice."""
        return self.record.parent.parent / "answers" / f"{self.record.stem}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A system with the recipe that it is measured under, one collection's queries, and its files.

    ``spec.run.seed`` is the seed that it is measured with, ``metric`` what probes compare in.
    """

    system: SystemSpec
    spec: RecipeSpec
    tasks: Sequence[RankingTask]
    paths: Paths
    metric: str = "ndcg@10"


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
    if system.kind in OTHERS:
        check_other(system, spec, models)
    check_strategy(system, how, spec, tasks)
    if how.readout in BY_PROBABILITY:
        view = numbered(tasks[0].query, tasks[0].candidates)
        check_readout(formats.make(how.format), how.readout, models.tokens(system.model), view)


def compute(job: Job, models: Models, progress: Progress | None = None) -> SystemRun:
    """Rank the queries with a system, or read back what an earlier run has written.

    Raises:
        RankRLError: the model, run file or format is wrong, or the disk is full.
    """
    paths, wanted = job.paths, key(job.system, job.spec, job.tasks, models)
    found = _read(paths, wanted)
    if job.system.kind not in ASKED:
        if found is None:
            found = SystemRun(key=wanted, rankings=_given(job.system, job.spec, job.tasks))
            _write(paths, found)
        return found
    missing = probes.missing(job.spec, found.probes if found else {}, job.metric)
    if found is not None and not missing:
        return found
    reranker = asked.reranker_for(job.system, job.spec, models, paths.answers)
    if found is None:
        part = Part(paths.part, wanted)
        _ask(job, reranker, part, progress)
        found = _run_of(job, reranker, part)
        lines = [line for task in job.tasks for line in part.answers[task.query.qid].traces]
        write_lines(paths.exchanges, lines)
        _write(paths, found)
        part.remove()
    if missing:
        seed = job.spec.run.seed
        again = probes.ask(missing, reranker, job.tasks, found.rankings[0], seed=seed)
        found = replace(found, probes={**found.probes, **again})
        _write(paths, found)
    return found


def _ask(job: Job, reranker: Any, part: Part, progress: Progress | None) -> None:
    """Ask about the queries that are not in ``part`` yet, and keep each batch there."""
    system, spec = job.system, job.spec
    left = [task for task in job.tasks if _open(part.answers.get(task.query.qid))]
    done = len(job.tasks) - len(left)
    if done and left:
        log.info("%s: %d of %d queries were answered before", system.name, done, len(job.tasks))
    if left:
        log.info("%s: %s", system.name, foreseen(reranker, left).line())
    how = setting(system, spec)
    writes = system.kind in ("text", "endpoint") and how.reasoning == "write"
    reasons = writes and reranker.fmt.mode == "reason"
    size = max(1, spec.bench.batch_size if spec.bench else 32)
    spent = []
    for batch, report in in_parts(left, size, progress):
        before = reranker.cuts
        with probes.metered(system, spec) as meter:
            results = reranker.rank_tasks(batch, explain=system.explain, progress=report)
        kept = [answered(result, reasons=reasons) for result in results]
        part.add(kept, _since(before, reranker.cuts), meter.kwh)
        spent += results
    if spent:
        log.info("%s: %s", system.name, spent_line(spent))


def _open(found: Answered | None) -> bool:
    """Whether a query is to be asked about: it never was, or a request for it was given up."""
    return found is None or "no_answer" in found.issues


def _since(before: CutReport, after: CutReport) -> CutReport:
    return CutReport(**{k: v - getattr(before, k) for k, v in asdict(after).items()})


def _run_of(job: Job, reranker: Any, part: Part) -> SystemRun:
    """The whole of a system's answers."""
    answers: list[Answered] = [part.answers[task.query.qid] for task in job.tasks]
    measured = [kwh for kwh in part.energy if kwh is not None]
    return SystemRun(
        key=part.key,
        rankings=[{a.qid: a.ranking for a in answers}],
        costs={a.qid: a.cost for a in answers},
        statuses=total(a.statuses for a in answers),
        issues=total(a.issues for a in answers),
        explanations=total(a.explanations for a in answers),
        cuts=asdict(part.cuts),
        worths=diagnosis.worths(reranker.fmt),
        energy=sum(measured) if measured and len(measured) == len(part.energy) else None,
        **asked.facts(job.system, job.spec, reranker),
    )


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
    """The run file and the record, which makes the system count as done."""
    tag = f"rank_rl.{paths.run.stem}"
    trec.write_run(paths.run, found.rankings[0].values(), tag)
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
