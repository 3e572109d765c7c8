"""``rank-rl rerank`` of one query: documents from a file or stdin, the ranking on the screen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rank_rl.cli import rerank_engine
from rank_rl.cli.asked import Options, fusion_named, refuse
from rank_rl.cli.show import line, show_table
from rank_rl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from rank_rl.records import RankingTask
    from rank_rl.rerank import Reranker, TaskResult
    from rank_rl.specs import FusionSpec


def rerank(options: Options) -> None:
    """Rank the documents of one query and show them.

    Raises:
        RankRLError: an option, the documents or the model is wrong.
    """
    from rank_rl.generation.cost import foreseen

    joined = fusion_named(options.fusion, options.fusion_weight)
    rerank_engine.check(options)
    whole: dict[str, object] = {
        "corpus": options.corpus,
        "queries": options.queries,
        "output": options.output,
    }
    whole |= {"exchanges": options.exchanges, "scores": options.scores, "split": options.split}
    whole |= {"depth": options.depth, "overwrite": options.overwrite}
    refuse(whole, "only with --run, --beir or --tasks")
    if options.query is None or options.documents is None:
        raise RecipeError(
            "nothing to rerank",
            where="rerank",
            expected="--query and --documents, or --output and --beir, --tasks, or --run with "
            "--corpus and --queries",
        )
    if options.page is not None and options.explain is False:
        raise RecipeError("not with --page", where="--no-explain")
    found = read_documents(options.documents)
    reranker = rerank_engine.load(options, device=options.device)
    task = _task(reranker, options.query, found, options.first_stage)
    typer.echo(foreseen(reranker, [task]).line(), err=True)
    shown = len(found) if options.top_k is None else min(options.top_k, len(found))
    (result,) = reranker.rank_tasks([task], explain=0 if options.explain is False else shown)
    if options.page is not None:
        _write_page(options.page, options, task, result)
    _show(task, result, shown, joined, as_json=options.as_json)
    typer.echo(_spent(result), err=True)


def _write_page(path: Path, options: Options, task: RankingTask, result: TaskResult) -> None:
    from rank_rl.bench.answered import answered
    from rank_rl.reranking.page import Entry, write_page

    answer = answered(result, reasons=False)
    entry = Entry(task=task, answer=lambda: answer)
    write_page(
        path,
        [entry],
        title=task.query.text,
        facts=[("model", options.model)],
        top_k=options.top_k,
    )
    typer.echo(f"page: {path}", err=True)


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


def _show(
    task: RankingTask, result: TaskResult, count: int, fusion: FusionSpec | None, *, as_json: bool
) -> None:
    """Print the first ``count`` documents of a ranking, with their places in the fused one."""
    from dataclasses import asdict

    from rank_rl.rerank import listed
    from rank_rl.reranking.outputs import fused

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
