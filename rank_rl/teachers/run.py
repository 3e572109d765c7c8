"""Stage ``teach``: ask teachers about ranking tasks, filter the answers, write lessons and tasks.

Everything that was answered lies in ``store/``; what is written besides follows from it alone, so
a run that is killed and started again ends with the same bytes and asks nothing twice. Where a
limit stops the run, what is complete so far is written, and an error says how to go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl import data, registry
from rank_rl.data.sources import read_corpus
from rank_rl.errors import BackendError, DataError, RankRLError
from rank_rl.formats.budget import CutReport
from rank_rl.generation.calls import Backend
from rank_rl.models.counting import token_counter
from rank_rl.records import RankingTask
from rank_rl.specs import RecipeSpec, TeacherSpec, TeachSpec
from rank_rl.teachers import asking, gather, output, planning, push, synthesis
from rank_rl.teachers.asking import Asking, Requests
from rank_rl.teachers.checks import check
from rank_rl.teachers.imports import IMPORTS, Imported
from rank_rl.teachers.ledger import Budget, LimitReached, ledger
from rank_rl.teachers.query_format import queries_of, query_questions, query_units
from rank_rl.teachers.shards import Shard
from rank_rl.teachers.store import Store
from rank_rl.teachers.units import Answered, Question, Unit, units_of

logger = logging.getLogger(__name__)

# Teachers that cost nothing to build and must see the tasks, for an estimate too.
_FREE = ("oracle", "replay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line may say beside the recipe; limits replace the recipe's."""

    dry_run: bool = False
    max_cost: float | None = None
    max_requests: int | None = None
    retry_failed: bool = False


@dataclass(slots=True, kw_only=True)
class Session:
    """One run: recipe, data and store. ``asked`` are the units that questions are about."""

    spec: RecipeSpec
    teach: TeachSpec
    info: Mapping[str, Any]
    options: Options
    collection: data.Collection
    requests: Requests
    questions: list[Question]
    shard: Shard
    units: list[Unit] = field(default_factory=list)
    written: dict[str, Any] | None = None
    query_questions: list[Question] = field(default_factory=list)
    query_units: list[Unit] = field(default_factory=list)
    stopped: RankRLError | None = None

    @property
    def out_dir(self) -> Path:
        """Where everything is written."""
        return Path(self.spec.run.output_dir)

    @property
    def held_out(self) -> tuple[RankingTask, ...]:
        """The parts of the collection that must not be learned from."""
        parts = {
            "train": self.collection.train,
            "validation": self.collection.validation,
            "test": self.collection.test,
        }
        return tuple(t for name, tasks in parts.items() if name != self.teach.split for t in tasks)


def run(
    spec: RecipeSpec, info: Mapping[str, Any], options: Options | None = None
) -> dict[str, Any]:
    """Run the stage and return its summary; with ``dry_run``, only the estimate.

    Args:
        spec: a checked recipe with a ``teach`` section.
        info: what the recipe loader knows (hash, path, versions).
        options: limits and switches of the command line.

    Raises:
        RecipeError, DataError, StorageError: whatever of recipe, data or disk is wrong.
        LimitReached: a limit stopped the run; what was answered is stored and written.
        BackendError: no further request can succeed.
    """
    session = _begin(spec, info, options or Options())
    try:
        if session.options.dry_run:
            return _estimate(session)
        if session.options.retry_failed:
            count = session.requests.store.forget_failures()
            logger.info("%s failed requests are sent again", count)
            # Each process forgets for all: none may fail anew before the last has done so.
            session.shard.wait()
        session.units = _units(session)
        _ask(session, session.units, session.questions)
        session.shard.wait()
        if not session.shard.main:
            return {}
        summary = _finish(session)
        if session.stopped is not None:
            raise session.stopped
        if teach_hub := session.teach.hub:
            push.push(session.out_dir, teach_hub)
        return summary
    finally:
        session.requests.store.close()


