"""The options of ``rank-rl rerank``, and what they say: inputs, how the model is asked, outputs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.specs import FormatSpec, FusionSpec, StrategySpec

FILES, ASKING, ENGINE = "Files of many queries", "How it is asked", "What answers"
ENGINES = ("local", "engine", "endpoint")


def _files(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=FILES, **more)


def _asking(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=ASKING, **more)


def _engine(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=ENGINE, **more)


Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint folder, Hub id, or a model's name on a server.", show_default=False
    ),
]
QueryText = Annotated[str | None, typer.Option(help="The query.")]
Documents = Annotated[
    str | None,
    typer.Option(help="JSON lines with text (id, title) or plain lines; - reads stdin."),
]
TopK = Annotated[
    int | None,
    typer.Option(
        min=1, help="Documents to show or write; of a run without --depth also to rerank."
    ),
]
Explain = Annotated[
    bool | None,
    typer.Option(
        "--explain/--no-explain", help="Write the reasoning too (default); of files, a page."
    ),
]
Page = Annotated[
    Path | None, typer.Option(help="HTML page with documents and reasoning (OUTPUT.html).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Run = Annotated[Path | None, _files("TREC run to rerank.")]
Corpus = Annotated[Path | None, _files("corpus.jsonl of the run.")]
Queries = Annotated[Path | None, _files("Queries of the run, JSONL or TSV.")]
Beir = Annotated[Path | None, _files("BEIR folder; BM25 where there is no --run.")]
Split = Annotated[str | None, _files("Only queries judged in qrels/NAME.tsv.", metavar="NAME")]
Tasks = Annotated[Path | None, _files("JSONL: query, documents (qid, instruction) a line.")]
Depth = Annotated[int | None, _files("Candidates of each query to rerank.", min=1)]
OutputFile = Annotated[
    Path | None, _files("Reranked TREC run to write, or .jsonl: a query a line.")
]
Exchanges = Annotated[Path | None, _files("Also write every prompt and answer (JSONL).")]
ScoresOption = Annotated[
    bool, _files("Write the reranker's own scores, e.g. as a teacher's.", "--scores")
]
Overwrite = Annotated[bool, _files("Forget what is kept.", "--overwrite", "--fresh")]
FirstStageOption = Annotated[
    str, _asking("given, bm25, or auto: bm25 where prompts tell its order.", "--first-stage")
]
FormatOption = Annotated[
    str | None,
    _asking(
        "slots, scores … for a model that says none; or 'name=scores mode=reason'.",
        "--format",
        metavar="NAME",
    ),
]
ReadoutOption = Annotated[
    str, _asking("score, expected, guided or decoded; auto: the checkpoint's.")
]
ReasoningOption = Annotated[
    bool | None,
    _asking(
        "Whether it reasons before it answers; neither: as the checkpoint did.",
        "--reasoning/--no-reasoning",
        show_default=False,
    ),
]
StrategyOption = Annotated[
    str | None, _asking("Which views are asked, if not as saved.", metavar="NAME")
]
ParamsOption = Annotated[
    str | None, _asking("Its parameters, or a YAML mapping.", metavar="'KEY=VALUE …'")
]
FusionOption = Annotated[
    str | None,
    _asking("Also join with the first stage: rrf, min_max or z_score.", metavar="METHOD"),
]
WeightOption = Annotated[
    float | None, _asking("Share of the reranker in the fusion, 0 to 1 (0.5).")
]
Constrained = Annotated[
    bool, _asking("Let it write nothing but answers that can be read.", "--constrained")
]
ThinkingBudget = Annotated[int | None, _asking("Most tokens of reasoning.", min=0)]
MaxNewTokens = Annotated[int | None, _asking("Most tokens of an answer.", min=1)]
BatchSize = Annotated[int | None, _asking("Views asked at once.", min=1)]
WorkersOption = Annotated[
    int | None, _engine("Threads that answer side by side on a CPU; else one a core.", min=1)
]
Engine = Annotated[str, _engine("local (transformers), engine (vLLM) or endpoint (a server).")]
EngineParams = Annotated[
    str | None,
    _engine("Further settings of the engine or endpoint.", metavar="'KEY=VALUE …'"),
]
BaseUrl = Annotated[str | None, _engine("Address of the endpoint, up to /v1.")]
Concurrency = Annotated[int | None, _engine("Most requests at once to the endpoint.", min=1)]
Device = Annotated[str, _engine("A torch device; auto takes a GPU where there is one.")]
Dtype = Annotated[
    str | None, _engine("Computed in float32 or bfloat16; else as the machine is fast at.")
]
Revision = Annotated[str | None, _engine("Revision of a model of the Hub.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for, option by option."""

    model: str
    query: str | None
    documents: str | None
    top_k: int | None
    explain: bool | None
    page: Path | None
    as_json: bool
    run: Path | None
    corpus: Path | None
    queries: Path | None
    beir: Path | None
    split: str | None
    tasks: Path | None
    depth: int | None
    output: Path | None
    exchanges: Path | None
    scores: bool
    overwrite: bool
    first_stage: str
    format_: str | None
    readout: str
    reasoning: bool | None
    strategy: str | None
    strategy_params: str | None
    fusion: str | None
    fusion_weight: float | None
    constrained: bool
    thinking_budget: int | None
    max_new_tokens: int | None
    batch_size: int | None
    workers: int | None
    engine: str
    engine_params: str | None
    base_url: str | None
    concurrency: int | None
    device: str
    dtype: str | None
    revision: str | None

    @property
    def source(self) -> str:
        """The option that names the files of many queries; empty for one query."""
        return next((n for n in ("beir", "run", "tasks") if getattr(self, n) is not None), "")


def refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse an option that would do nothing.

    Raises:
        RecipeError: naming the first one given.
    """
    for name, value in options.items():
        if value:
            raise RecipeError(why, where=f"--{name}")


def given(value: Any, option: str, expected: str) -> Any:
    """A value that has to be there.

    Raises:
        RecipeError: it is not.
    """
    if value is None:
        raise RecipeError("missing", where=option, expected=expected)
    return value


def format_named(text: str | None) -> FormatSpec | None:
    """The format of ``--format``: its name, or ``name=… mode=…`` and what else a format has.

    Raises:
        RecipeError: no such format, or a wrong parameter.
    """
    from pydantic import ValidationError

    from rank_rl import formats
    from rank_rl.specs import FormatSpec

    if text is None:
        return None
    known = {"name": text} if text.isidentifier() else read_params(text, "--format")
    try:
        spec = FormatSpec.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{key}: {first['msg']}", where="--format") from error
    formats.make(spec)  # before the model is loaded
    return spec


def asking_options(
    readout: str, reasoning: bool | None, strategy: StrategySpec | None
) -> dict[str, Any]:
    """How a ``Reranker`` is to ask, where it is not as its checkpoint says."""
    known: dict[str, Any] = {"readout": readout, "strategy": strategy}
    return known if reasoning is None else known | {"reasoning": "write" if reasoning else "skip"}


def strategy_named(name: str | None, params: str | None) -> StrategySpec | None:
    """The strategy of ``--strategy`` and ``--strategy-params``; None keeps the checkpoint's.

    Raises:
        RecipeError: no such strategy, parameters without one, or wrong ones.
    """
    from rank_rl import strategies
    from rank_rl.specs import StrategySpec

    if name is None:
        if params is not None:
            raise RecipeError("only with --strategy", where="--strategy-params")
        return None
    spec = StrategySpec(name=name, params=read_params(params or ""))
    strategies.make(spec)  # before the model is loaded
    return spec


def read_params(text: str, where: str = "--strategy-params") -> dict[str, Any]:
    """Parameters from a YAML mapping, or from ``key=value`` pairs with spaces between them.

    Raises:
        RecipeError: the text is neither.
    """
    import yaml

    expected = "'children=3 top_k=10' or '{children: 3, top_k: 10}'"
    try:
        whole = yaml.safe_load(text)
        if isinstance(whole, Mapping) and all(isinstance(key, str) for key in whole):
            return dict(whole)
        pairs = [word.partition("=") for word in shlex.split(text)]
        found = {key: yaml.safe_load(value) for key, _, value in pairs}
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{text!r} cannot be read", where=where, expected=expected) from error
    if not all(key and sign for key, sign, _ in pairs):
        raise RecipeError(f"{text!r}", where=where, expected=expected)
    return found


def fusion_named(method: str | None, weight: float | None) -> FusionSpec | None:
    """What ``--fusion`` and ``--fusion-weight`` ask for; None without a method.

    Raises:
        RecipeError: no such method, a weight out of range or without a method.
    """
    from rank_rl.specs import FusionMethod, FusionSpec

    if method is None:
        if weight is not None:
            raise RecipeError("only with --fusion", where="--fusion-weight")
        return None
    if method not in get_args(FusionMethod):
        known = ", ".join(get_args(FusionMethod))
        raise RecipeError(
            f"unknown fusion {method!r}", where="--fusion", expected=f"one of {known}"
        )
    if weight is None:
        return FusionSpec.model_validate({"method": method})
    if not 0 <= weight <= 1:
        raise RecipeError(f"{weight:g}", where="--fusion-weight", expected="a number from 0 to 1")
    return FusionSpec.model_validate({"method": method, "weight": weight})
