"""``rank-rl rerank`` of files: what is read, asked, kept and written.

What the user sees is here; the work is ``rank_rl.reranking``'s.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rank_rl.cli import rerank_engine
from rank_rl.cli.asked import Options, fusion_named, given, refuse
from rank_rl.cli.show import line

if TYPE_CHECKING:
    from rank_rl.records import RankingTask
    from rank_rl.rerank import Reranker
    from rank_rl.reranking.inputs import Read
    from rank_rl.reranking.jobs import Job, Plan
    from rank_rl.reranking.kept import Kept
    from rank_rl.reranking.outputs import Output
    from rank_rl.reranking.shares import Team

EXPLAINED = 10  # documents of a query, where --top-k does not say how many


def rerank(options: Options) -> None:
    """Rerank the queries of files and write what was asked for.

    Raises:
        RankRLError: an option, a file, the model or the disk is wrong; what was answered is kept.
    """
    from rank_rl.reranking import jobs, outputs
    from rank_rl.reranking.shares import Team

    started = time.monotonic()
    _check(options)
    output = _output(options)
    team = Team.current()
    read = _read(options)
    outputs.check(output, read.tasks, list(_inputs(options).values()))
    reranker = rerank_engine.load(options, device=team.device(options.device))
    tasks = _ordered(options, read, reranker, team)
    reranker.check(tasks)
    settings = _settings(options, reranker, tasks, output)
    job = jobs.Job(tasks=tasks, folder=output.kept, settings=settings, overwrite=options.overwrite)
    kept, plan = jobs.opened(job, reranker, team)
    if options.engine == "endpoint":  # only now, as --overwrite forgets its answers too
        answers = output.kept / f"answers-{team.rank}.jsonl"
        reranker = rerank_engine.load(options, answers=answers)
    _answer(job, reranker, team, kept, plan)
    if team.main:
        seconds = round(time.monotonic() - started, 1)
        facts = {"processes": team.world, "wall_seconds": seconds, "answered_before": plan.before}
        inputs_read = {name: str(path) for name, path in _inputs(options).items()}
        _write(options, output, job, kept, {**facts, "inputs": inputs_read})


def _check(options: Options) -> None:
    """Refuse options that contradict each other, or would do nothing."""
    source = options.source
    rerank_engine.check(options)
    fusion_named(options.fusion, options.fusion_weight)
    alone: dict[str, object] = {
        "query": options.query,
        "documents": options.documents,
        "json": options.as_json,
    }
    alone |= {"no-explain": options.explain is False}
    alone["first-stage"] = source != "tasks" and options.first_stage != "auto"
    alone["tasks"] = source != "tasks" and options.tasks
    refuse(alone, f"not with --{source}")
    files: dict[str, object] = {"corpus": options.corpus, "queries": options.queries}
    if source == "run":
        for name, path in files.items():
            given(path, f"--{name}", "with --run, a file")
    else:
        refuse(files, f"not with --{source}")
    if source != "beir":
        refuse({"split": options.split}, "only with --beir")


def _inputs(options: Options) -> dict[str, Path]:
    """The files and folders that are read."""
    names = ("run", "corpus", "queries", "beir", "tasks")
    found = {name: getattr(options, name) for name in names}
    return {name: path for name, path in found.items() if path is not None}


def _depth(options: Options) -> int | None:
    """How many candidates are reranked: of a run, those shown where nothing else is said."""
    shown = options.top_k if options.run is not None else None
    return options.depth or shown


def _output(options: Options) -> Output:
    from rank_rl.reranking.outputs import Output

    path = Path(given(options.output, "--output", f"with --{options.source}, a file"))
    page = options.page
    if page is None and options.explain:
        page = path.with_name(f"{path.name}.html")
    return Output(
        run=path,
        top_k=options.top_k,
        scores=options.scores,
        fusion=fusion_named(options.fusion, options.fusion_weight),
        exchanges=options.exchanges,
        page=page,
    )


def _read(options: Options) -> Read:
    from rank_rl.reranking import inputs

    if options.tasks is not None:
        return inputs.read_listed_tasks(options.tasks)
    depth = _depth(options)
    if options.beir is not None:
        tasks = inputs.read_beir_tasks(
            options.beir, run=options.run, split=options.split, depth=depth
        )
    else:
        files: Any = (options.run, options.corpus, options.queries)
        tasks = inputs.read_run_tasks(*files, depth=depth)
    return inputs.Read(tasks=tuple(tasks))


def _ordered(options: Options, read: Read, reranker: Reranker, team: Team) -> list[RankingTask]:
    """What to rank; says on stderr when listed documents are put into another order before."""
    from rank_rl.reranking import inputs

    listed = [task for task in read.tasks if task.query.qid in read.listed]
    moved = sum(reranker.orders(task.candidates) for task in listed)
    if moved and options.first_stage == "auto" and team.main:
        what = "no first-stage scores: BM25 orders the documents (--first-stage given: not)"
        message = what if moved == len(read.tasks) else f"{moved} queries with {what}"
        typer.echo(message, err=True)
    tasks = inputs.ordered(read, options.first_stage, reranker.orders)
    return inputs.cut(tasks, _depth(options))


def _settings(options: Options, reranker: Reranker, tasks: Any, output: Output) -> dict[str, Any]:
    """What decides the answers; see ``rank_rl.reranking.settings``."""
    from rank_rl.models.sources import locate
    from rank_rl.reranking.settings import portion_of, settings

    explained = (options.top_k or EXPLAINED) if output.page is not None else 0
    size = options.batch_size or portion_of(len(tasks), reranker.batch_size)
    asked_for = rerank_engine.overrides(options)
    asked_for.pop("workers", None)  # it is up to the machine, and changes last digits only
    if options.engine == "local":
        asked_for.pop("dtype", None)  # auto may be the same: the settings name what is computed in
    found = settings(
        reranker,
        tasks,
        explain=explained,
        portion=size,
        overrides={**asked_for, "engine_params": options.engine_params},
    )
    if options.engine == "engine":
        found["model"] = {"revision": locate(options.model, options.revision).revision}
    return {**found, "engine": options.engine}


def _answer(job: Job, reranker: Reranker, team: Team, kept: Kept, plan: Plan) -> None:
    """Ask what is left, with a progress bar; an interrupt says how to go on."""
    from rank_rl.bench.progress import bar
    from rank_rl.generation.cost import foreseen
    from rank_rl.reranking import jobs

    left = plan.left(job)
    if team.main and plan.before:
        total = len(job.tasks)
        typer.echo(f"{plan.before} of {total} queries were answered before", err=True)
    if team.main and left:
        typer.echo(foreseen(reranker, left).line(), err=True)
    name = "reranking" if team.world < 2 else f"reranking (process 1 of {team.world})"
    try:
        with bar(name) as report:
            jobs.ask(job, reranker, team, kept, plan, report if team.main else None)
    except KeyboardInterrupt:
        if team.main:
            kept.refresh()
            done = sum(task.query.qid in kept.found for task in job.tasks)
            typer.echo(
                f"{done} of {len(job.tasks)} queries are answered and kept in {job.folder}: "
                "the same command goes on",
                err=True,
            )
        raise


def _write(options: Options, output: Output, job: Job, kept: Kept, facts: dict[str, Any]) -> None:
    """Write everything, and say what it has cost."""
    from rank_rl.generation.cost import spent_line
    from rank_rl.reranking import outputs

    tasks = job.tasks
    found = outputs.summary(output, tasks, kept, {"model": options.model, **facts})
    outputs.write_summary(output, found)
    spent = [outputs.Spent.of(kept.found[task.query.qid].answer) for task in tasks]
    line(spent_line(spent))
    if output.page is not None:
        _write_page(output.page, output, job, kept, found)
        line(f"page: {output.page}")
    if output.fusion is not None:
        line(f"joined with the first stage ({output.fusion.method}): {output.fused}")
    left_out = outputs.write(output, tasks, kept)
    failed = found["statuses"].get("failed", 0)
    read = f"{failed} answers could not be read{left_out}"
    line(f"{len(tasks)} queries reranked, {read}: {output.run}")
    if found["unanswered"] and options.engine == "endpoint":
        count = len(found["unanswered"])
        line(f"{count} of them have requests that nobody answered: the same command asks again")


def _write_page(path: Path, output: Output, job: Job, kept: Kept, found: dict[str, Any]) -> None:
    from rank_rl.reranking.page import Entry, write_page

    asked, failed = sum(found["statuses"].values()), found["statuses"].get("failed", 0)
    facts = [
        ("model", str(found["model"])),
        ("format", str(found["settings"]["format"]["version"])),
        ("strategy", str(found["settings"]["strategy"])),
        ("queries", f"{found['queries']:,}"),
        ("answers that could not be read", f"{failed:,} of {asked:,}"),
        ("tokens read", f"{found['prompt_tokens']:,}"),
        ("tokens written", f"{found['completion_tokens']:,}"),
        ("seconds of the model", f"{found['seconds']:,.1f}"),
    ]

    def entry(task: Any) -> Entry:
        return Entry(task=task, answer=lambda: kept.whole(task.query.qid))

    write_page(
        path,
        [entry(task) for task in job.tasks],
        title=f"Rankings of {output.run.name}",
        facts=facts,
        top_k=output.top_k,
    )
