"""``rank-rl serve``: a reranker behind HTTP, for clients of Cohere's and Jina's rerank APIs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rank_rl.cli import asked
from rank_rl.cli.process import keep_memory

if TYPE_CHECKING:
    from rank_rl.ranker import Ranker
    from rank_rl.serve.limits import Limits
    from rank_rl.serve.service import Service

LIMITS, ACCESS = "Limits", "Who may ask"


def _limit(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=LIMITS, **more)


def _access(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=ACCESS, **more)


Model = Annotated[str, typer.Argument(help="Checkpoint folder, Hub id, or a name on a server.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")]
Name = Annotated[str | None, typer.Option(help="What responses call the model.")]
Together = Annotated[
    int | None,
    typer.Option(min=1, help="Most requests that share batches; 1: one after the other."),
]
Remember = Annotated[
    int, typer.Option(min=0, help="Answers kept in memory for questions that come again.")
]
KeyEnv = Annotated[
    str | None, _access("Environment variable that holds the API keys.", metavar="NAME")
]
KeyFile = Annotated[Path | None, _access("File with an API key on each line.")]
MaxDocuments = Annotated[int, _limit("Documents of a request.", min=1)]
MaxBody = Annotated[float, _limit("MiB of a request.")]
MaxQuery = Annotated[int, _limit("Characters of a query.", min=1)]
MaxDocument = Annotated[int, _limit("Characters of a document that are read.", min=1)]
MaxWaiting = Annotated[int, _limit("Requests at the same time.", min=1)]
Budget = Annotated[float, _limit("Seconds of a request; then the first stage answers.")]
Grace = Annotated[float, _limit("Seconds to finish in when told to end.", min=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is served and how it was asked for."""

    options: asked.Options
    name: str
    limits: Limits
    keys: int
    together: int | None
    remember: int


def serve(
    model: Model,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: Name = None,
    together: Together = None,
    remember: Remember = 0,
    format_: asked.FormatOption = None,
    readout: asked.ReadoutOption = "auto",
    reasoning: asked.ReasoningOption = None,
    strategy: asked.StrategyOption = None,
    strategy_params: asked.ParamsOption = None,
    constrained: asked.Constrained = False,
    thinking_budget: asked.ThinkingBudget = None,
    max_new_tokens: asked.MaxNewTokens = None,
    batch_size: asked.BatchSize = None,
    workers: asked.WorkersOption = None,
    engine: asked.Engine = "local",
    engine_params: asked.EngineParams = None,
    base_url: asked.BaseUrl = None,
    concurrency: asked.Concurrency = None,
    device: asked.Device = "auto",
    dtype: asked.Dtype = None,
    revision: asked.Revision = None,
    api_key_env: KeyEnv = None,
    api_key_file: KeyFile = None,
    max_documents: MaxDocuments = 1000,
    max_body_mb: MaxBody = 4.0,
    max_query_chars: MaxQuery = 8192,
    max_document_chars: MaxDocument = 32768,
    max_waiting: MaxWaiting = 256,
    time_budget: Budget = 60.0,
    grace: Grace = 30.0,
) -> None:
    """Answer rerank requests over HTTP until told to end (SIGTERM or Ctrl-C)."""
    given = locals()  # first, so that the arguments are all there is
    from rank_rl.serve import server as http
    from rank_rl.serve.keys import read_keys

    http.check_installed()
    keep_memory()
    keys = read_keys(api_key_env, api_key_file)
    served = _served(given, len(keys))
    address = http.bind(host, port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    service = _warm(served)
    server = http.Server(service, keys, address)
    signals = http.Signals()
    server.start()
    _say(served, service.ranker, server.url)
    if not http.until_signal(server, signals, grace):
        from rank_rl.cli.process import exit_at_once

        typer.echo("ended; what the model was asked last is not waited for")
        exit_at_once(0)
    typer.echo("ended")


def _served(given: dict[str, Any], keys: int) -> Served:
    """What the options say, checked before a model is loaded.

    Raises:
        RecipeError: naming the option that is wrong.
    """
    from rank_rl.cli import rerank_engine
    from rank_rl.serve.limits import Limits

    known: dict[str, Any] = {field.name: given.get(field.name) for field in fields(asked.Options)}
    options = asked.Options(**known)
    rerank_engine.check(options)
    limits = Limits(
        documents=given["max_documents"],
        body_bytes=int(given["max_body_mb"] * 2**20),
        query_chars=given["max_query_chars"],
        document_chars=given["max_document_chars"],
        waiting=given["max_waiting"],
        seconds=given["time_budget"],
    )
    return Served(
        options=options,
        name=given["name"] or _short(options.model),
        limits=limits,
        keys=keys,
        together=given["together"],
        remember=given["remember"],
    )


def _short(model: str) -> str:
    """The last two names of a folder's path, or the name itself: paths are nobody's business."""
    path = Path(model)
    return "/".join(path.resolve().parts[-2:]) if path.is_dir() else model


def _warm(served: Served) -> Service:
    """The service with its model loaded; the first request must not pay for what is made once.

    Raises:
        RankRLError: the model is missing or wrong, or does not rank.
    """
    from rank_rl.cli import rerank_engine
    from rank_rl.serve.service import Service

    ranker = rerank_engine.load(served.options, device=served.options.device)
    service = Service(
        ranker,
        name=served.name,
        limits=served.limits,
        together=served.together,
        remember=served.remember,
    )
    if served.options.engine != "endpoint":  # what it answers may cost money
        task = ranker.task("what is this?", ["a warm-up", "a document"])
        service.batcher.submit(task, explain=1).result()
    return service


def _say(served: Served, ranker: Ranker, url: str) -> None:
    """What runs where, a line each."""
    from rank_rl.models.loading import precision

    options, loaded = served.options, ranker.loaded
    where = options.engine
    if loaded is not None:
        where += f", {loaded.device}, {precision(loaded)}"
    open_to_all = "none: whoever reaches the address may ask"
    for label, text in {
        "model": f"{options.model} (format {ranker.fmt.spec.name}, readout {ranker.readout})",
        "engine": f"{where}, {ranker.batch_size} questions a batch",
        "limits": served.limits.line(),
        "keys": f"{served.keys} known" if served.keys else open_to_all,
        "address": f"{url} (POST /v1/rerank, GET /health /metrics /v1/models)",
    }.items():
        typer.echo(f"{label + ':':9}{text}")