def _begin(spec: RecipeSpec, info: Mapping[str, Any], options: Options) -> Session:
    teach = check(spec)
    shard = Shard.current()
    questions = [Question.of(q, spec.run.seed) for q in teach.questions]
    needed = {q.teacher for q in teach.questions}
    needed |= {teach.synthesis.teacher} if teach.synthesis else set()
    teachers = {n: _teacher(teach.teachers[n], options.dry_run) for n in sorted(needed)}
    collection = data.load(spec.data, seed=spec.run.seed)
    tokens, counted = token_counter(spec.model.name)
    logger.info("documents are %s", counted)
    folder = Path(spec.run.output_dir) / "store"
    # An estimate leaves nothing behind.
    store = Store(None if options.dry_run and not folder.is_dir() else folder, shard.rank)
    return Session(
        spec=spec,
        teach=teach,
        info=info,
        options=options,
        collection=collection,
        requests=Requests(store=store, specs=teach.teachers, teachers=teachers, tokens=tokens),
        questions=questions,
        shard=shard,
    )


class _Counted:
    """Stands for a teacher whose calls are only counted."""

    concurrency, retries = 1, 0

    def __init__(self, samples_per_request: int) -> None:
        self.samples_per_request = samples_per_request


def _teacher(spec: TeacherSpec, dry_run: bool) -> Backend:
    if not dry_run or spec.name in _FREE:
        return asking.make_teacher(spec)
    registry.resolve("teacher", spec.name, asking.TEACHERS)
    alone = spec.name == "endpoint"
    return _Counted(int(spec.params.get("samples_per_request", 1 if alone else 64)))  # type: ignore[return-value]


def _units(session: Session) -> list[Unit]:
    """Units of the collection's split, or of synthesised queries, which are asked for first."""
    spec, teach = session.spec, session.teach
    if not teach.questions:
        return []
    if teach.synthesis is None:
        tasks: Sequence[RankingTask] = getattr(session.collection, teach.split)
        if not tasks:
            raise DataError(f"no queries in {teach.split}", where="teach.split")
    else:
        tasks = _synthesise(session)
    return units_of(tasks, teach.units, spec.data.sampler, seed=spec.run.seed)


def _synthesise(session: Session, planned: planning.Plan | None = None) -> Sequence[RankingTask]:
    """Queries for passages of the corpus, as tasks; their requests are only counted in a plan."""
    wanted = session.teach.synthesis
    assert wanted is not None  # checked by the caller; for the type checker
    documents = read_corpus(Path(wanted.corpus))
    questions = query_questions(wanted, session.spec.run.seed)
    units = query_units(synthesis.draw(documents, wanted.passages, session.spec.run.seed))
    if planned is None:
        session.query_questions, session.query_units = questions, units
        _ask(session, units, questions)
        session.shard.wait()
        session.requests.store.refresh()
    else:
        planned.merge(planning.plan(units, questions, session.requests))
    answered = _replayed(units, questions, session.requests)
    if planned is None:
        _compare(session, answered, units)
    written = queries_of(answered, documents)
    held_out = [t.query for t in session.held_out]
    tasks, report = synthesis.build_tasks(written, documents, wanted, held_out=held_out)
    session.written = report.as_dict()
    if not tasks and planned is None and session.stopped is None:
        session.stopped = DataError(
            "no query was left", where="teach.synthesis", remedy="report.json says why"
        )
    return tasks


def _compare(session: Session, answered: Sequence[Answered], units: Sequence[Unit]) -> None:
    """What is missing although nothing stopped this process was left out by another one."""
    if len(answered) < len(units) and session.stopped is None:
        session.stopped = LimitReached(
            f"another process stopped: {len(answered)} of {len(units)} units are complete",
            remedy="its message says why; start again to go on",
        )


def _ask(session: Session, units: Sequence[Unit], questions: Sequence[Question]) -> None:
    """Ask this process's share; what stops it is remembered, not raised."""
    own = session.shard.of(units)
    if not own or not questions or session.stopped is not None:
        return
    from tqdm import tqdm

    bar = tqdm(total=len(own), desc="teach", unit="unit", disable=not session.shard.main)
    budget = _budget(session)
    live = Asking(requests=session.requests, budget=budget, progress=lambda: bar.update(1))
    try:
        asyncio.run(live.all(own, questions))
    except RankRLError as error:
        session.stopped = error
        if not session.shard.main:
            logger.error("process %s: %s", session.shard.rank, error.line())
    finally:
        bar.close()


