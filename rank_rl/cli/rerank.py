"""``rank-rl rerank``: a trained checkpoint ranks documents from a file, stdin or a TREC run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli.asked import (
    TAG,
    Exchanges,
    Explain,
    FirstStageOption,
    FormatOption,
    FusionOption,
    ParamsOption,
    ReadoutOption,
    ReasoningOption,
    ScoresOption,
    StrategyOption,
    TopK,
    WeightOption,
    asking_options,
    fused,
    fusion_named,
    strategy_named,
    write_rankings,
)
from rank_rl.cli.show import line, show_table
from rank_rl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from rank_rl.records import RankingTask
    from rank_rl.rerank import Reranker, TaskResult
    from rank_rl.specs import FusionSpec


def rerank(
    model: Annotated[str, typer.Option(help="Checkpoint folder or Hub id.", show_default=False)],
    query: Annotated[str | None, typer.Option(help="The query.")] = None,
    documents: Annotated[
        str | None,
        typer.Option(help="JSON lines with text (id, title) or plain lines; - reads stdin."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="TREC run to rerank.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="corpus.jsonl of the run.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Queries of the run, JSONL or TSV.")] = None,
    output: Annotated[Path | None, typer.Option(help="Reranked TREC run to write.")] = None,
    exchanges: Exchanges = None,
    top_k: TopK = None,
    explain: Explain = None,
    first_stage: FirstStageOption = "auto",
    format_: FormatOption = None,
    readout: ReadoutOption = "auto",
    reasoning: ReasoningOption = None,
    strategy: StrategyOption = None,
    strategy_params: ParamsOption = None,
    fusion: FusionOption = None,
    fusion_weight: WeightOption = None,
    scores: ScoresOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Rerank documents for a query, or a whole TREC run."""
    from rank_rl.generation.cost import foreseen

    joined = fusion_named(fusion, fusion_weight)
    options = asking_options(readout, reasoning, strategy_named(strategy, strategy_params))
    if explain and reasoning is False:
        raise RecipeError("not with --no-reasoning", where="--explain")
    if run is not None:
        alone = {"query": query, "documents": documents, "json": as_json, "explain": explain}
        alone |= {"no-explain": explain is False, "first-stage": first_stage != "auto"}
        _refuse(alone, "not with --run")
        files = (run, _given(corpus, "--corpus"), _given(queries, "--queries"))
        target = _given(output, "--output")
        tasks = read_run_tasks(*files, depth=top_k)
        results = _rerank_run(_load(model, format_, options), tasks, exchanges)
        _write(tasks, results, target, joined, scores=scores)
        return
    whole = {"corpus": corpus, "queries": queries, "output": output, "exchanges": exchanges}
    _refuse({**whole, "scores": scores}, "only with --run")
    if query is None or documents is None:
        raise RecipeError(
            "nothing to rerank",
            where="rerank",
            expected="--query and --documents, or --run, --corpus, --queries and --output",
        )
    found = read_documents(documents)
    reranker = _load(model, format_, options)
    task = _task(reranker, query, found, first_stage)
    typer.echo(foreseen(reranker, [task]).line(), err=True)
    shown = len(found) if top_k is None else min(top_k, len(found))
    (result,) = reranker.rank_tasks([task], explain=0 if explain is False else shown)
    _show(task, result, shown, joined, as_json=as_json)
    typer.echo(_spent(result), err=True)


def _spent(result: TaskResult) -> str:
    """What one query has cost, and how many of its answers were not as they should be."""
    from rank_rl.generation.cost import spent_line

    counts = result.statuses
    read = (
        f"of {sum(counts.values())} answers {counts.get('repaired', 0)} were repaired and "
        f"{counts.get('failed', 0)} could not be read"
    )
    return f"{spent_line([result])}; {read}" if any(counts.values()) else spent_line([result])


def _task(
    reranker: Reranker, query: str, documents: Sequence[Mapping[str, Any]], first_stage: str
) -> RankingTask:
    """What to rank; says on stderr when documents are put into another order before."""
    from rank_rl.data.given import candidate

    found = [candidate(document, i) for i, document in enumerate(documents, 1)]
    if first_stage == "auto" and reranker.orders(found):
        message = "no first-stage scores: BM25 orders the documents (--first-stage given: not)"
        typer.echo(message, err=True)
    return reranker.task(query, found, first_stage=first_stage)


