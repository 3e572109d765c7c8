"""What ``rank-rl rerank`` is told beside its files: strategy, fusion, and where scores go."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from rank_rl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from rank_rl.records import Ranking, RankingTask
    from rank_rl.specs import FusionSpec, StrategySpec

TAG = "rank_rl"

Exchanges = Annotated[Path | None, typer.Option(help="Also write every prompt and answer (JSONL).")]
TopK = Annotated[int | None, typer.Option(min=1, help="Documents to show, or to rerank of a run.")]
Explain = Annotated[
    bool | None, typer.Option("--explain/--no-explain", help="Write the reasoning too (default).")
]
FirstStageOption = Annotated[
    str, typer.Option(help="given, bm25, or auto: bm25 where prompts tell its order.")
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="slots, scores … for a model that says none."),
]
ReadoutOption = Annotated[
    str, typer.Option(help="score, expected, guided or decoded; auto: the checkpoint's.")
]
ReasoningOption = Annotated[
    bool | None,
    typer.Option(
        "--reasoning/--no-reasoning",
        help="Whether it reasons before it answers; neither: as the checkpoint did.",
        show_default=False,
    ),
]
StrategyOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which views are asked, if not as saved.")
]
ParamsOption = Annotated[
    str | None, typer.Option(metavar="'KEY=VALUE …'", help="Its parameters, or a YAML mapping.")
]
FusionOption = Annotated[
    str | None,
    typer.Option(metavar="METHOD", help="Also join with the first stage: rrf, min_max or z_score."),
]
WeightOption = Annotated[
    float | None, typer.Option(help="Share of the reranker in the fusion, 0 to 1 (0.5).")
]
ScoresOption = Annotated[
    bool, typer.Option("--scores", help="Write the reranker's own scores, e.g. as a teacher's.")
]


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


def read_params(text: str) -> dict[str, Any]:
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
        where = "--strategy-params"
        raise RecipeError(f"{text!r} cannot be read", where=where, expected=expected) from error
    if not all(key and sign for key, sign, _ in pairs):
        raise RecipeError(f"{text!r}", where="--strategy-params", expected=expected)
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


def fused(
    tasks: Sequence[RankingTask], rankings: Sequence[Ranking], fusion: FusionSpec
) -> list[Ranking]:
    """The rankings joined with the first stage's."""
    from rank_rl.strategies.fusion import fuse

    pairs = zip(tasks, rankings, strict=True)
    return [fuse(task, ranking, fusion.method, fusion.weight) for task, ranking in pairs]


def write_rankings(output: Path, rankings: Sequence[Ranking], *, scores: bool) -> str:
    """Write a TREC run; what is to be said about it, if anything.

    With ``scores`` it holds the reranker's own, and queries whose ranking has none are left out.

    Raises:
        DataError: no ranking has scores; the run is then written without them.
        StorageError: the file cannot be written.
    """
    from rank_rl.data import trec

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