def _budget(session: Session) -> Budget:
    """What is left below the limits, shared evenly; other runs may have had other processes."""
    options, teach = session.options, session.teach
    session.requests.store.refresh()
    spent = ledger(session.requests.store, teach.teachers, teach.currency)
    most = teach.max_cost if options.max_cost is None else options.max_cost
    count = teach.max_requests if options.max_requests is None else options.max_requests
    money, sent = spent["cost"], spent["requests"]
    return Budget(
        max_cost=None if most is None else money + session.shard.share(most - money),
        max_requests=None if count is None else sent + int(session.shard.share(count - sent)),
        spent=money,
        requests=sent,
    )


def _replayed(
    units: Sequence[Unit], questions: Sequence[Question], requests: Requests
) -> list[Answered]:
    """Units about which everything was answered, or given up."""
    answered = []
    for unit in units:
        try:
            answered.append(asking.replay(unit, questions, requests))
        except asking.Missing:
            continue
    return answered


def _estimate(session: Session) -> dict[str, Any]:
    """What the run would send, without sending it."""
    spec, teach, requests = session.spec, session.teach, session.requests
    planned = planning.Plan()
    if session.options.retry_failed:
        requests.store.ignore_failures()
    questions = list(session.questions)
    exact = True
    if teach.synthesis is not None:
        tasks = _synthesise(session, planned)
        exact = not planned.total()
        session.units = units_of(tasks, teach.units, spec.data.sampler, seed=spec.run.seed)
        questions = [*query_questions(teach.synthesis, spec.run.seed), *questions]
    else:
        session.units = _units(session)
    planned.merge(planning.plan(session.units, session.questions, requests))
    rows = planning.facts(planned, questions, requests)
    summary = {
        "table": rows,
        "requests": planned.total(),
        "cost at most": round(sum(r["cost at most"] for r in rows), 6),
        "currency": teach.currency,
        "prompts too long": planned.too_long,
    }
    if not exact:
        summary["not counted"] = "questions about queries that are not written yet"
    return summary


def _finish(session: Session) -> dict[str, Any]:
    """Replay everything from the stores and write the output."""
    requests = session.requests
    requests.store.refresh()
    requests.cuts = CutReport()  # of what is written, not of what was asked in which run
    answered = _replayed(session.units, session.questions, requests)
    _compare(session, answered, session.units)
    queries = _replayed(session.query_units, session.query_questions, requests)
    items = gather.collect(answered, session.questions, session.teach)
    foreign = [_imported(spec) for spec in session.teach.imports]
    items += gather.imported(lesson for found in foreign for lesson in found.lessons)
    judged = gather.judge(items, session.teach.filters, session.held_out)
    tasks, without = gather.labelled(answered, session.teach, judged, session.held_out)
    foreign_kept = [lesson for lesson in judged.kept if not lesson.keys]
    tasks += gather.imported_tasks(foreign_kept, session.teach.labels.levels)
    for spec, found in zip(session.teach.imports, foreign, strict=True):
        if not spec.lesson:
            judged.labels_only(found.lessons)
    made = output.Made(
        items=items,
        judged=judged,
        tasks=tasks,
        human=gather.judged_tasks(lesson for found in foreign for lesson in found.lessons),
        answered=answered,
        unlabelled=without,
        units=len(session.units),
        imports=foreign,
        synthesis=session.written,
        queries=queries,
        query_questions=session.query_questions,
    )
    counts = ledger(requests.store, session.teach.teachers, session.teach.currency)
    summary = output.write(made, counts, session.spec, session.info, requests)
    given_up = summary["requests"]["given_up"]
    if given_up and not counts["succeeded"] and session.stopped is None:
        session.stopped = BackendError(
            f"nothing was answered: {given_up} requests were given up",
            where=str(session.out_dir / "failures.jsonl"),
            remedy="put right what it names and start again with --retry-failed",
        )
    return summary


def _imported(spec: Any) -> Imported:
    reader = registry.resolve("import", spec.name, IMPORTS)
    found: Imported = reader(spec)
    return found


__all__ = ["LimitReached", "Options", "run"]