def _given(path: Path | None, option: str) -> Path:
    if path is None:
        raise RecipeError("missing", where=option, expected="with --run, a file")
    return path


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse an option that would do nothing.

    Raises:
        RecipeError: naming the first one given.
    """
    for name, value in options.items():
        if value:
            raise RecipeError(why, where=f"--{name}")


def _load(model: str, name: str | None, options: Mapping[str, Any]) -> Reranker:
    from rank_rl import formats
    from rank_rl.rerank import Reranker
    from rank_rl.specs import FormatSpec

    spec = FormatSpec(name=name) if name is not None else None
    if spec is not None:
        formats.make(spec)  # an unknown name is found before the model is loaded
    return Reranker.from_pretrained(model, format=spec, **options)


def read_documents(source: str) -> list[dict[str, Any]]:
    """Read documents with ``id``, ``text``, ``title`` and, where given, ``score`` from a file, or
    from stdin for ``-``.

    A line that begins with ``{`` is a JSON object; any other is the text of a document. A document
    without an id is named by its line number.

    Raises:
        DataError: no such file, no documents, a malformed line, or a repeated id.
    """
    from rank_rl.data.files import lines

    numbered: Iterable[tuple[str, str]]
    if source == "-":
        piped = sys.stdin.read().splitlines()
        numbered = [(f"stdin:{n}", row) for n, row in enumerate(piped, 1) if row.strip()]
    else:
        numbered = lines(Path(source))
    documents: dict[str, dict[str, Any]] = {}
    for where, row in numbered:
        document = _document(row, where)
        if document["id"] in documents:
            raise DataError(f"document {document['id']!r} appears twice", where=where)
        documents[document["id"]] = document
    if not documents:
        raise DataError("no documents", where="stdin", expected="one document a line")
    return list(documents.values())


def _document(line: str, where: str) -> dict[str, Any]:
    from rank_rl.data.files import identifier, text_field

    number = where.rpartition(":")[2]
    if not line.lstrip().startswith("{"):
        return {"id": number, "text": line.strip(), "title": ""}
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"invalid JSON: {error}", where=where) from error
    keys = ("id", "_id", "docid")
    named = any(record.get(key) is not None for key in keys)
    return {
        "id": identifier(record, keys, where) if named else number,
        "text": text_field(record, ("text", "contents"), where),
        "title": text_field(record, ("title",), where, default=""),
        **({"score": record["score"]} if record.get("score") is not None else {}),
    }


def read_run_tasks(run: Path, corpus: Path, queries: Path, *, depth: int | None) -> list[Any]:
    """Ranking tasks of a TREC run: its top ``depth`` documents in its order.

    Raises:
        DataError: a missing or malformed file, or a run that names unknown queries or documents.
    """
    from dataclasses import replace

    from rank_rl.data import sources, trec
    from rank_rl.records import RankingTask

    known = sources.read_corpus(corpus)
    tsv = queries.suffix in {".tsv", ".txt"}
    asked = trec.read_queries_tsv(queries) if tsv else sources.read_queries(queries)
    tasks = []
    for qid, pairs in trec.read_run(run).items():
        if qid not in asked:
            raise DataError(f"query {qid!r} is not in {queries}", where=str(run))
        absent = [docid for docid, _ in pairs if docid not in known]
        if absent:
            raise DataError(f"document {absent[0]!r} is not in {corpus}", where=str(run))
        candidates = tuple(
            replace(known[docid], rank=rank, score=score)
            for rank, (docid, score) in enumerate(pairs[:depth], 1)
        )
        tasks.append(RankingTask(query=asked[qid], candidates=candidates, source=str(run)))
    return tasks


def _rerank_run(
    reranker: Reranker, tasks: Sequence[RankingTask], exchanges: Path | None
) -> list[TaskResult]:
    """Rank all tasks; what it will cost is said before on stderr."""
    from rich.console import Console
    from rich.progress import track

    from rank_rl.bench.traces import trace
    from rank_rl.data.files import write_lines
    from rank_rl.generation.cost import foreseen

    typer.echo(foreseen(reranker, tasks).line(), err=True)
    results: list[TaskResult] = []
    for start in track(range(0, len(tasks), 16), "reranking", console=Console(stderr=True)):
        results += reranker.rank_tasks(tasks[start : start + 16])
    if exchanges is not None:
        write_lines(exchanges, (text for result in results for text in trace(result)))
    return results


def _write(
    tasks: Sequence[RankingTask],
    results: Sequence[TaskResult],
    output: Path,
    fusion: FusionSpec | None,
    *,
    scores: bool,
) -> None:
    """Write the run, and the fused one beside it, and say what it has cost."""
    from rank_rl.data import trec
    from rank_rl.generation.cost import spent_line

    rankings = [r.ranking for r in results]
    line(spent_line(results))
    if fusion is not None:
        beside = output.with_name(f"{output.stem}.fused.trec")
        trec.write_run(beside, fused(tasks, rankings, fusion), tag=TAG)
        line(f"joined with the first stage ({fusion.method}): {beside}")
    failed = sum(r.statuses.get("failed", 0) for r in results)
    left_out = write_rankings(output, rankings, scores=scores)
    line(f"{len(results)} queries reranked, {failed} answers could not be read{left_out}: {output}")


def _show(
    task: RankingTask, result: TaskResult, count: int, fusion: FusionSpec | None, *, as_json: bool
) -> None:
    """Print the first ``count`` documents of a ranking, with their places in the fused one."""
    from dataclasses import asdict

    from rank_rl.rerank import listed

    order = fused([task], [result.ranking], fusion)[0].docids if fusion else ()
    places = {docid: {"fused_rank": i} for i, docid in enumerate(order, 1)}
    found = listed(task, result, count)
    if as_json:
        for one in found:
            record = asdict(one) | places.get(one.docid, {})
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        return
    show_table(
        [
            {"rank": r.rank, **places.get(r.docid, {}), "score": r.score, "id": r.docid}
            | {"text": _short(r.text)}
            for r in found
        ]
    )
    told: set[str] = set()
    for one in found:
        if one.reasoning and one.reasoning not in told:
            told.add(one.reasoning)
            line(f"{one.rank}. [{one.docid}] {one.reasoning}")


def _short(text: str, width: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
